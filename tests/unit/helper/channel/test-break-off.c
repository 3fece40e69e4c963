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

/* What QEMU's socket did not take: is waited out, and spared once the main one has ended well. */
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
    assert_int_equal(rig->n_failed, 0);
    assert_true(channels_are_complete(rig->channels));
    assert_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
    assert_int_equal(rig->n_ended, 2);
    assert_int_equal(rig_state(rig, 1), STATS_CHANNEL_CLOSED);
    close(preempt.peer);
}

/* As QEMU 7.2 does with multifd; the rest of one comes only afterwards. */
TEST(test_rests_of_many)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), pages[2] = {opens(rig, 1, "page"), opens(rig, 2, "page")};

    for (uint32_t i = 0; i < 2; i++) {
        rig_receives(rig, pages[i].qemu, "page");
        rig_closes(rig, &pages[i].qemu);
        rig_sends(rig, pages[i].peer, "1234");
        assert_null(rig_hears(rig, FRAME_FIN, 1 + i, i == 0 ? 8 : 12));
    }
    ends_main(rig, &main, 6);
    assert_int_equal(rig->n_failed, 0);
    assert_false(channels_are_complete(rig->channels));
    rig_sends(rig, pages[1].peer, "5678");
    assert_true(channels_are_complete(rig->channels));
    for (uint32_t i = 0; i < 2; i++) {
        assert_null(rig_hears(rig, FRAME_CLOSE, 1 + i, 0));
        close(pages[i].peer);
    }
    assert_int_equal(rig->n_ended, 3);
    assert_int_equal(rig->n_failed, 0);
}

/* It is behind the main one, whichever has ended well after that. */
TEST(test_a_rest_beside_one_that_ended)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), rest = opens(rig, 1, "page"), whole = opens(rig, 2, "page");

    rig_receives(rig, rest.qemu, "page");
    rig_closes(rig, &rest.qemu);
    rig_sends(rig, rest.peer, "1234");
    ends_main(rig, &main, 6);
    rig_receives(rig, whole.qemu, "page");
    rig_closes(rig, &whole.qemu);
    assert_null(rig_hears(rig, FRAME_FIN, 2, 4));
    assert_null(rig_hears(rig, FRAME_CLOSE, 2, 0));
    assert_null(rig_hears(rig, FRAME_FIN, 1, 8));
    assert_int_equal(rig->n_failed, 0);
    assert_true(channels_are_complete(rig->channels));
    close(rest.peer);
    close(whole.peer);
}

TEST(test_a_rest_that_grows)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), preempt = opens(rig, 1, "page");
    char much[2000] = "";

    rig_receives(rig, preempt.qemu, "page");
    rig_closes(rig, &preempt.qemu);
    rig_sends(rig, preempt.peer, "1");
    ends_main(rig, &main, 6);
    assert_int_equal(rig->n_failed, 0);
    memset(much, 'x', sizeof(much) - 1);
    rig_sends(rig, preempt.peer, much);
    assert_int_equal(rig->n_failed, 1);
    assert_false(channels_are_complete(rig->channels));
    close(preempt.peer);
}

/* It has had nothing, so it has not ended. */
TEST(test_all_is_rest)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory");
    int peer, qemu[2];

    assert_null(rig_hears_open(rig, 1, 0));
    peer = rig_gets_peer(rig, 1);
    rig_sends(rig, peer, "page");
    rig_asks_qemu(rig, 1);
    test_pair(SOCK_STREAM, 0, qemu);
    close(qemu[1]);
    channels_on_qemu(rig->channels, 1, 0, qemu[0], false);
    assert_null(rig_hears(rig, FRAME_FIN, 1, 4));
    assert_int_equal(rig->n_failed, 0);
    ends_main(rig, &main, 6);
    assert_int_equal(rig->n_failed, 1);
    assert_false(channels_are_complete(rig->channels));
    close(peer);
}

/* Its own rest is not spared because another one has ended well. */
TEST(test_a_rest_of_the_main_one)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), pages = opens(rig, 1, "page");

    rig_receives(rig, pages.qemu, "page");
    rig_closes(rig, &pages.qemu);
    assert_null(rig_hears(rig, FRAME_FIN, 1, 4));
    assert_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
    assert_int_equal(rig->n_ended, 1);
    rig_receives(rig, main.qemu, "memory");
    rig_closes(rig, &main.qemu);
    rig_sends(rig, main.peer, "+last");
    assert_int_equal(rig->n_failed, 1);
    assert_false(channels_are_complete(rig->channels));
    close(pages.peer);
    close(main.peer);
}

TEST(test_more_than_a_rest)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct pair main = opens(rig, 0, "memory"), preempt = opens(rig, 1, "page");
    char much[1346] = "";

    rig_receives(rig, preempt.qemu, "page");
    rig_closes(rig, &preempt.qemu);
    memset(much, 'x', sizeof(much) - 1);
    rig_sends(rig, preempt.peer, much);
    assert_int_equal(rig->n_failed, 1);
    assert_non_null(strstr(rig->why, "last 1345 bytes"));
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
        CASE(test_rests_of_many),
        CASE(test_a_rest_beside_one_that_ended),
        CASE(test_a_rest_that_grows),
        CASE(test_all_is_rest),
        CASE(test_a_rest_of_the_main_one),
        CASE(test_more_than_a_rest),
        CASE(test_main),
    };

    return cmocka_run_group_tests_name("helper-channel-break-off", tests, NULL, NULL);
}
