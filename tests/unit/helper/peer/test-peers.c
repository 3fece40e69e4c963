/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "peers-rig.h"

#include "helper/limits.h"
#include "helper/protocol/mark.h"

/* Candidates that arrive at a destination: keys, marks, slots, deadlines. */

/* A connection from the gate (or, PEER_ANY, from a caller): the test's end. */
static int rig_arrives(struct rig *rig, enum peer_kind kind)
{
    struct message_peer m = {.kind = kind};
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    peers_start(rig->peers, &m, NULL, pair[0]);
    desk_run(&rig->side->desk);
    return pair[1];
}

/* The same with this mark. */
static int rig_arrives_marked(struct rig *rig, enum peer_kind kind, const struct message_mark *mark)
{
    struct message_peer m = {.kind = kind};
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    peers_start(rig->peers, &m, mark, pair[0]);
    desk_run(&rig->side->desk);
    return pair[1];
}

static struct message_mark mark_of(const uint8_t *key, enum peer_kind kind, uint32_t number)
{
    struct preamble preamble = {.kind = kind, .id = ID, .mark.number = number};
    uint8_t derived[KEY_SIZE];

    assert_int_equal(mark_key(key, ID, derived), 0);
    assert_int_equal(mark_make(derived, &preamble), 0);
    return preamble.mark;
}

static void rig_says_hello(struct rig *rig, int fd, uint32_t channel, uint64_t received)
{
    const struct channel_hello hello = {.channel = channel, .received = received};
    uint8_t buf[CHANNEL_HELLO_SIZE];

    channel_hello_encode(&hello, buf);
    assert_int_equal(send(fd, buf, sizeof(buf), MSG_NOSIGNAL), sizeof(buf));
    desk_run(&rig->side->desk);
}

static bool rig_hears_hello(int fd, struct channel_hello *ret)
{
    uint8_t buf[CHANNEL_HELLO_SIZE];

    return recv(fd, buf, sizeof(buf), MSG_DONTWAIT) == sizeof(buf) &&
           channel_hello_decode(buf, ret) == VERDICT_OK;
}

/* ---- Keys ---- */

TEST(test_ticket_serves_one_connection)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct carrier *first = rig_proves(rig, rig_arrives(rig, PEER_CONTROL), PEER_CONTROL, true, good),
                   *second;
    uint8_t buf[FRAME_MAX];
    struct frame frame;
    const char *why;
    size_t used;
    ssize_t n;

    assert_non_null(first);
    assert_int_equal(rig->n_proved, 1);
    assert_int_equal(rig->proved, PEER_CONTROL);
    peers_use_key(rig->peers, PEER_CONTROL);
    /* The second is told so, under its proof, and may read that. */
    second = rig_proves(rig, rig_arrives(rig, PEER_CONTROL), PEER_CONTROL, true, good);
    assert_non_null(second);
    assert_int_equal(rig->n_proved, 1);
    n = recv(second->fd, buf, sizeof(buf), MSG_DONTWAIT);
    assert_true(n > 0);
    assert_int_equal(frame_decode(buf, (size_t)n, &frame, &used, &why), VERDICT_OK);
    assert_int_equal(frame.type, FRAME_ABORT);
    assert_int_equal(frame.refusal.error, VF_ERROR_TICKET_USED);
    assert_int_equal(n_used(rig), 1);
    carrier_free(second);
    desk_run(&rig->side->desk);
    assert_int_equal(n_used(rig), 0);
    carrier_free(first);
}

TEST(test_wrong_key)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);

    assert_null(rig_proves(rig, rig_arrives(rig, PEER_CONTROL), PEER_CONTROL, true, wrong));
    assert_int_equal(rig->n_proved + rig->n_failed, 0);
    assert_int_equal(n_used(rig), 0);
}

/* A key of another kind is another key. */
TEST(test_key_of_another_kind)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);

    peers_set_key(rig->peers, PEER_RESUME, good);
    assert_null(rig_proves(rig, rig_arrives(rig, PEER_RESUME), PEER_CONTROL, true, good));
    assert_int_equal(rig->n_proved, 0);
}

TEST(test_no_key_yet)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    int fds[] = {rig_arrives(rig, PEER_CHANNEL), rig_arrives(rig, PEER_RESUME)}, fd;

    for (size_t i = 0; i < ELEMENTS(fds); i++) {
        assert_true(is_closed(fds[i]));
        close(fds[i]);
    }
    peers_set_key(rig->peers, PEER_CHANNEL, good);
    fd = rig_arrives(rig, PEER_CHANNEL);
    assert_false(is_closed(fd));
    close(fd);
    peers_drop_key(rig->peers, PEER_CHANNEL);
    fd = rig_arrives(rig, PEER_CHANNEL);
    assert_true(is_closed(fd));
    close(fd);
}

/* ---- Channels ---- */

/* A channel's connection that overtakes its OPEN waits for that. */
TEST(test_parked)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct channel_hello hello;
    struct carrier *peer;

    peers_set_key(rig->peers, PEER_CHANNEL, good);
    peer = rig_proves(rig, rig_arrives(rig, PEER_CHANNEL), PEER_CHANNEL, true, good);
    assert_non_null(peer);
    rig_says_hello(rig, peer->fd, 0, 0);
    assert_false(rig_hears_hello(peer->fd, &hello));
    peers_unpark(rig->peers, 0); /* there is no such channel */
    assert_int_equal(n_used(rig), 1);
    assert_null(rig_hears_open(rig->side, 0, 0));
    peers_unpark(rig->peers, 1);
    assert_int_equal(n_used(rig), 1);
    peers_unpark(rig->peers, 0);
    assert_int_equal(n_used(rig), 0);
    assert_true(channels_is_connected(rig->side->channels, 0));
    assert_true(rig_hears_hello(peer->fd, &hello));
    assert_int_equal(hello.channel, 0);
    assert_int_equal(hello.received, 0);
    carrier_free(peer);
}

TEST(test_hello_of_a_channel_that_is_there)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct channel_hello hello;
    struct carrier *peers[3];

    peers_set_key(rig->peers, PEER_CHANNEL, good);
    assert_null(rig_hears_open(rig->side, 0, 0));
    for (size_t i = 0; i < 3; i++) {
        peers[i] = rig_proves(rig, rig_arrives(rig, PEER_CHANNEL), PEER_CHANNEL, true, good);
        assert_non_null(peers[i]);
    }
    rig_says_hello(rig, peers[0]->fd, 0, 1); /* it has sent nothing */
    assert_true(is_closed(peers[0]->fd));
    rig_says_hello(rig, peers[1]->fd, 0, 0);
    assert_true(rig_hears_hello(peers[1]->fd, &hello));
    rig_says_hello(rig, peers[2]->fd, 0, 0); /* one that is alive is not replaced */
    assert_true(is_closed(peers[2]->fd));
    assert_false(is_closed(peers[1]->fd));
    assert_true(channels_is_connected(rig->side->channels, 0));
    for (size_t i = 0; i < 3; i++)
        carrier_free(peers[i]);
}

/* ---- Slots and deadlines ---- */

/* Which one that is cannot be foreseen. */
TEST(test_any_place_is_taken)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    static int fds[PEERS_MAX + 400];
    size_t n_closed = 0, n_recent = 0;

    for (size_t i = 0; i < ELEMENTS(fds); i++)
        fds[i] = rig_arrives(rig, PEER_CONTROL);
    assert_int_equal(n_used(rig), PEERS_MAX);
    for (size_t i = 0; i < ELEMENTS(fds); i++) {
        n_closed += is_closed(fds[i]);
        n_recent += is_closed(fds[i]) && i >= 400;
        close(fds[i]);
    }
    assert_int_equal(n_closed, 400);
    assert_true(n_recent > 20 && n_recent < 380);
}

/* ---- Marks ---- */

/* One with a mark keeps its place, however many come without. */
TEST(test_a_mark_keeps_its_place)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct message_mark mark = mark_of(good, PEER_CONTROL, 1);
    int marked = rig_arrives_marked(rig, PEER_CONTROL, &mark);

    for (size_t i = 0; i < 3 * PEERS_MAX; i++)
        close(rig_arrives(rig, PEER_CONTROL));
    for (size_t i = 0; i < 3 * PEERS_MAX; i++) {
        int pair[2];

        test_pair(SOCK_STREAM, 0, pair); /* without a turn of the loop, which would see their end */
        peers_start(rig->peers, &(struct message_peer){.kind = PEER_CONTROL}, NULL, pair[0]);
        close(pair[1]);
    }
    assert_false(is_closed(marked));
    struct carrier *carrier = rig_proves(rig, marked, PEER_CONTROL, true, good);
    assert_non_null(carrier);
    assert_int_equal(rig->n_proved, 1);
    carrier_free(carrier);
}

/* A wrong one, a second time the same, and one of another kind cost no handshake. */
TEST(test_marks_that_open_nothing)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct message_mark right = mark_of(good, PEER_CONTROL, 5), marks[] = {right,
                                                                           mark_of(wrong, PEER_CONTROL, 6),
                                                                           mark_of(good, PEER_CHANNEL, 7),
                                                                           {.number = 8}};
    int fd = rig_arrives_marked(rig, PEER_CONTROL, &right);

    assert_false(is_closed(fd));
    for (size_t i = 0; i < ELEMENTS(marks); i++) {
        int other = rig_arrives_marked(rig, PEER_CONTROL, &marks[i]);

        assert_true(is_closed(other));
        close(other);
    }
    assert_int_equal(n_used(rig), 1);
    close(fd);
}

/* Of a peer that makes marks none comes without. */
TEST(test_no_mark)
{
    for (int used = 0; used < 2; used++) {
        _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
        struct message_mark mark = mark_of(good, PEER_CHANNEL, 1);
        int without, with;

        assert_int_equal(peers_set_key(rig->peers, PEER_CHANNEL, good), 0);
        peers_set_marks(rig->peers, used);
        without = rig_arrives(rig, PEER_CHANNEL);
        with = rig_arrives_marked(rig, PEER_CHANNEL, &mark);
        assert_int_equal(is_closed(without), used);
        assert_false(is_closed(with));
        close(without);
        close(with);
    }
}

/* One with a ticket that was used is to hear of that, and may be older than marks. */
TEST(test_no_mark_on_a_used_ticket)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    int fd;

    peers_use_key(rig->peers, PEER_CONTROL);
    peers_set_marks(rig->peers, true);
    fd = rig_arrives(rig, PEER_CONTROL);
    assert_false(is_closed(fd));
    close(fd);
}

/* Only one with a mark takes the place of one that has one. */
TEST(test_all_places_are_of_marks)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    int fds[PEERS_MAX], other;
    size_t n_closed = 0;

    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct message_mark mark = mark_of(good, PEER_CONTROL, i + 1);

        fds[i] = rig_arrives_marked(rig, PEER_CONTROL, &mark);
    }
    other = rig_arrives(rig, PEER_CONTROL);
    assert_true(is_closed(other));
    close(other);
    for (size_t i = 0; i < PEERS_MAX; i++)
        assert_false(is_closed(fds[i]));
    struct message_mark mark = mark_of(good, PEER_CONTROL, PEERS_MAX + 1);

    other = rig_arrives_marked(rig, PEER_CONTROL, &mark);
    assert_false(is_closed(other));
    close(other);
    for (size_t i = 0; i < PEERS_MAX; i++) {
        n_closed += is_closed(fds[i]);
        close(fds[i]);
    }
    assert_int_equal(n_closed, 1);
}

/* A new key begins anew. */
TEST(test_marks_of_the_next_key)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);

    for (int i = 0; i < 2; i++) {
        const uint8_t *key = i == 0 ? good : wrong;
        struct message_mark mark = mark_of(key, PEER_CHANNEL, 1);
        int fd;

        assert_int_equal(peers_set_key(rig->peers, PEER_CHANNEL, key), 0);
        fd = rig_arrives_marked(rig, PEER_CHANNEL, &mark);
        assert_false(is_closed(fd));
        close(fd);
    }
}

/* To be told that a ticket is used costs a handshake: a flood of it gets few. */
TEST(test_late_ones)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct message_mark mark = mark_of(good, PEER_CONTROL, 1);
    size_t n_begun = 0;
    int fd;

    peers_use_key(rig->peers, PEER_CONTROL);
    for (size_t i = 0; i < 4 * LATE_BURST; i++) {
        fd = rig_arrives(rig, PEER_CONTROL);
        n_begun += !is_closed(fd);
        close(fd);
    }
    assert_in_range(n_begun, LATE_BURST / 2, 2 * LATE_BURST);
    fd = rig_arrives_marked(rig, PEER_CONTROL, &mark); /* it has the ticket: it is told so */
    assert_false(is_closed(fd));
    close(fd);
}

TEST(test_deadline)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    int silent = rig_arrives(rig, PEER_CONTROL), brought = rig_arrives(rig, PEER_ANY);

    for (size_t i = 0; i < 2; i++)
        rig->peers->all[i].since -= PEER_DEADLINE - 1000000;
    peers_expire(rig->peers);
    assert_false(is_closed(silent));
    for (size_t i = 0; i < 2; i++)
        rig->peers->all[i].since -= 2000000;
    peers_expire(rig->peers);
    assert_true(is_closed(silent));
    assert_false(is_closed(brought)); /* one that a caller brought waits for the source to use it */
    close(silent);
    close(brought);
}

TEST(test_what_a_loss_leaves)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    int control, resume, brought;

    peers_set_key(rig->peers, PEER_RESUME, good);
    control = rig_arrives(rig, PEER_CONTROL);
    resume = rig_arrives(rig, PEER_RESUME);
    brought = rig_arrives(rig, PEER_ANY);
    peers_drop(rig->peers);
    assert_true(is_closed(control));
    assert_false(is_closed(resume)); /* the peer may have noticed first */
    assert_false(is_closed(brought));
    close(control);
    close(resume);
    close(brought);
}

/* Between the loss and what is done about it all is halted. */
TEST(test_what_comes_with_a_loss)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    struct carrier *carrier;
    int resume;

    peers_set_key(rig->peers, PEER_RESUME, good);
    rig->side->halted = true;
    resume = rig_arrives(rig, PEER_RESUME);
    peers_drop(rig->peers);
    rig->side->halted = false;
    carrier = rig_proves(rig, resume, PEER_RESUME, true, good);
    assert_non_null(carrier);
    assert_int_equal(rig->n_proved, 1);
    carrier_free(carrier);
}

/* From a caller: the gate has not read its preamble. */
TEST(test_brought)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_INCOMING);
    const struct preamble preambles[] = {{.kind = PEER_CONTROL, .id = ID},
                                         {.kind = PEER_CONTROL, .id = ID + 1},
                                         {.kind = PEER_RESUME, .id = ID}};
    uint8_t buf[PREAMBLE_SIZE];

    for (size_t i = 0; i < ELEMENTS(preambles); i++) {
        int fd = rig_arrives(rig, PEER_ANY);
        struct carrier *peer;

        preamble_encode(&preambles[i], buf);
        assert_int_equal(send(fd, buf, sizeof(buf), 0), sizeof(buf));
        desk_run(&rig->side->desk);
        peer = rig_proves(rig, fd, PEER_CONTROL, true, good);
        assert_int_equal(peer != NULL, i == 0); /* another migration's; and no key for that kind */
        carrier_free(peer);
    }
    assert_int_equal(rig->n_proved, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_ticket_serves_one_connection),
        CASE(test_wrong_key),
        CASE(test_key_of_another_kind),
        CASE(test_no_key_yet),
        CASE(test_parked),
        CASE(test_hello_of_a_channel_that_is_there),
        CASE(test_any_place_is_taken),
        CASE(test_a_mark_keeps_its_place),
        CASE(test_marks_that_open_nothing),
        CASE(test_no_mark),
        CASE(test_no_mark_on_a_used_ticket),
        CASE(test_all_places_are_of_marks),
        CASE(test_marks_of_the_next_key),
        CASE(test_late_ones),
        CASE(test_deadline),
        CASE(test_what_a_loss_leaves),
        CASE(test_what_comes_with_a_loss),
        CASE(test_brought),
    };

    return cmocka_run_group_tests_name("helper-peer-peers", tests, NULL, NULL);
}
