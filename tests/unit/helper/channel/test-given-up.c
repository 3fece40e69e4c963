/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channels-rig.h"

/* What one side has given up counts at both: the migration is complete only when another channel has ended
 * well in its place. */

/* A channel that this side has proved; the peer has yet to say so. Returns the test's ends. */
static void prove_source(struct channels_rig *rig, uint32_t number, int *qemu, int *peer)
{
    *qemu = rig_adds_qemu(rig, 0);
    *peer = rig_gets_peer(rig, number);
    rig_sends(rig, *qemu, "memory");
    shutdown(*qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, number, 0));
    assert_null(rig_hears(rig, FRAME_ACK, number, 6));
}

/* A channel that ends well, with so much in it. The last word of it changes nothing of what is proved. */
static void end_well_source(struct channels_rig *rig, uint32_t number, uint32_t stream, const char *text)
{
    int qemu = rig_adds_qemu(rig, stream), peer = rig_gets_peer(rig, number), n_ended = rig->n_ended;
    bool complete;

    rig_sends(rig, qemu, text);
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, number, 0));
    assert_null(rig_hears(rig, FRAME_ACK, number, strlen(text)));
    complete = channels_are_complete(rig->channels);
    assert_null(rig_hears(rig, FRAME_CLOSE, number, 0));
    assert_int_equal(channels_are_complete(rig->channels), complete);
    assert_int_equal(rig->n_ended, n_ended + 1);
    close(qemu);
    close(peer);
}

static void end_well_destination(struct channels_rig *rig, uint32_t number)
{
    int peer, qemu, n_ended = rig->n_ended;

    assert_null(rig_hears_open(rig, number, 0));
    peer = rig_gets_peer(rig, number);
    rig_sends(rig, peer, "memory");
    qemu = rig_gets_qemu(rig, number, 0);
    rig_receives(rig, qemu, "memory");
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, number, 6));
    assert_null(rig_hears(rig, FRAME_ACK, number, 0));
    assert_null(rig_hears(rig, FRAME_CLOSE, number, 0));
    assert_int_equal(rig->n_ended, n_ended + 1);
    close(qemu);
    close(peer);
}

static void lose(struct channels_rig *rig)
{
    rig_loses_connection(rig);
    rig_connects(rig);
}

/* What was given up has to come again before the migration can be done. */
TEST(test_given_up_is_not_complete)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu = rig_adds_qemu(rig, 0), peer = rig_gets_peer(rig, 0);

    rig_sends(rig, qemu, "memory");
    rig_loses_connection(rig);
    channels_give_up(rig->channels);
    assert_false(channels_is_any_living(rig->channels));
    assert_false(channels_are_complete(rig->channels));
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_LOST);
    close(qemu);
    close(peer);
    rig_connects(rig);
    qemu = rig_adds_qemu(rig, 0);
    peer = rig_gets_peer(rig, 1);
    rig_sends(rig, qemu, "memory");
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, 1, 0));
    assert_null(rig_hears(rig, FRAME_ACK, 1, 6));
    assert_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
    assert_true(channels_are_complete(rig->channels));
    close(qemu);
    close(peer);
}

/* libvirt makes its calls anew, or not at all: what was lost of them is not waited for. */
TEST(test_given_up_calls_of_libvirt)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu, peer;

    strcpy(rig->streams.names[1], "libvirt");
    qemu = rig_adds_qemu(rig, 1);
    peer = rig_gets_peer(rig, 0);
    rig_sends(rig, qemu, "a call");
    rig_loses_connection(rig);
    channels_give_up(rig->channels);
    assert_int_equal(rig_state(rig, 0), STATS_CHANNEL_LOST);
    assert_false(channels_are_complete(rig->channels));
    close(qemu);
    close(peer);
    rig_connects(rig);
    end_well_source(rig, 1, 0, "memory");
    assert_true(channels_are_complete(rig->channels));
}

/* The source may have taken bytes for it of which none has come. */
TEST(test_given_up_by_the_source)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);

    end_well_destination(rig, 0);
    assert_true(channels_are_complete(rig->channels));
    assert_null(rig_hears_open(rig, 1, 0));
    lose(rig);
    assert_null(rig_hears_refusal(rig, 1, VF_ERROR_INTERRUPTED));
    assert_false(channels_is_any_living(rig->channels));
    assert_false(channels_are_complete(rig->channels));
    lose(rig);
    assert_null(rig_hears_refusal(rig, 1, VF_ERROR_INTERRUPTED)); /* it says so on each connection */
    assert_false(channels_are_complete(rig->channels));
    end_well_destination(rig, 2);
    assert_true(channels_are_complete(rig->channels));
    assert_null(rig_hears_refusal(rig, 1, VF_ERROR_INTERRUPTED));
    assert_true(channels_are_complete(rig->channels));
}

/* Before its OPEN came through. It is a channel that was; only on the first connection that cannot be. */
TEST(test_given_up_by_the_source_before_it_came)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);

    assert_non_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    lose(rig);
    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    assert_null(rig_hears(rig, FRAME_CLOSE, 0, 0));
    assert_non_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
}

/* The one that waited behind it has its turn. */
TEST(test_given_up_before_its_turn)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    int peer;

    assert_null(rig_hears_open(rig, 0, 0));
    assert_null(rig_hears_open(rig, 1, 0));
    lose(rig);
    assert_null(rig_hears_open(rig, 1, 0));
    peer = rig_gets_peer(rig, 1);
    rig_sends(rig, peer, "memory");
    rig_asks_nothing(rig);
    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    rig_asks_qemu(rig, 1);
    close(peer);
}

/* A destination counts its own likewise, with nothing in it. */
TEST(test_given_up_unseen)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);

    end_well_destination(rig, 0);
    assert_null(rig_hears_open(rig, 1, 0));
    rig_loses_connection(rig);
    channels_give_up(rig->channels);
    assert_false(channels_are_complete(rig->channels));
}

/* One of which it has said CLOSE, on this stream, and one that is under way, on the main one. */
static void give_up_beside_proved(struct channels_rig *rig, uint32_t proved, uint32_t stream)
{
    int peers[2], qemus[2];

    strcpy(rig->streams.names[1], "disks");
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t of = i == proved ? stream : 0;

        assert_null(rig_hears_open(rig, i, of));
        peers[i] = rig_gets_peer(rig, i);
        rig_sends(rig, peers[i], "memory");
        qemus[i] = rig_gets_qemu(rig, i, of);
        rig_receives(rig, qemus[i], "memory");
    }
    shutdown(qemus[proved], SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, proved, 6));
    assert_null(rig_hears(rig, FRAME_ACK, proved, 0));
    rig_loses_connection(rig);
    channels_give_up(rig->channels);
    assert_false(channels_is_any_living(rig->channels));
    assert_false(channels_are_complete(rig->channels));
    for (int i = 0; i < 2; i++) {
        close(peers[i]);
        close(qemus[i]);
    }
}

/* The source may have heard its CLOSE, and then has no other in its place. */
TEST(test_given_up_proved_here)
{
    for (uint32_t proved = 0; proved < 2; proved++)
        for (uint32_t stream = 0; stream < 2; stream++) {
            _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);

            give_up_beside_proved(rig, proved, stream);
            rig_connects(rig);
            assert_false(channels_are_complete(rig->channels));
            end_well_destination(rig, 2);
            assert_true(channels_are_complete(rig->channels));
        }
}

/* A source counts what the peer may know of, and that alone. */
TEST(test_given_up_untold)
{
    for (int told = 0; told < 2; told++) {
        _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
        int qemu = -1;

        end_well_source(rig, 0, 0, "memory");
        if (told)
            qemu = rig_adds_qemu(rig, 0);
        rig_loses_connection(rig);
        if (!told)
            qemu = rig_adds_qemu(rig, 0);
        channels_give_up(rig->channels);
        assert_false(channels_is_any_living(rig->channels));
        assert_int_equal(channels_are_complete(rig->channels), !told);
        close(qemu);
    }
}

/* Only one of the same stream stands in for it, only at its end, and only with something in it. */
TEST(test_in_its_place)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu, peer;

    end_well_source(rig, 0, 0, "memory");
    qemu = rig_adds_qemu(rig, 1);
    rig_loses_connection(rig);
    channels_give_up(rig->channels);
    close(qemu);
    rig_connects(rig);
    end_well_source(rig, 2, 0, "memory");
    assert_false(channels_are_complete(rig->channels));
    end_well_source(rig, 3, 1, "");
    assert_false(channels_are_complete(rig->channels));
    qemu = rig_adds_qemu(rig, 1);
    peer = rig_gets_peer(rig, 4);
    rig_sends(rig, qemu, "blocks");
    assert_null(rig_hears_refusal(rig, 3, VF_ERROR_INTERRUPTED)); /* of what is over: nothing */
    assert_false(channels_are_complete(rig->channels));
    shutdown(qemu, SHUT_WR);
    desk_run(&rig->desk);
    assert_null(rig_hears(rig, FRAME_FIN, 4, 0));
    assert_null(rig_hears(rig, FRAME_ACK, 4, 6));
    assert_true(channels_are_complete(rig->channels));
    assert_null(rig_hears(rig, FRAME_CLOSE, 4, 0));
    assert_true(channels_are_complete(rig->channels));
    close(qemu);
    close(peer);
}

/* The peer gave up all that it had: a channel of before does not stand in for it, whichever is told of first.
 */
TEST(test_not_in_its_place)
{
    for (uint32_t first = 0; first < 2; first++) {
        _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
        int qemus[2], peers[2];

        for (uint32_t i = 0; i < 2; i++)
            prove_source(rig, i, &qemus[i], &peers[i]);
        assert_true(channels_are_complete(rig->channels));
        lose(rig);
        for (uint32_t i = 0; i < 2; i++) {
            if (i == first)
                assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
            else
                assert_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
            assert_int_equal(channels_are_complete(rig->channels), first == 1 && i == 0);
        }
        assert_false(channels_is_any_living(rig->channels));
        lose(rig);
        end_well_source(rig, 2, 0, "memory");
        assert_true(channels_are_complete(rig->channels));
        for (uint32_t i = 0; i < 2; i++) {
            close(qemus[i]);
            close(peers[i]);
        }
    }
}

/* One that the peer has answered for on the new connection it had not given up: it does. */
TEST(test_attached_again)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemus[2], peers[2];

    for (uint32_t i = 0; i < 2; i++)
        prove_source(rig, i, &qemus[i], &peers[i]);
    lose(rig);
    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    assert_false(channels_are_complete(rig->channels));
    close(peers[1]);
    peers[1] = rig_gets_peer(rig, 1);
    assert_true(channels_are_complete(rig->channels));
    assert_null(rig_hears(rig, FRAME_CLOSE, 1, 0));
    assert_true(channels_are_complete(rig->channels));
    for (uint32_t i = 0; i < 2; i++) {
        close(qemus[i]);
        close(peers[i]);
    }
}

/* What was refused for the limit was not given up, also when the source asks again; it carried nothing. */
TEST(test_refused_for_the_limit_again)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct frame frame;

    for (uint32_t i = 0; i < 4; i++)
        assert_null(rig_hears_open(rig, i, 0));
    for (int i = 0; i < 2; i++) {
        assert_null(rig_hears_open(rig, 4, 0));
        assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_REFUSED);
        assert_int_equal(frame.channel, 4);
        assert_int_equal(frame.refusal.error, VF_ERROR_LIMIT_EXCEEDED);
        lose(rig);
    }
    assert_null(rig_hears_refusal(rig, 0, VF_ERROR_INTERRUPTED));
    assert_null(rig_hears_open(rig, 0, 0));
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_REFUSED);
    assert_int_equal(frame.refusal.error, VF_ERROR_INTERRUPTED);
    assert_int_equal(rig->n_failed, 0);
}

/* Where not all are remembered, it was perhaps given up. */
TEST(test_refused_by_one_that_forgets)
{
    _cleanup_rig_ rig = rig_new(ROLE_INCOMING, true);
    struct frame frame;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) /* all slots were used, by channels that are over */
        rig->channels->all[i] = (struct channel){
            .channels = rig->channels, .stage = CHANNEL_GIVEN_UP, .number = 1000 + (uint32_t)i};
    rig->channels->next = 2000;
    lose(rig);
    assert_null(rig_hears_open(rig, 7, 0));
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_REFUSED);
    assert_int_equal(frame.refusal.error, VF_ERROR_INTERRUPTED);
}

/* A refusal can be the last thing to be known: the session hears of it. For the limit it counts as lost only
 * what has carried something. */
TEST(test_refusal_is_an_end)
{
    _cleanup_rig_ rig = rig_new(ROLE_OUTGOING, true);
    int qemu, peer;

    end_well_source(rig, 0, 0, "memory");
    qemu = rig_adds_qemu(rig, 0);
    assert_false(channels_are_complete(rig->channels));
    assert_null(rig_hears_refusal(rig, 1, VF_ERROR_LIMIT_EXCEEDED));
    assert_int_equal(rig->n_ended, 2);
    assert_true(channels_are_complete(rig->channels));
    close(qemu);
    qemu = rig_adds_qemu(rig, 0);
    peer = rig_gets_peer(rig, 2);
    rig_sends(rig, qemu, "more");
    lose(rig);
    assert_null(rig_hears_refusal(rig, 2, VF_ERROR_LIMIT_EXCEEDED));
    assert_int_equal(rig->n_ended, 3);
    assert_false(channels_are_complete(rig->channels));
    close(qemu);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_given_up_is_not_complete),
        CASE(test_given_up_calls_of_libvirt),
        CASE(test_given_up_by_the_source),
        CASE(test_given_up_by_the_source_before_it_came),
        CASE(test_given_up_before_its_turn),
        CASE(test_given_up_unseen),
        CASE(test_given_up_proved_here),
        CASE(test_given_up_untold),
        CASE(test_in_its_place),
        CASE(test_not_in_its_place),
        CASE(test_attached_again),
        CASE(test_refused_for_the_limit_again),
        CASE(test_refused_by_one_that_forgets),
        CASE(test_refusal_is_an_end),
    };

    return cmocka_run_group_tests_name("helper-channel-given-up", tests, NULL, NULL);
}
