/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/link.h"

#include <sys/resource.h>

/* A link whose other end is the test, and what it told its owner. What it says on stderr goes to a pipe. */
struct rig {
    sd_event *event;
    struct link link;
    int broker, said, stderr_before;
    unsigned messages, gone;
    char why[MESSAGE_TEXT_MAX];
};

static void on_message(struct link *link, const union message *m, int fd, void *userdata)
{
    struct rig *rig = userdata;

    (void)link;
    (void)m;
    rig->messages++;
    if (fd >= 0)
        close(fd);
}

static void on_gone(struct link *link, const char *why, void *userdata)
{
    struct rig *rig = userdata;

    assert_int_equal(link->fd >= 0, why != NULL);
    rig->gone++;
    snprintf(rig->why, sizeof(rig->why), "%s", why ? why : "");
}

static void rig_open(struct rig *rig, struct rlimit *files)
{
    struct rlimit before;
    int pair[2], said[2];

    *rig = (struct rig){0};
    assert_true(sd_event_new(&rig->event) >= 0);
    test_pair(SOCK_SEQPACKET, 0, pair);
    rig->broker = pair[0];
    if (files) {
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, files), 0);
    }
    assert_true(link_init(&rig->link, rig->event, pair[1]) >= 0);
    if (files)
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    link_set_handlers(&rig->link, on_message, on_gone, rig);
    rig->link.phase = PHASE_RELAY;
    assert_int_equal(pipe2(said, O_CLOEXEC | O_NONBLOCK), 0);
    rig->said = said[0];
    rig->stderr_before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(rig->stderr_before >= 0 && dup2(said[1], STDERR_FILENO) >= 0);
    close(said[1]);
}

static void turn(struct rig *rig)
{
    while (sd_event_run(rig->event, 0) > 0)
        ;
}

/* Returns whether anything was said on stderr. */
static bool rig_close(struct rig *rig)
{
    char text[1024];
    bool said = read(rig->said, text, sizeof(text)) > 0;

    assert_true(dup2(rig->stderr_before, STDERR_FILENO) >= 0);
    close(rig->stderr_before);
    close(rig->said);
    if (rig->broker >= 0)
        close(rig->broker);
    link_clear(&rig->link);
    sd_event_unref(rig->event);
    return said;
}

static void tell(struct rig *rig, enum message_type type, int fd)
{
    union message m = {0};

    assert_int_equal(message_send(rig->broker, type, &m, fd), 0);
}

/* What the link has sent, LOG or RESULT; 0: nothing. */
static uint32_t heard(struct rig *rig, union message *ret)
{
    int fd;

    return message_recv(rig->broker, TO_BROKER, PHASE_RELAY, ret, &fd) > 0 ? ret->header.type : 0;
}

TEST(test_end)
{
    struct rig rig;

    rig_open(&rig, NULL);
    tell(&rig, MESSAGE_LIMIT, -1);
    close(rig.broker);
    rig.broker = -1;
    turn(&rig);
    assert_int_equal(rig.messages, 1);
    assert_int_equal(rig.gone, 1);
    assert_string_equal(rig.why, "");
    assert_false(rig_close(&rig));
}

/* A broker that ends with messages unread resets the link. That is no bad message, and what it said is heard.
 */
TEST(test_reset)
{
    union message m = {0};
    struct rig rig;

    rig_open(&rig, NULL);
    assert_true(link_send(&rig.link, MESSAGE_NEED_PEER, &m, -1));
    tell(&rig, MESSAGE_LIMIT, -1);
    tell(&rig, MESSAGE_LIMIT, -1);
    close(rig.broker);
    rig.broker = -1;
    turn(&rig);
    assert_int_equal(rig.messages, 2);
    assert_int_equal(rig.gone, 1);
    assert_string_equal(rig.why, "");
    assert_false(rig_close(&rig));
}

TEST(test_bad_message)
{
    union message m;
    struct rig rig;

    rig_open(&rig, NULL);
    tell(&rig, MESSAGE_LISTENER, STDIN_FILENO); /* a gate's */
    turn(&rig);
    assert_int_equal(heard(&rig, &m), MESSAGE_LOG);
    assert_non_null(strstr(m.log.text, "(LISTENER)"));
    assert_int_equal(rig.messages, 0);
    assert_int_equal(rig.gone, 1);
    assert_string_equal(rig.why, "");
    assert_false(rig_close(&rig));
}

/* No descriptor is left for that of a message: the limit is named, and the broker can be told the result. */
TEST(test_no_descriptor_left)
{
    struct rlimit limit, less;
    union message m = {0};
    struct rig rig;

    if (test_in_valgrind())
        skip(); /* it keeps that limit itself, and late */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    less = limit;
    less.rlim_cur = 20;
    rig_open(&rig, &less);
    tell(&rig, MESSAGE_PEER, STDIN_FILENO);
    less.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
    turn(&rig);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(rig.messages, 0);
    assert_int_equal(rig.gone, 1);
    assert_non_null(strstr(rig.why, "PEER"));
    assert_non_null(strstr(rig.why, "limit is 20, RLIMIT_NOFILE"));
    assert_int_equal(heard(&rig, &m), MESSAGE_LOG);
    assert_string_equal(m.log.text, rig.why);
    assert_true(link_send(&rig.link, MESSAGE_RESULT, &m, -1));
    assert_int_equal(heard(&rig, &m), MESSAGE_RESULT);
    assert_false(rig_close(&rig));
}

/* The first message of all: nothing may be said to the broker yet. */
TEST(test_no_descriptor_left_at_the_start)
{
    struct rlimit limit, less;
    union message m;
    struct rig rig;

    if (test_in_valgrind())
        skip();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rig_open(&rig, NULL);
    rig.link.phase = PHASE_NEW;
    tell(&rig, MESSAGE_START_RELAY, STDIN_FILENO);
    less = limit;
    less.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
    turn(&rig);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(rig.gone, 1);
    assert_int_equal(heard(&rig, &m), 0);
    assert_true(rig_close(&rig));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_end),
        CASE(test_reset),
        CASE(test_bad_message),
        CASE(test_no_descriptor_left),
        CASE(test_no_descriptor_left_at_the_start),
    };

    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
