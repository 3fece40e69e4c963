/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channels-rig.h"

#include <fcntl.h>

/* How channels begin, what their ledgers say, and how they end: without a loss. */

TEST(test_source_announces_once)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0);

    rig_says(rig, FRAME_OPEN, 0);
    assert_int_equal(rig_asks_peer(rig), 1);
    rig_sends(rig, qemu, "nothing is taken before there is a peer that may refuse");
    assert_int_equal(rig->page.sent, 0);
    rig_says_nothing(rig);
    rig_asks_nothing(rig);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_OPENING);
    close(qemu);
}

/* Both directions end; each word is said once, in its order, and the last one closes the channel. */
TEST(test_ledger_of_a_source)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    assert_int_equal(rig->n_active, 1);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_OPEN);
    rig_says(rig, FRAME_OPEN, 0);
    rig_sends(rig, qemu, "memory");
    rig_receives(rig, peer, "memory");
    rig_says_nothing(rig);
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    rig_says_offset(rig, FRAME_FIN, 6);
    rig_sends(rig, peer, "done");
    rig_receives(rig, qemu, "done");
    assert_null(rig_hears(rig, FRAME_FIN, 0, 4));
    rig_says_offset(rig, FRAME_ACK, 4);
    assert_false(channels_are_complete(rig->channels));
    rig_says_nothing(rig); /* no CLOSE before all that was sent is acknowledged */
    assert_null(rig_hears(rig, FRAME_ACK, 0, 5));
    rig_says_nothing(rig);
    assert_null(rig_hears(rig, FRAME_ACK, 0, 6));
    rig_says(rig, FRAME_CLOSE, 0);
    assert_true(channels_are_complete(rig->channels));
    assert_int_equal(rig->n_ended, 0);
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_int_equal(rig->n_ended, 1);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_CLOSED);
    assert_false(channels_is_any_living(rig->channels));
    assert_true(channels_are_complete(rig->channels));
    assert_int_equal(rig->n_failed + rig->n_lost + rig->n_violated, 0);
    close(qemu);
    close(peer);
}

/* What the ledger holds against the peer. */
TEST(test_what_cannot_be_true)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    rig_sends(rig, qemu, "memory");
    assert_non_null(rig_hears(rig, FRAME_ACK, 0, 7));
    assert_null(rig_hears(rig, FRAME_ACK, 0, 3));
    assert_non_null(rig_hears(rig, FRAME_ACK, 0, 2));
    assert_non_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_null(rig_hears(rig, FRAME_FIN, 0, 9));
    assert_non_null(rig_hears(rig, FRAME_FIN, 0, 9)); /* once per connection */
    assert_non_null(rig_hears(rig, FRAME_ACK, 1, 0)); /* there has been no channel 1 */
    assert_non_null(rig_hears_refusal(rig, 0, VF_ERROR_LIMIT_EXCEEDED));
    close(qemu);
    close(peer);
}

/* A migration that carried nothing on its main stream is not done. */
TEST(test_empty_channel_does_not_complete)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, 0, 0));
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_CLOSED);
    assert_false(channels_are_complete(rig->channels));
    close(qemu);
    close(peer);
}

TEST(test_other_stream_does_not_complete)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 1), peer = rig_gets_peer(rig, 0);

    rig_sends(rig, qemu, "blocks");
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, 0, 0));
    assert_null(rig_hears(rig, FRAME_ACK, 0, 6));
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_int_equal(rig->n_ended, 1);
    assert_false(channels_are_complete(rig->channels));
    close(qemu);
    close(peer);
}

TEST(test_limit_of_channels)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct frame frame;

    for (uint32_t i = 0; i < 4; i++)
        assert_null(rig_hears_open(rig, i, 0));
    rig_says_nothing(rig);
    assert_null(rig_hears_open(rig, 4, 0));
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_REFUSED);
    assert_int_equal(frame.refusal.error, VF_ERROR_LIMIT_EXCEEDED);
    assert_int_equal(rig->n_failed, 0);
    assert_null(rig_hears_open(rig, 4, 0)); /* its number is taken all the same */
    assert_int_equal(rig->n_failed, 1);
    assert_non_null(strstr(rig->why, "opened channel 4 on stream 0"));
}

TEST(test_lower_limit_of_the_peer)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int first, second;
    char byte;

    channels_limit_number(rig->channels, 1);
    channels_limit_number(rig->channels, 9);
    first = rig_adds_qemu(rig, 0);
    second = rig_adds_qemu(rig, 0);
    assert_int_equal(recv(second, &byte, 1, MSG_DONTWAIT), 0); /* closed */
    assert_int_equal(recv(first, &byte, 1, MSG_DONTWAIT), -1);
    close(first);
    close(second);
}

/* Destination: one connection to a QEMU at a time, in the source's order, once its first bytes are there. */
TEST(test_dialling_in_order)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peers[2], qemus[2];

    assert_null(rig_hears_open(rig, 0, 0));
    assert_null(rig_hears_open(rig, 1, 0));
    peers[1] = rig_gets_peer(rig, 1);
    rig_sends(rig, peers[1], "second");
    rig_asks_nothing(rig); /* it is not its turn */
    peers[0] = rig_gets_peer(rig, 0);
    rig_asks_nothing(rig); /* QEMU would look at once */
    rig_sends(rig, peers[0], "first");
    rig_asks_qemu(rig, 0);
    rig_asks_nothing(rig);
    qemus[0] = rig_gets_qemu(rig, 0, 0);
    rig_says(rig, FRAME_OPENED, 0);
    rig_asks_qemu(rig, 1);
    qemus[1] = rig_gets_qemu(rig, 1, 0);
    rig_receives(rig, qemus[0], "first");
    rig_receives(rig, qemus[1], "second");
    assert_int_equal(rig->n_active, 2);
    for (int i = 0; i < 2; i++) {
        close(qemus[i]);
        close(peers[i]);
    }
}

/* A connection that comes for a channel that was refused meanwhile serves the next one. */
TEST(test_dialled_for_another)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peers[2], qemu;

    assert_null(rig_hears_open(rig, 0, 0));
    assert_null(rig_hears_open(rig, 1, 0));
    peers[0] = rig_gets_peer(rig, 0);
    peers[1] = rig_gets_peer(rig, 1);
    rig_sends(rig, peers[1], "second");
    rig_sends(rig, peers[0], "first");
    rig_asks_qemu(rig, 0);
    rig_loses_connection(rig);
    rig_connects(rig);
    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_LOST);
    close(peers[1]);
    peers[1] = rig_gets_peer(rig, 1);
    rig_asks_nothing(rig); /* one is under way */
    qemu = rig_gets_qemu(rig, 0, 0);
    rig_receives(rig, qemu, "second");
    close(qemu);
    close(peers[0]);
    close(peers[1]);
}

/* Nothing is asked for again on behalf of a channel that has ended. */
TEST(test_requests_of_a_channel_that_ended)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0);
    uint32_t serial = rig_asks_peer(rig);

    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    assert_false(requests_awaits_peer(rig->requests, PEER_CHANNEL, serial));
    requests_repeat(rig->requests);
    rig_asks_nothing(rig);
    close(qemu);
}

TEST(test_qemu_cannot_be_had)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, peer, "first");
    rig_asks_qemu(rig, 0);
    assert_false(channels_on_qemu_failed(rig->channels, 0, 1)); /* of another stream */
    assert_true(channels_on_qemu_failed(rig->channels, 0, 0));
    close(peer);
}

/* Little is acknowledged soon, much at once. */
TEST(test_acknowledgements)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    uint8_t data[4096];
    int peer, qemu;
    size_t sent = 0, got = 0;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, peer, "some");
    qemu = rig_gets_qemu(rig, 0, 0);
    rig_receives(rig, qemu, "some");
    rig_says(rig, FRAME_OPENED, 0);
    rig_says_nothing(rig);
    assert_true(sd_event_run(rig->desk.event, 1000000) > 0);
    rig_says_offset(rig, FRAME_ACK, 4);
    test_fill(data, sizeof(data), 0);
    while (sent < FLOW_ACK_STEP) {
        ssize_t n = send(peer, data, sizeof(data), MSG_NOSIGNAL | MSG_DONTWAIT);

        sent += n > 0 ? (size_t)n : 0;
        desk_run(&rig->desk);
        while ((n = recv(qemu, data, sizeof(data), MSG_DONTWAIT)) > 0)
            got += (size_t)n;
    }
    assert_int_equal(got, sent);
    rig_says(rig, FRAME_ACK, 0);
    close(qemu);
    close(peer);
}

TEST(test_qemu_goes_too_early)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer, qemu;

    assert_null(rig_hears_open(rig, 0, 0));
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, peer, "some");
    qemu = rig_gets_qemu(rig, 0, 0);
    rig_closes(rig, &qemu);
    rig_sends(rig, peer, "more");
    assert_int_equal(rig->n_lost, 0);
    assert_true(rig->n_failed > 0);
    assert_int_equal(rig->error, VF_ERROR_SOCKET_UNAVAILABLE);
    close(peer);
}

TEST(test_refused_for_good)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0);

    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_SOCKET_UNAVAILABLE));
    assert_int_equal(rig->n_refused, 1);
    assert_int_equal(rig->error, VF_ERROR_SOCKET_UNAVAILABLE);
    close(qemu);
}

/* Only a destination splices, and in `plain`; brokers of before give pipes to others too. */
TEST(test_pipes)
{
    const enum message_role roles[] = {ROLE_INCOMING, ROLE_OUTGOING};

    for (size_t i = 0; i < 2; i++) {
        _cleanup_rig_ rig = rig_new(roles[i], true);
        struct message_pipe m = {.channel = 0, .use = PIPE_MOVE};
        int qemu = -1, ends[2];

        if (roles[i] == ROLE_OUTGOING)
            qemu = rig_adds_qemu(rig, 0);
        else
            assert_null(rig_hears_open(rig, 0, 0));
        for (uint32_t use = 0; use < 3; use++) {
            assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
            close(ends[0]);
            m.use = use;
            channels_on_pipe(rig->channels, &m, ends[1]); /* takes it: a descriptor left open fails this */
        }
        assert_int_equal(rig->channels->all[0].relay.in.pipe >= 0, roles[i] == ROLE_INCOMING);
        if (qemu >= 0)
            close(qemu);
    }
}

/* The migration has ended: QEMU knows at once, the peer not yet. */
TEST(test_quit)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);
    char byte;

    rig->halted = true;
    channels_quit(rig->channels);
    assert_int_equal(recv(qemu, &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(recv(peer, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_LOST);
    close(qemu);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_source_announces_once),
        CASE(test_ledger_of_a_source),
        CASE(test_what_cannot_be_true),
        CASE(test_empty_channel_does_not_complete),
        CASE(test_other_stream_does_not_complete),
        CASE(test_limit_of_channels),
        CASE(test_lower_limit_of_the_peer),
        CASE(test_dialling_in_order),
        CASE(test_dialled_for_another),
        CASE(test_requests_of_a_channel_that_ended),
        CASE(test_qemu_cannot_be_had),
        CASE(test_acknowledgements),
        CASE(test_qemu_goes_too_early),
        CASE(test_refused_for_good),
        CASE(test_pipes),
        CASE(test_quit),
    };

    return cmocka_run_group_tests_name("helper-channel-channels", tests, NULL, NULL);
}
