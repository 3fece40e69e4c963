/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channels-rig.h"

#include "helper/limits.h"

/* What a loss of the connection to the peer changes: what was said may be said once more, and nothing else.
 */

TEST(test_open_is_heard_again_only_after_a_loss)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);

    assert_null(rig_hears_open(rig, 0, 0));
    rig_loses_connection(rig);
    rig_connects(rig);
    assert_null(rig_hears_open(rig, 0, 0)); /* once more: it may have been lost */
    assert_int_equal(rig->n_failed, 0);
    assert_null(rig_hears_open(rig, 0, 0)); /* twice is a violation */
    assert_int_equal(rig->n_failed, 1);
    assert_int_equal(rig->error, VF_ERROR_PROTOCOL_MISMATCH);
}

TEST(test_open_of_another_stream_after_a_loss)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);

    assert_null(rig_hears_open(rig, 0, 0));
    rig_loses_connection(rig);
    rig_connects(rig);
    assert_null(rig_hears_open(rig, 0, 1));
    assert_int_equal(rig->n_failed, 1);
}

TEST(test_source_announces_again)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), late;
    uint32_t serial;

    rig_says(rig, FRAME_OPEN, 0);
    serial = rig_asks_peer(rig);
    rig_loses_connection(rig);
    assert_false(requests_awaits_peer(rig->requests, PEER_CHANNEL, serial));
    late = rig_adds_qemu(rig, 0); /* no peer can be told yet */
    rig_asks_nothing(rig);
    rig_connects(rig);
    rig_says(rig, FRAME_OPEN, 0);
    rig_says(rig, FRAME_OPEN, 1);
    rig_says_nothing(rig);
    assert_true(rig_asks_peer(rig) > serial);
    rig_asks_peer(rig);
    rig_asks_nothing(rig);
    close(qemu);
    close(late);
}

/* QEMU's connection may come while the two sides greet each other again: nothing is said before HELLO. */
TEST(test_destination_waits_for_hello)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer, qemu;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, peer, "memory");
    rig_asks_qemu(rig, 0);
    rig_loses_connection(rig);
    rig_adopts(rig);
    qemu = rig_gets_qemu(rig, 0, 0);
    rig_says_nothing(rig);
    assert_int_equal(rig->n_failed + rig->n_lost, 0);
    close(peer);
    close(qemu);
}

/* A flow goes on from what the peer has; offsets that cannot be change nothing. */
TEST(test_resuming)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    rig_sends(rig, qemu, "memory");
    assert_null(rig_hears(rig, FRAME_ACK, 0, 2));
    assert_int_equal(channels_resume(rig->channels, 0, 2), -EEXIST); /* it is alive */
    rig_loses_connection(rig);
    rig_sends(rig, qemu, "+more");
    rig_connects(rig);
    assert_int_equal(channels_resume(rig->channels, 0, 1), -EBADMSG);
    assert_int_equal(channels_resume(rig->channels, 0, 7), -EBADMSG);
    assert_int_equal(channels_resume(rig->channels, 1, 7), -EBADMSG);
    assert_int_equal(channels_resume(rig->channels, 1, 0), 0);
    assert_int_equal(channels_resume(rig->channels, 0, 3), 1);
    close(peer);
    peer = rig_gets_peer(rig, 0);
    rig_receives(rig, peer, "ory+more");
    assert_int_equal(rig->n_active, 2);
    assert_int_equal(rig->n_lost + rig->n_failed, 0);
    close(qemu);
    close(peer);
}

TEST(test_received_survives)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer, qemu;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, peer, "some");
    qemu = rig_gets_qemu(rig, 0, 0);
    rig_receives(rig, qemu, "some");
    rig_loses_connection(rig);
    assert_int_equal(channels_received(rig->channels, 0), 4);
    rig_connects(rig);
    assert_null(rig_hears_open(rig, 0, 0));
    rig_says_nothing(rig);
    close(peer);
    peer = rig_gets_peer(rig, 0);
    rig_says_offset(rig, FRAME_ACK, 4); /* the last one may have been lost */
    rig_sends(rig, peer, "+more");
    rig_receives(rig, qemu, "+more");
    close(peer);
    close(qemu);
}

/* FIN and CLOSE are said again when the peer connection is back, and not before; each is heard once more. */
TEST(test_end_is_said_again)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    rig_says(rig, FRAME_OPEN, 0);
    rig_sends(rig, qemu, "memory");
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    rig_says_offset(rig, FRAME_FIN, 6);
    assert_null(rig_hears(rig, FRAME_FIN, 0, 0));
    assert_null(rig_hears(rig, FRAME_ACK, 0, 6));
    rig_says(rig, FRAME_CLOSE, 0);
    for (int i = 0; i < 2; i++) {
        rig_loses_connection(rig);
        rig_connects(rig);
        rig_says(rig, FRAME_OPEN, 0);
        channels_set_limit(rig->channels, 0); /* any event */
        rig_says_nothing(rig);
        assert_int_equal(channels_resume(rig->channels, 0, 6), 1);
        close(peer);
        peer = rig_gets_peer(rig, 0);
        rig_says_offset(rig, FRAME_FIN, 6);
        rig_says(rig, FRAME_CLOSE, 0);
        rig_says_nothing(rig);
        assert_null(rig_hears(rig, FRAME_FIN, 0, 0));
        assert_non_null(rig_hears(rig, FRAME_FIN, 0, 0));
        assert_int_equal(rig->n_ended, 0);
    }
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_int_equal(rig->n_ended, 1);
    close(qemu);
    close(peer);
}

/* CLOSE that was heard stays heard, and ends the channel at once when this side may say its own. */
TEST(test_close_is_heard_again)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer, qemu;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, peer, "some");
    qemu = rig_gets_qemu(rig, 0, 0);
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    rig_receives(rig, qemu, "some");
    assert_null(rig_hears(rig, FRAME_FIN, 0, 4));
    assert_null(rig_hears(rig, FRAME_ACK, 0, 0));
    rig_loses_connection(rig);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_OPEN);
    assert_true(channels_are_complete(rig->channels)); /* as far as this side can prove it */
    rig_connects(rig);
    assert_null(rig_hears_open(rig, 0, 0));
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_int_equal(rig->n_ended, 1);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_CLOSED);
    close(peer);
    close(qemu);
}

/* The source says of each channel that there has been what it is. */
TEST(test_all_is_announced)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemus[3], peer;
    struct frame frame;

    for (int i = 0; i < 3; i++)
        qemus[i] = rig_adds_qemu(rig, 0);
    peer = rig_gets_peer(rig, 0);
    shutdown(qemus[0], SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, 0, 0));
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_null(rig_hears_refusal(rig, 1, VF_ERROR_INTERRUPTED));
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_CLOSED);
    assert_int_equal(rig_state(rig, 1), STATS_CHANNEL_LOST);
    rig_loses_connection(rig);
    rig_connects(rig);
    rig_says(rig, FRAME_CLOSE, 0);
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_REFUSED);
    assert_int_equal(frame.channel, 1);
    rig_says(rig, FRAME_OPEN, 2);
    rig_says_nothing(rig);
    for (int i = 0; i < 3; i++)
        close(qemus[i]);
    close(peer);
}

/* The destination answers for one that is no more. */
TEST(test_open_of_what_was_given_up)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct frame frame;

    assert_null(rig_hears_open(rig, 0, 0));
    rig_loses_connection(rig);
    channels_give_up(rig->channels);
    rig_connects(rig);
    assert_null(rig_hears_open(rig, 0, 0));
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_REFUSED);
    assert_int_equal(frame.refusal.error, VF_ERROR_INTERRUPTED);
    assert_null(rig_hears_refusal(rig, 7, VF_ERROR_INTERRUPTED)); /* given up before its OPEN came through */
    assert_null(rig_hears_open(rig, 7, 0));
    assert_int_equal(rig->n_failed, 0);
}

/* A peer connection that breaks is a loss; QEMU's connection stays. */
TEST(test_peer_goes)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);
    char byte;

    rig_closes(rig, &peer);
    assert_int_equal(rig->n_lost, 1);
    assert_int_equal(rig->n_failed, 0);
    rig_loses_connection(rig);
    assert_int_equal(recv(qemu, &byte, 1, MSG_DONTWAIT), -1);
    close(qemu);
}

/* Nothing is read, sent or waited for while the session is halted. */
TEST(test_halted)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    rig_says(rig, FRAME_OPEN, 0);
    rig->halted = true;
    rig_sends(rig, qemu, "memory");
    channels_set_limit(rig->channels, 0);
    assert_int_equal(rig->page.sent, 0);
    rig_says_nothing(rig);
    close(qemu);
    close(peer);
}

static int on_passed(sd_event_source *source, uint64_t usec, void *userdata)
{
    *(bool *)userdata = true;
    return 0;
}

/* Timers of before are over when one that was set later has fired. */
static void passes(struct channels_rig *rig, uint64_t usec)
{
    sd_event_source *timer = NULL;
    bool passed = false;

    assert_true(sd_event_add_time_relative(rig->desk.event, &timer, CLOCK_MONOTONIC, usec, 1, on_passed,
                                           &passed) >= 0);
    while (!passed)
        assert_true(sd_event_run(rig->desk.event, UINT64_MAX) >= 0);
    sd_event_source_unref(timer);
}

/* The migration may have ended: no QEMU is asked for any more. */
TEST(test_halted_destination)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig->halted = true;
    passes(rig, DIAL_GRACE + 1000);
    rig_asks_nothing(rig);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_open_is_heard_again_only_after_a_loss),
        CASE(test_open_of_another_stream_after_a_loss),
        CASE(test_source_announces_again),
        CASE(test_destination_waits_for_hello),
        CASE(test_resuming),
        CASE(test_received_survives),
        CASE(test_end_is_said_again),
        CASE(test_close_is_heard_again),
        CASE(test_all_is_announced),
        CASE(test_open_of_what_was_given_up),
        CASE(test_peer_goes),
        CASE(test_halted),
        CASE(test_halted_destination),
    };

    return cmocka_run_group_tests_name("helper-channel-losses", tests, NULL, NULL);
}
