/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The event loop of vmferryctl, its signals, and what is said on stderr. */

#include "test-util.h"

#include <signal.h>
#include <sys/mman.h>

#include "ctl/loop.h"

static struct rig {
    struct ctl ctl;
    struct trouble trouble;
    sigset_t mask;
} rig;

static void begin(void)
{
    rig = (struct rig){0};
    assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &rig.mask), 0);
    assert_true(sd_event_new(&rig.ctl.event) >= 0);
}

static void end(void)
{
    sd_event_unref(rig.ctl.event);
    assert_int_equal(sigprocmask(SIG_SETMASK, &rig.mask, NULL), 0);
    trouble_clear(&rig.trouble);
}

static void turn(void)
{
    assert_int_equal(ctl_turn(&rig.ctl, SECOND, &rig.trouble), 0);
}

TEST(ctrl_c_is_counted)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    begin();
    assert_int_equal(ctl_catch_signals(&rig.ctl, &rig.trouble), 0);
    assert_int_equal(ctl_catch_signals(&rig.ctl, &rig.trouble), 0); /* once more is no harm */
    for (unsigned i = 0; i < ELEMENTS(signals); i++) {
        assert_int_equal(kill(getpid(), signals[i]), 0);
        turn();
        assert_int_equal(rig.ctl.interrupts, i + 1);
    }
    assert_false(rig.ctl.resized);
    assert_int_equal(kill(getpid(), SIGWINCH), 0);
    turn();
    assert_true(rig.ctl.resized);
    assert_int_equal(rig.ctl.interrupts, 3);
    end();
}

TEST(a_turn_ends_in_time)
{
    uint64_t before = ctl_now();

    begin();
    assert_int_equal(ctl_turn(&rig.ctl, SECOND / 50, &rig.trouble), 0);
    assert_true(ctl_now() >= before + SECOND / 50);
    end();
}

/* What is written to a stream while this file is in its place. */
static size_t written(int number, const char *path, void (*write_it)(void), char ret[static 256])
{
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : memfd_create("stream", MFD_CLOEXEC), kept = dup(number);
    ssize_t n;

    assert_true(fd >= 0 && kept >= 0);
    assert_int_equal(dup2(fd, number), number);
    write_it();
    assert_int_equal(dup2(kept, number), number);
    close(kept);
    n = path ? 0 : pread(fd, ret, 255, 0);
    close(fd);
    assert_true(n >= 0);
    ret[n] = '\0';
    return (size_t)n;
}

static void say_a_name(void)
{
    ctl_say(&rig.ctl, "VM '%s'.", "we\x1b]0;b1");
    fflush(stderr);
}

TEST(what_is_said_is_printable)
{
    char text[256];

    begin();
    written(STDERR_FILENO, NULL, say_a_name, text);
    assert_string_equal(text, "VM 'we?]0;b1'.\n");
    rig.ctl.arguments.quiet = true;
    assert_int_equal(written(STDERR_FILENO, NULL, say_a_name, text), 0);
    end();
}

static int flushed;

static void print_and_flush(void)
{
    fputs("vmferry1:ticket\n", stdout);
    flushed = ctl_flush(&rig.trouble);
}

/* A ticket that was not written must not be waited for. */
TEST(output_that_is_lost_is_a_failure)
{
    char text[256];

    begin();
    fflush(stdout);
    assert_int_equal(written(STDOUT_FILENO, NULL, print_and_flush, text), strlen("vmferry1:ticket\n"));
    assert_int_equal(flushed, 0);
    written(STDOUT_FILENO, "/dev/full", print_and_flush, text);
    assert_int_equal(flushed, -1);
    assert_int_equal(rig.trouble.status, STATUS_FAILED);
    assert_non_null(strstr(rig.trouble.text, "No space left"));
    clearerr(stdout);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(ctrl_c_is_counted),
        CASE(a_turn_ends_in_time),
        CASE(what_is_said_is_printable),
        CASE(output_that_is_lost_is_a_failure),
    };

    return cmocka_run_group_tests_name("ctl-loop", tests, NULL, NULL);
}
