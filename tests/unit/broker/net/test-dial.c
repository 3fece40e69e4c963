/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/config/settings.h"
#include "broker/net/dial.h"
#include "common/cleanup.h"

#include <sys/un.h>

/* Dialling a peer by several endpoints. */

struct rig {
    sd_event *event;
    struct config config;
    struct dial *dial;
    unsigned n_done;
    int fd;
    char why[512];
};

static void on_done(struct dial *dial, int fd, size_t which, const char *why, void *userdata)
{
    struct rig *rig = userdata;

    assert_ptr_equal(dial, rig->dial);
    rig->n_done++;
    rig->fd = fd;
    snprintf(rig->why, sizeof(rig->why), "%s", why ? why : "");
    rig->dial = dial_free(dial);
}

/* Until it is done, which it is once. */
static void dial(struct rig *rig, char (*endpoints)[ADDRESS_TEXT_MAX], size_t n, uint64_t timeout, uid_t uid)
{
    *rig = (struct rig){.fd = -1};
    assert_true(sd_event_new(&rig->event) >= 0);
    config_init(&rig->config);
    config_finish(&rig->config);
    assert_true(dial_new(rig->event, (const char(*)[ADDRESS_TEXT_MAX])endpoints, n, timeout, &rig->config,
                         uid, on_done, rig, &rig->dial) >= 0);
    assert_int_equal(rig->n_done, 0); /* never before it returns */
    for (int i = 0; i < 500 && rig->n_done == 0; i++)
        assert_true(sd_event_run(rig->event, 10000) >= 0);
    assert_int_equal(rig->n_done, 1);
    fd_closep(&rig->fd);
    sd_event_unref(rig->event);
    config_clear(&rig->config);
}

static int listen_tcp(char endpoint[static ADDRESS_TEXT_MAX])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)&in, size), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &size), 0);
    snprintf(endpoint, ADDRESS_TEXT_MAX, "tcp:127.0.0.1:%u", ntohs(in.sin_port));
    return fd;
}

TEST(the_first_that_connects_wins)
{
    char endpoints[3][ADDRESS_TEXT_MAX] = {"nonsense", "unix:/nonexistent/socket", ""};
    int listener = listen_tcp(endpoints[2]);
    struct rig rig;

    dial(&rig, endpoints, 3, 5000000, getuid());
    assert_string_equal(rig.why, "");
    close(listener);
}

TEST(each_failure_is_named)
{
    char endpoints[3][ADDRESS_TEXT_MAX] = {"tcp:*:1", "unix:/nonexistent/socket", "tcp:127.0.0.1:1"};
    struct rig rig;

    dial(&rig, endpoints, 3, 5000000, getuid());
    assert_string_equal(rig.why,
                        "tcp:*:1: it names no host; unix:/nonexistent/socket: No such file or directory; "
                        "tcp:127.0.0.1:1: Connection refused");
}

TEST(of_many_failures_the_first_ones_are_named)
{
    char endpoints[16][ADDRESS_TEXT_MAX];
    struct rig rig;

    for (int i = 0; i < 16; i++)
        snprintf(endpoints[i], ADDRESS_TEXT_MAX, "tcp:127.0.0.%d:1", i + 1);
    dial(&rig, endpoints, 16, 5000000, getuid());
    assert_non_null(strstr(rig.why, "tcp:127.0.0.1:1: Connection refused; "));
    assert_null(strstr(rig.why, "tcp:127.0.0.16:1:"));
    assert_true(strlen(rig.why) < DIAL_WHY_MAX);
    assert_non_null(strstr(rig.why, "; and 1"));
    assert_string_equal(rig.why + strlen(rig.why) - strlen(" more"), " more");
}

TEST(a_path_that_the_caller_may_not_name_is_not_dialled)
{
    char endpoints[1][ADDRESS_TEXT_MAX] = {"unix:/run/secret"};
    struct rig rig;

    dial(&rig, endpoints, 1, 5000000, getuid() + 54321);
    assert_non_null(strstr(rig.why, "it is in none of the directories"));
}

TEST(the_whole_is_bounded)
{
    char path[] = "/tmp/vmf-dial-XXXXXX", endpoints[1][ADDRESS_TEXT_MAX];
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), full[2];
    struct rig rig;

    assert_non_null(mkdtemp(path));
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", path);
    snprintf(endpoints[0], ADDRESS_TEXT_MAX, "unix:%s/s", path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 0), 0);
    for (int i = 0; i < 2; i++) { /* its backlog is full */
        full[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(full[i], (const struct sockaddr *)&un, sizeof(un));
    }
    dial(&rig, endpoints, 1, 100000, getuid());
    assert_non_null(strstr(rig.why, ": no answer"));
    for (int i = 0; i < 2; i++)
        close(full[i]);
    close(fd);
    unlink(un.sun_path);
    rmdir(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_first_that_connects_wins),
        CASE(each_failure_is_named),
        CASE(of_many_failures_the_first_ones_are_named),
        CASE(a_path_that_the_caller_may_not_name_is_not_dialled),
        CASE(the_whole_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
