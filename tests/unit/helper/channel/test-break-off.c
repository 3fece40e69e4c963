/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channels-rig.h"

/* QEMU at the destination closes a connection with something unread, as QEMU 10 does with the one for
 * preempted pages. */

struct pair {
    int qemu, peer;
};

static struct pair opens(struct channels_rig *rig, uint32_t channel, const char *text)
{
    struct pair pair;

    assert_null(rig_hears_open(rig, channel, 0));
    pair.peer = rig_gets_peer(rig, channel);
    rig_sends(rig, pair.peer, text);
    rig_asks_qemu(rig, channel);
    pair.qemu = rig_gets_qemu(rig, channel, 0);
    return pair;
}

/* Both QEMUs close channel 0 as they should. */
static void ends_main(struct channels_rig *rig, struct pair *main, uint64_t total)
{
    char buf[64];

    while (recv(main->qemu, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
    rig_closes(rig, &main->qemu);
    assert_null(rig_hears(rig, FRAME_FIN, 0, total));
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    close(main->peer);
}

/* All was delivered to its socket, so it is proved. */
TEST(test_unread)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), preempt = opens(rig, 1, "12345678");

    desk_run(&rig->desk);
    rig_closes(rig, &preempt.qemu);
    assert_int_equal(rig->n_failed, 0);
    ends_main(rig, &main, 6);
    assert_int_equal(rig->n_ended, 1);
    assert_null(rig_hears(rig, FRAME_FIN, 1, 8));
    assert_true(channels_are_complete(rig->channels));
    assert_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
    assert_int_equal(rig->n_ended, 2);
    assert_int_equal(rig->n_failed, 0);
    assert_int_equal(rig_state(rig, 1), STATS_CHANNEL_CLOSED);
    close(preempt.peer);
}

/* What QEMU's socket did not take is not delivered: the migration fails, once all else has been carried. */
TEST(test_a_rest)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), preempt = opens(rig, 1, "page");

    rig_receives(rig, preempt.qemu, "page");
    rig_closes(rig, &preempt.qemu);
    rig_sends(rig, preempt.peer, "12345678");
    assert_null(rig_hears(rig, FRAME_FIN, 1, 12));
    assert_int_equal(rig->n_failed, 0);
    rig_sends(rig, main.peer, "+last");
    rig_receives(rig, main.qemu, "memory+last");
    assert_false(channels_are_complete(rig->channels));
    ends_main(rig, &main, 11);
    assert_int_equal(rig->n_failed, 1);
    assert_int_equal(rig->error, VF_ERROR_SOCKET_UNAVAILABLE);
    assert_non_null(strstr(rig->why, "(channel 1) before it had taken the last 8 bytes"));
    assert_false(channels_are_complete(rig->channels));
    close(preempt.peer);
}

TEST(test_more_than_a_rest)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), preempt = opens(rig, 1, "page");
    char much[100] = "";

    rig_receives(rig, preempt.qemu, "page");
    rig_closes(rig, &preempt.qemu);
    memset(much, 'x', sizeof(much) - 1);
    rig_sends(rig, preempt.peer, much);
    assert_int_equal(rig->n_failed, 1);
    assert_non_null(strstr(rig->why, "last 99 bytes"));
    close(preempt.peer);
    close(main.qemu);
    close(main.peer);
}

/* The main one is the judge of the others, and has none. */
TEST(test_main)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), preempt = opens(rig, 1, "page");

    desk_run(&rig->desk);
    rig_closes(rig, &main.qemu);
    assert_true(rig->n_failed > 0);
    assert_int_equal(rig->error, VF_ERROR_SOCKET_UNAVAILABLE);
    close(main.peer);
    close(preempt.qemu);
    close(preempt.peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_unread),
        CASE(test_a_rest),
        CASE(test_more_than_a_rest),
        CASE(test_main),
    };

    return cmocka_run_group_tests_name("helper-channel-break-off", tests, NULL, NULL);
}
