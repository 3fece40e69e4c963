/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channels-rig.h"

#include "helper/carrier/plain.h"
#include "helper/limits.h"
#include "helper/peer/internal.h"
#include "helper/peer/peers.h"
#include "helper/protocol/greeting.h"
#include "helper/protocol/mark.h"

/* Candidates: keys, slots, deadlines. The test is the network; `plain` proves. */

enum { ID = 0x1234 };

static const uint8_t good[KEY_SIZE] = "the key that both ends hold";
static const uint8_t wrong[KEY_SIZE] = "another key";

struct rig {
    struct channels_rig *side;
    struct peers *peers;
    int n_proved, n_failed;
    enum peer_kind proved;
    struct peer_failure failure;
    struct preamble preamble; /* source: the last that it sent */
};

static void on_proved(void *userdata, enum peer_kind kind, struct carrier *carrier)
{
    struct rig *rig = userdata;

    rig->n_proved++;
    rig->proved = kind;
    carrier_free(carrier);
}

static void on_failed(void *userdata, const struct peer_failure *failure)
{
    struct rig *rig = userdata;

    rig->n_failed++;
    rig->failure = *failure;
}

static const struct peer_events events = {.proved = on_proved, .failed = on_failed};

static struct rig *peers_rig_new(enum message_role role)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    rig->side = rig_new(role, true);
    const struct peers_options options = {
        .event = rig->side->desk.event,
        .link = &rig->side->desk.link,
        .pool = &rig->side->pool,
        .channels = rig->side->channels,
        .requests = rig->side->requests,
        .halted = &rig->side->halted,
        .id = ID,
        .role = role,
        .security = SECURITY_PLAIN,
    };
    rig->peers = peers_new(&options, &events, rig);
    assert_non_null(rig->peers);
    peers_set_key(rig->peers, PEER_CONTROL, good);
    return rig;
}

static void peers_rig_freep(struct rig **rig)
{
    peers_free((*rig)->peers);
    rig_freep(&(*rig)->side);
    free(*rig);
}

#define _cleanup_peers_ __attribute__((cleanup(peers_rig_freep))) struct rig *

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

/* The other helper, over this socket: it proves that it holds the key. */
static struct carrier *rig_proves(struct rig *rig, int fd, enum peer_kind kind, bool connecting,
                                  const uint8_t *key)
{
    struct preamble preamble = {.kind = kind, .id = ID};
    struct carrier *carrier;
    int r = -EAGAIN;

    assert_int_equal(carrier_plain_new(fd, connecting, &preamble, key, &carrier), 0);
    for (int i = 0; i < 10 && r == -EAGAIN; i++) {
        r = carrier->ops->handshake(carrier);
        desk_run(&rig->side->desk);
    }
    if (r == 0)
        return carrier;
    carrier_free(carrier);
    desk_run(&rig->side->desk);
    return NULL;
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

static bool is_closed(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static size_t n_used(const struct rig *rig)
{
    size_t n = 0;

    for (size_t i = 0; i < PEERS_MAX; i++)
        n += rig->peers->all[i].stage != PEER_UNUSED;
    return n;
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

/* ---- Source ---- */

/* The broker brings what was asked for: the test's end, from which the preamble was read. */
static int rig_dials(struct rig *rig, enum peer_kind kind)
{
    struct message_peer m = {.kind = kind};
    struct preamble preamble;
    uint8_t buf[PREAMBLE_SIZE];
    bool asked;
    int pair[2];

    m.serial = requests_ask_peer(rig->side->requests, kind, 0, &asked);
    test_pair(SOCK_STREAM, 0, pair);
    peers_start(rig->peers, &m, NULL, pair[0]);
    assert_int_equal(recv(pair[1], buf, sizeof(buf), MSG_DONTWAIT), sizeof(buf));
    assert_int_equal(preamble_decode(buf, &preamble), VERDICT_OK);
    assert_int_equal(preamble.kind, kind);
    assert_int_equal(preamble.id, ID);
    rig->preamble = preamble;
    return pair[1];
}

TEST(test_source_proves)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
    struct carrier *peer = rig_proves(rig, rig_dials(rig, PEER_CONTROL), PEER_CONTROL, false, good);

    assert_non_null(peer);
    assert_int_equal(rig->n_proved, 1);
    assert_int_equal(n_used(rig), 0);
    assert_false(requests_wait(rig->side->requests));
    carrier_free(peer);
}

/* A peer that has yet to greet may be older than marks: then they take turns. */
TEST(test_source_makes_marks)
{
    for (int knows = 0; knows < 3; knows++) {
        _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
        uint8_t key[KEY_SIZE];

        if (knows > 0)
            peers_set_marks(rig->peers, knows == 1);
        assert_int_equal(mark_key(good, ID, key), 0);
        for (uint32_t i = 0; i < 4; i++) {
            close(rig_dials(rig, PEER_CONTROL));
            assert_int_equal(rig->preamble.mark.number != 0, knows == 0 ? i % 2 : knows == 1);
            if (rig->preamble.mark.number == 0)
                continue;
            assert_int_equal(rig->preamble.mark.number, knows == 0 ? i / 2 + 1 : i + 1);
            assert_true(mark_is_right(key, &rig->preamble));
        }
    }
}

TEST(test_what_was_not_asked_for)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
    struct message_peer m = {.kind = PEER_CONTROL, .serial = 77};
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    peers_start(rig->peers, &m, NULL, pair[0]);
    assert_true(is_closed(pair[1]));
    assert_int_equal(n_used(rig), 0);
    close(pair[1]);
}

static void expect_failure(struct rig *rig, int error)
{
    desk_run(&rig->side->desk);
    assert_int_equal(rig->n_failed, 1);
    assert_int_equal(rig->failure.kind, PEER_CONTROL);
    assert_int_equal(rig->failure.error, error);
    assert_int_equal(n_used(rig), 0);
    assert_false(requests_wait(rig->side->requests));
}

TEST(test_source_is_hung_up_on)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);

    close(rig_dials(rig, PEER_CONTROL));
    expect_failure(rig, -ECONNRESET);
}

TEST(test_source_is_rejected)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
    uint8_t buf[REJECTION_SIZE];
    int fd = rig_dials(rig, PEER_CONTROL);

    rejection_encode(VF_ERROR_TICKET_EXPIRED, buf);
    assert_int_equal(send(fd, buf, sizeof(buf), 0), sizeof(buf));
    expect_failure(rig, -ECONNREFUSED);
    assert_int_equal(rig->failure.rejected, VF_ERROR_TICKET_EXPIRED);
    close(fd);
}

/* Anything may answer at an address of the peer's: another host that has it, too. */
TEST(test_source_tries_the_next_endpoint)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
    struct message_peer m = {.kind = PEER_CONTROL, .endpoint = 1, .others = 1};
    uint8_t buf[REJECTION_SIZE];
    union message asked;
    bool told;
    int pair[2];

    m.serial = requests_ask_peer(rig->side->requests, PEER_CONTROL, 0, &told);
    assert_int_equal(desk_heard(&rig->side->desk, &asked), MESSAGE_NEED_PEER);
    rejection_encode(VF_ERROR_NO_SUCH_MIGRATION, buf);
    for (int i = 0; i < 2; i++) {
        test_pair(SOCK_STREAM, 0, pair);
        peers_start(rig->peers, &m, NULL, pair[0]);
        assert_int_equal(send(pair[1], buf, sizeof(buf), 0), sizeof(buf));
        desk_run(&rig->side->desk);
        close(pair[1]);
        assert_int_equal(rig->n_failed, i);
        if (i == 0) {
            assert_int_equal(desk_heard(&rig->side->desk, &asked), MESSAGE_NEED_PEER);
            assert_int_equal(asked.need_peer.serial, m.serial);
        }
        m.endpoint = 2;
        m.others = 0;
    }
    assert_false(rig->failure.believed);
    assert_int_equal(rig->failure.error, -ECONNREFUSED);
    assert_false(requests_wait(rig->side->requests));
}

TEST(test_source_meets_another_key)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
    struct carrier *peer = rig_proves(rig, rig_dials(rig, PEER_CONTROL), PEER_CONTROL, false, wrong);

    assert_null(peer);
    expect_failure(rig, -EKEYREJECTED);
}

TEST(test_source_waits_no_longer)
{
    _cleanup_peers_ rig = peers_rig_new(ROLE_OUTGOING);
    int fd = rig_dials(rig, PEER_CONTROL);

    rig->peers->all[0].since -= PEER_DEADLINE + 1000000;
    peers_expire(rig->peers);
    expect_failure(rig, -ETIMEDOUT);
    close(fd);
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
        CASE(test_marks_of_the_next_key),
        CASE(test_late_ones),
        CASE(test_deadline),
        CASE(test_what_a_loss_leaves),
        CASE(test_what_comes_with_a_loss),
        CASE(test_brought),
        CASE(test_source_proves),
        CASE(test_source_makes_marks),
        CASE(test_what_was_not_asked_for),
        CASE(test_source_is_hung_up_on),
        CASE(test_source_is_rejected),
        CASE(test_source_tries_the_next_endpoint),
        CASE(test_source_meets_another_key),
        CASE(test_source_waits_no_longer),
    };

    return cmocka_run_group_tests_name("helper-peer-peers", tests, NULL, NULL);
}
