/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-rig.h"

#include <errno.h>

#include "common/error.h"
#include "helper/requests.h"

/* What the broker was asked for: each is answered once, and asked for again of a broker that is new. */

struct rig {
    struct desk desk;
    struct requests *requests;
};

static void rig_init(struct rig *rig)
{
    *rig = (struct rig){0};
    desk_init(&rig->desk);
    rig->requests = requests_new(&rig->desk.link);
    assert_non_null(rig->requests);
}

static void rig_clear(struct rig *rig)
{
    requests_free(rig->requests);
    desk_clear(&rig->desk);
}

static uint32_t rig_asks_peer(struct rig *rig, enum peer_kind kind, uint32_t channel)
{
    bool asked = false;
    uint32_t serial = requests_ask_peer(rig->requests, kind, channel, &asked);

    assert_true(asked);
    return serial;
}

static void rig_expects_peer(struct rig *rig, enum peer_kind kind, uint32_t serial)
{
    union message m;

    assert_int_equal(desk_heard(&rig->desk, &m), MESSAGE_NEED_PEER);
    assert_int_equal(m.need_peer.kind, kind);
    assert_int_equal(m.need_peer.serial, serial);
}

static void rig_expects_qemu(struct rig *rig, uint32_t channel, uint32_t stream)
{
    union message m;

    assert_int_equal(desk_heard(&rig->desk, &m), MESSAGE_NEED_QEMU);
    assert_int_equal(m.need_qemu.channel, channel);
    assert_int_equal(m.need_qemu.stream, stream);
}

static void rig_expects_nothing(struct rig *rig)
{
    union message m;

    assert_int_equal(desk_heard(&rig->desk, &m), 0);
}

TEST(test_peer_comes_once)
{
    struct rig rig;
    uint32_t channel = 0, serial;

    rig_init(&rig);
    serial = rig_asks_peer(&rig, PEER_CHANNEL, 7);
    rig_expects_peer(&rig, PEER_CHANNEL, serial);
    assert_true(requests_wait(rig.requests));
    assert_false(requests_on_peer(rig.requests, PEER_CHANNEL, serial + 1, &channel));
    assert_false(requests_on_peer(rig.requests, PEER_RESUME, serial, &channel));
    assert_true(requests_on_peer(rig.requests, PEER_CHANNEL, serial, &channel));
    assert_int_equal(channel, 7);
    assert_false(requests_on_peer(rig.requests, PEER_CHANNEL, serial, &channel));
    assert_false(requests_wait(rig.requests)); /* it needs no broker any more */
    assert_false(requests_awaits_peer(rig.requests, PEER_CHANNEL, serial));
    requests_end_peer(rig.requests, serial);
    requests_repeat(rig.requests);
    rig_expects_nothing(&rig);
    rig_clear(&rig);
}

TEST(test_serials_are_never_zero_nor_twice)
{
    struct rig rig;
    uint32_t last = 0;

    rig_init(&rig);
    for (int i = 0; i < 1000; i++) {
        uint32_t serial = rig_asks_peer(&rig, PEER_RESUME, 0);

        assert_true(serial > last);
        last = serial;
        rig_expects_peer(&rig, PEER_RESUME, serial);
        requests_drop_peers(rig.requests);
    }
    assert_false(requests_awaits_peer(rig.requests, PEER_RESUME, 0));
    rig_clear(&rig);
}

/* A new broker is asked for what has not come, and for nothing else. */
TEST(test_restart)
{
    struct rig rig;
    uint32_t control, come, awaited, channel;

    rig_init(&rig);
    control = rig_asks_peer(&rig, PEER_CONTROL, 0);
    come = rig_asks_peer(&rig, PEER_CHANNEL, 1);
    awaited = rig_asks_peer(&rig, PEER_CHANNEL, 2);
    rig_asks_peer(&rig, PEER_CHANNEL, 3);
    assert_true(requests_on_peer(rig.requests, PEER_CHANNEL, come, &channel));
    requests_give_up(rig.requests, 3);
    assert_true(requests_ask_qemu(rig.requests, 4, 0));
    assert_true(requests_ask_qemu(rig.requests, 5, 1));
    assert_true(requests_on_qemu(rig.requests, 4, 0));
    for (int i = 0; i < 6; i++) {
        union message m;

        assert_true(desk_heard(&rig.desk, &m) != 0);
    }
    requests_repeat(rig.requests);
    rig_expects_peer(&rig, PEER_CONTROL, control);
    rig_expects_peer(&rig, PEER_CHANNEL, awaited);
    rig_expects_qemu(&rig, 5, 1);
    rig_expects_nothing(&rig);
    rig_clear(&rig);
}

TEST(test_qemu_per_stream)
{
    struct rig rig;

    rig_init(&rig);
    assert_true(requests_ask_qemu(rig.requests, 1, 0));
    assert_true(requests_has_qemu(rig.requests, 0));
    assert_false(requests_has_qemu(rig.requests, 1));
    assert_false(requests_on_qemu(rig.requests, 1, 1)); /* of another stream */
    assert_true(requests_has_qemu(rig.requests, 0));
    assert_false(
        requests_on_qemu(rig.requests, 2, 0)); /* another channel's: the answer is used up all the same */
    assert_false(requests_has_qemu(rig.requests, 0));
    rig_clear(&rig);
}

/* The broker answers for a channel that is no more, too: until then no second connection is asked for. */
TEST(test_qemu_of_a_channel_that_ended)
{
    struct rig rig;

    rig_init(&rig);
    assert_true(requests_ask_qemu(rig.requests, 1, 0));
    rig_expects_qemu(&rig, 1, 0);
    requests_give_up(rig.requests, 1);
    assert_true(requests_has_qemu(rig.requests, 0));
    assert_false(requests_wait(rig.requests));
    assert_false(requests_on_qemu(rig.requests, 1, 0));
    assert_false(requests_has_qemu(rig.requests, 0));
    /* A new broker does not know of it. */
    assert_true(requests_ask_qemu(rig.requests, 2, 0));
    rig_expects_qemu(&rig, 2, 0);
    requests_give_up(rig.requests, 2);
    requests_repeat(rig.requests);
    rig_expects_nothing(&rig);
    assert_false(requests_has_qemu(rig.requests, 0));
    rig_clear(&rig);
}

TEST(test_loss)
{
    struct rig rig;
    uint32_t channel, resume;

    rig_init(&rig);
    channel = rig_asks_peer(&rig, PEER_CHANNEL, 1);
    assert_true(requests_ask_qemu(rig.requests, 1, 0));
    requests_drop_peers(rig.requests);
    assert_false(requests_awaits_peer(rig.requests, PEER_CHANNEL, channel));
    assert_true(requests_has_qemu(rig.requests, 0)); /* QEMU's connections survive a loss */
    assert_false(requests_has_peer(rig.requests, PEER_RESUME));
    resume = rig_asks_peer(&rig, PEER_RESUME, 0);
    assert_true(requests_has_peer(rig.requests, PEER_RESUME));
    assert_true(requests_on_peer(rig.requests, PEER_RESUME, resume, &channel));
    assert_false(requests_has_peer(rig.requests, PEER_RESUME));
    rig_clear(&rig);
}

TEST(test_broker_is_gone)
{
    struct rig rig;
    bool asked = true;
    uint32_t serial;

    rig_init(&rig);
    close(rig.desk.broker);
    rig.desk.broker = -1;
    serial = requests_ask_peer(rig.requests, PEER_CONTROL, 0, &asked);
    assert_false(asked);
    assert_true(requests_awaits_peer(rig.requests, PEER_CONTROL, serial));
    assert_false(requests_ask_qemu(rig.requests, 0, 0));
    assert_true(requests_wait(rig.requests));
    rig_clear(&rig);
}

/* The peer's word counts more than that of what answers elsewhere. */
TEST(test_most_telling_no_is_kept)
{
    struct rig rig;
    struct peer_no no = {.error = -ECONNREFUSED, .rejected = VF_ERROR_CANCELLED};
    uint32_t channel, serial;

    rig_init(&rig);
    serial = rig_asks_peer(&rig, PEER_CONTROL, 0);
    rig_expects_peer(&rig, PEER_CONTROL, serial);
    assert_true(requests_on_peer(rig.requests, PEER_CONTROL, serial, &channel));
    requests_peer_endpoint(rig.requests, serial, 2, 1);
    requests_peer_proved(rig.requests, serial);
    requests_end_peer(rig.requests, serial);

    serial = rig_asks_peer(&rig, PEER_RESUME, 0);
    rig_expects_peer(&rig, PEER_RESUME, serial);
    assert_true(requests_on_peer(rig.requests, PEER_RESUME, serial, &channel));
    requests_peer_endpoint(rig.requests, serial, 2, 1);
    assert_true(requests_try_next(rig.requests, serial, &no));
    rig_expects_peer(&rig, PEER_RESUME, serial);
    assert_true(requests_awaits_peer(rig.requests, PEER_RESUME, serial));

    assert_true(requests_on_peer(rig.requests, PEER_RESUME, serial, &channel));
    requests_peer_endpoint(rig.requests, serial, 1, 0);
    no = (struct peer_no){.error = -ECONNRESET};
    assert_false(requests_try_next(rig.requests, serial, &no));
    assert_true(no.believed);
    assert_int_equal(no.error, -ECONNREFUSED);
    assert_int_equal(no.rejected, VF_ERROR_CANCELLED);
    assert_true(requests_last_no(rig.requests, serial, &no));
    rig_clear(&rig);
}

/* Of two that say as much, the later one: it is of the endpoint that was tried last. */
TEST(test_later_no_is_kept)
{
    struct rig rig;
    struct peer_no no = {.error = -ECONNRESET};
    uint32_t channel, serial;

    rig_init(&rig);
    serial = rig_asks_peer(&rig, PEER_CONTROL, 0);
    assert_true(requests_on_peer(rig.requests, PEER_CONTROL, serial, &channel));
    requests_peer_endpoint(rig.requests, serial, 1, 1);
    assert_true(requests_try_next(rig.requests, serial, &no));
    assert_true(requests_on_peer(rig.requests, PEER_CONTROL, serial, &channel));
    requests_peer_endpoint(rig.requests, serial, 2, 0);
    no = (struct peer_no){.error = -ETIMEDOUT};
    assert_false(requests_try_next(rig.requests, serial, &no));
    assert_int_equal(no.error, -ETIMEDOUT);
    rig_clear(&rig);
}

/* A broker that knows no more than the helper which endpoints there were must not be asked for ever. */
TEST(test_tries_are_bounded)
{
    struct rig rig;
    struct peer_no no = {.error = -ECONNRESET};
    uint32_t channel, serial;
    int n = 0;

    rig_init(&rig);
    serial = rig_asks_peer(&rig, PEER_CONTROL, 0);
    do {
        rig_expects_peer(&rig, PEER_CONTROL, serial);
        assert_true(requests_on_peer(rig.requests, PEER_CONTROL, serial, &channel));
        requests_peer_endpoint(rig.requests, serial, 1, 1);
    } while (requests_try_next(rig.requests, serial, &no) && ++n < 1000);
    assert_true(n < 100);
    assert_false(no.believed);
    rig_clear(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_peer_comes_once),
        CASE(test_serials_are_never_zero_nor_twice),
        CASE(test_restart),
        CASE(test_qemu_per_stream),
        CASE(test_loss),
        CASE(test_qemu_of_a_channel_that_ended),
        CASE(test_broker_is_gone),
        CASE(test_most_telling_no_is_kept),
        CASE(test_later_no_is_kept),
        CASE(test_tries_are_bounded),
    };

    return cmocka_run_group_tests_name("helper-requests", tests, NULL, NULL);
}
