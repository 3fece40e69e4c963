/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ssh/relay.h"

/* A relay in a process of its own: near is what ssh has, far what QEMU or the bus has. */
struct rig {
    pid_t pid;
    int near_in, near_out, far; /* near_in and near_out are the same where it is a socket */
};

static void start(struct rig *rig, bool pipes)
{
    int in[2], out[2], far[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, far), 0);
    if (pipes) {
        assert_int_equal(pipe(in), 0);
        assert_int_equal(pipe(out), 0);
    } else {
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        in[1] = pair[0];
        in[0] = out[1] = pair[1];
        out[0] = in[1];
    }
    rig->pid = fork();
    assert_true(rig->pid >= 0);
    if (rig->pid == 0) {
        alarm(20);
        close(far[0]);
        close(in[1]);
        if (pipes)
            close(out[0]);
        relay_run(in[0], out[1], far[1]);
        _exit(7);
    }
    close(far[1]);
    close(in[0]);
    if (pipes)
        close(out[1]);
    *rig = (struct rig){.pid = rig->pid, .near_in = in[1], .near_out = out[0], .far = far[0]};
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* The next bytes; "" is the end. */
static void expect(int fd, const char *text)
{
    char data[64] = "";
    size_t n = 0;
    ssize_t r = 1;

    while (n < strlen(text) && (r = read(fd, data + n, sizeof(data) - 1 - n)) > 0)
        n += (size_t)r;
    if (text[0] == '\0')
        r = read(fd, data, sizeof(data) - 1);
    assert_string_equal(data, text);
    assert_true(text[0] != '\0' || r == 0);
}

static void expect_end(struct rig *rig)
{
    int status;

    assert_int_equal(waitpid(rig->pid, &status, 0), rig->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* QEMU has ended, and ssh never closes its stdin. */
static void test_far_end_closes(void **state)
{
    (void)state;
    for (int pipes = 0; pipes < 2; pipes++) {
        struct rig rig;

        start(&rig, pipes);
        put(rig.near_in, "command");
        expect(rig.far, "command");
        put(rig.far, "last words");
        close(rig.far);
        expect(rig.near_out, "last words");
        expect_end(&rig);
        expect(rig.near_out, "");
        close(rig.near_in);
        if (pipes)
            close(rig.near_out);
    }
}

/* ssh has ended; the far end would send nothing more by itself. */
static void test_near_end_closes(void **state)
{
    (void)state;
    for (int pipes = 0; pipes < 2; pipes++) {
        struct rig rig;

        start(&rig, pipes);
        put(rig.near_in, "last words");
        close(rig.near_in);
        if (pipes)
            close(rig.near_out);
        expect(rig.far, "last words");
        expect_end(&rig);
        expect(rig.far, "");
        close(rig.far);
    }
}

/* One direction ends; the other one goes on for as long as it likes. */
static void test_half_closes(void **state)
{
    struct rig rig;

    (void)state;
    start(&rig, false);
    assert_int_equal(shutdown(rig.far, SHUT_WR), 0);
    expect(rig.near_out, "");
    put(rig.near_in, "still there");
    expect(rig.far, "still there");
    close(rig.near_in);
    expect(rig.far, "");
    expect_end(&rig);
    close(rig.far);

    start(&rig, false);
    assert_int_equal(shutdown(rig.near_in, SHUT_WR), 0);
    expect(rig.far, "");
    put(rig.far, "still there");
    expect(rig.near_out, "still there");
    close(rig.far);
    expect(rig.near_out, "");
    expect_end(&rig);
    close(rig.near_in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_far_end_closes),
        cmocka_unit_test(test_near_end_closes),
        cmocka_unit_test(test_half_closes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
