/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "peers-rig.h"

#include "helper/limits.h"
#include "helper/protocol/mark.h"

/* Connections that a source asks for: which marks they bear, and how they fail. */

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
        CASE(test_source_proves),
        CASE(test_source_makes_marks),
        CASE(test_what_was_not_asked_for),
        CASE(test_source_is_hung_up_on),
        CASE(test_source_is_rejected),
        CASE(test_source_tries_the_next_endpoint),
        CASE(test_source_meets_another_key),
        CASE(test_source_waits_no_longer),
    };

    return cmocka_run_group_tests_name("helper-peer-peers-source", tests, NULL, NULL);
}
