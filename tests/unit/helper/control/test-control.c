/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-rig.h"

#include "common/clock.h"
#include "helper/control/control.h"
#include "helper/control/heartbeat.h"
#include "helper/control/internal.h"
#include "helper/control/outbox.h"
#include "helper/limits.h"

/* One end of a control connection: the test is the other. */

struct rig {
    struct desk desk;
    struct ring_pool pool;
    struct control *control;
    struct wire wire;
    bool halted;
    int n_frames, n_lost, n_violated, n_drained;
    bool answers; /* to each frame with two */
    bool halts;   /* at the first frame */
    struct frame last;
    char why[256];
};

static void on_frame(void *userdata, const struct frame *frame)
{
    struct rig *rig = userdata;
    struct frame pong = {.type = FRAME_PONG, .cookie = frame->cookie};

    rig->n_frames++;
    rig->last = *frame;
    rig->halted = rig->halts;
    if (rig->answers) {
        control_send(rig->control, &pong);
        control_send(rig->control, &pong);
    }
}

static void on_lost(void *userdata, const char *why)
{
    struct rig *rig = userdata;

    rig->n_lost++;
    rig->halted = true;
    snprintf(rig->why, sizeof(rig->why), "%s", why);
}

static void on_violated(void *userdata, const char *what)
{
    struct rig *rig = userdata;

    rig->n_violated++;
    rig->halted = true;
}

static void on_drained(void *userdata)
{
    ((struct rig *)userdata)->n_drained++;
}

static const struct control_events events = {
    .frame = on_frame, .lost = on_lost, .violated = on_violated, .drained = on_drained};

static void rig_connects(struct rig *rig)
{
    struct carrier *carrier;
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    rig->wire = (struct wire){.fd = pair[1]};
    assert_int_equal(carrier_raw_new(pair[0], &carrier), 0);
    assert_int_equal(control_adopt(rig->control, carrier), 0);
}

static struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    desk_init(&rig->desk);
    rig->pool = (struct ring_pool){.lock = PTHREAD_MUTEX_INITIALIZER, .max_free = 2};
    assert_int_equal(control_new(rig->desk.event, &rig->pool, &rig->halted, &events, rig, &rig->control), 0);
    rig_connects(rig);
    control_read(rig->control);
    return rig;
}

static void rig_freep(struct rig **rig)
{
    control_free((*rig)->control);
    ring_pool_clear(&(*rig)->pool);
    desk_clear(&(*rig)->desk);
    if ((*rig)->wire.fd >= 0)
        close((*rig)->wire.fd);
    free(*rig);
}

#define _cleanup_rig_ __attribute__((cleanup(rig_freep))) struct rig *

static const struct frame ping = {.type = FRAME_PING, .cookie = 5};

TEST(test_frames_come_and_go)
{
    _cleanup_rig_ rig = rig_new();
    struct frame frame;

    control_send(rig->control, &ping);
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_PING);
    wire_says(&rig->wire, &ping);
    wire_says(&rig->wire, &ping);
    desk_run(&rig->desk);
    assert_int_equal(rig->n_frames, 2);
    assert_int_equal(rig->last.cookie, 5);
    assert_int_equal(rig->n_lost + rig->n_violated, 0);
}

TEST(test_frame_in_pieces)
{
    _cleanup_rig_ rig = rig_new();
    uint8_t buf[FRAME_MAX];
    size_t size = frame_encode(&ping, buf);

    for (size_t i = 0; i < size; i++) {
        assert_int_equal(rig->n_frames, 0);
        assert_int_equal(send(rig->wire.fd, buf + i, 1, 0), 1);
        desk_run(&rig->desk);
    }
    assert_int_equal(rig->n_frames, 1);
}

/* What came with the handshake's last bytes is seen by no poll. */
TEST(test_what_is_there_at_first)
{
    _cleanup_rig_ rig = rig_new();

    control_clear(rig->control);
    close(rig->wire.fd);
    rig_connects(rig);
    wire_says(&rig->wire, &ping);
    control_read(rig->control);
    assert_int_equal(rig->n_frames, 1);
}

TEST(test_no_frame)
{
    _cleanup_rig_ rig = rig_new();

    assert_int_equal(send(rig->wire.fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 0), 8);
    wire_says(&rig->wire, &ping);
    desk_run(&rig->desk);
    assert_int_equal(rig->n_violated, 1);
    assert_int_equal(rig->n_frames, 0); /* nothing after it counts */
}

TEST(test_peer_closes)
{
    _cleanup_rig_ rig = rig_new();

    wire_says(&rig->wire, &ping);
    close(rig->wire.fd);
    rig->wire.fd = -1;
    desk_run(&rig->desk);
    assert_int_equal(rig->n_frames, 1); /* what it had said before counts */
    assert_int_equal(rig->n_lost, 1);
    assert_string_equal(rig->why, "the peer closed it");
}

/* The bound on what a peer that does not read makes this side keep. */
TEST(test_peer_does_not_read)
{
    _cleanup_rig_ rig = rig_new();

    for (int i = 0; i < 1000000 && rig->n_lost == 0; i++)
        control_send(rig->control, &ping);
    assert_int_equal(rig->n_lost, 1);
    assert_non_null(strstr(rig->why, "does not read"));
    control_send(rig->control, &ping); /* halted: dropped */
    assert_int_equal(rig->n_lost, 1);
}

TEST(test_halted_in_between)
{
    _cleanup_rig_ rig = rig_new();

    rig->halts = true;
    wire_says(&rig->wire, &ping);
    wire_says(&rig->wire, &ping);
    desk_run(&rig->desk);
    assert_int_equal(rig->n_frames, 1);
}

/* Answers to all that is there go out together. */
TEST(test_answers_are_corked)
{
    _cleanup_rig_ rig = rig_new();
    struct frame frame;

    rig->answers = true;
    for (int i = 0; i < 3; i++)
        wire_says(&rig->wire, &ping);
    desk_run(&rig->desk);
    for (int i = 0; i < 6; i++)
        assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_PONG);
    assert_int_equal(wire_heard(&rig->wire, &frame), 0);
}

TEST(test_last_word)
{
    _cleanup_rig_ rig = rig_new();
    struct frame abort = {.type = FRAME_ABORT, .refusal = {.error = 3}}, word;

    rig->halted = true;
    assert_false(control_last_word(rig->control, &word));
    wire_says(&rig->wire, &ping);
    wire_says(&rig->wire, &abort);
    assert_true(control_last_word(rig->control, &word));
    assert_int_equal(word.refusal.error, 3);
    assert_int_equal(rig->n_frames, 0);
    control_clear(rig->control);
    assert_int_equal(control_fd(rig->control), -1);
    assert_false(control_last_word(rig->control, &word));
}

/* Where a peer goes on and on, no more is read than is ever on the way. */
TEST(test_no_last_word)
{
    _cleanup_rig_ rig = rig_new();
    struct frame abort = {.type = FRAME_ABORT, .refusal = {.error = 3}}, word;
    uint8_t one[FRAME_MAX], *all = malloc(CONTROL_RING + FRAME_MAX);
    size_t size = frame_encode(&ping, one), n = 0;

    assert_non_null(all);
    for (; n < CONTROL_RING; n += size)
        memcpy(all + n, one, size);
    assert_int_equal(send(rig->wire.fd, all, n, MSG_NOSIGNAL), n);
    free(all);
    wire_says(&rig->wire, &abort);
    rig->halted = true;
    assert_false(control_last_word(rig->control, &word));
}

/* The last word reaches a peer that was still sending; then it is over, once the peer has closed. */
TEST(test_linger)
{
    _cleanup_rig_ rig = rig_new();
    struct frame abort = {.type = FRAME_ABORT, .refusal = {.error = 3}}, frame;

    wire_says(&rig->wire, &ping);
    control_leave_word(rig->control, &abort);
    rig->halted = true;
    control_linger(rig->control);
    desk_run(&rig->desk);
    assert_int_equal(rig->n_frames, 0);
    assert_int_equal(rig->n_drained, 0);
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_ABORT);
    wire_says(&rig->wire, &ping);
    desk_run(&rig->desk);
    assert_int_equal(rig->n_drained, 0);
    close(rig->wire.fd);
    rig->wire.fd = -1;
    desk_run(&rig->desk);
    assert_int_equal(rig->n_drained, 1);
}

TEST(test_linger_without_a_connection)
{
    _cleanup_rig_ rig = rig_new();

    control_clear(rig->control);
    control_leave_word(rig->control, &ping);
    control_linger(rig->control);
    assert_int_equal(rig->n_drained, 1);
}

TEST(test_silence)
{
    _cleanup_rig_ rig = rig_new();

    for (unsigned i = 0; i < SILENCE_RESUME; i++)
        assert_false(heartbeat_is_silent(rig->control, SILENCE_RESUME));
    wire_says(&rig->wire, &ping);
    desk_run(&rig->desk);
    for (unsigned i = 0; i < SILENCE_RESUME; i++)
        assert_false(heartbeat_is_silent(rig->control, SILENCE_RESUME));
    assert_true(heartbeat_is_silent(rig->control, SILENCE_RESUME));
    control_clear(rig->control);
    assert_false(heartbeat_is_silent(rig->control, 0)); /* no peer is there to be silent */
}

/* One ping is under way at a time, and only its answer is one. */
TEST(test_pings)
{
    _cleanup_rig_ rig = rig_new();
    struct frame frame;
    uint64_t now = turn_now(rig->desk.event);

    heartbeat_ping(rig->control, true, now);
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_PING);
    heartbeat_ping(rig->control, true, now);
    assert_int_equal(heartbeat_on_pong(rig->control, frame.cookie + 1), 0);
    assert_true(heartbeat_on_pong(rig->control, frame.cookie) > 0);
    assert_int_equal(heartbeat_on_pong(rig->control, frame.cookie), 0);
    assert_int_equal(heartbeat_on_pong(rig->control, 0), 0);
    assert_int_equal(wire_heard(&rig->wire, &frame), 0);
    /* A destination measures again only now and then, or where it misses the source's pings. */
    heartbeat_ping(rig->control, false, rig->control->measured + TRIP - 1);
    assert_int_equal(wire_heard(&rig->wire, &frame), 0);
    heartbeat_ping(rig->control, false, rig->control->measured + TRIP);
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_PING);
    assert_true(heartbeat_on_pong(rig->control, frame.cookie) > 0);
    for (int i = 0; i < 2; i++) {
        heartbeat_ping(rig->control, false, rig->control->measured);
        assert_int_equal(wire_heard(&rig->wire, &frame), 0);
        assert_false(heartbeat_is_silent(rig->control, SILENCE_RESUME));
    }
    heartbeat_ping(rig->control, false, rig->control->measured);
    assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_PING);
}

/* A ping whose answer was lost with its connection is not waited for on the next. */
TEST(test_pings_of_the_next_connection)
{
    _cleanup_rig_ rig = rig_new();
    struct frame frame;

    for (int i = 0; i < 2; i++) {
        heartbeat_ping(rig->control, true, turn_now(rig->desk.event));
        assert_int_equal(wire_heard(&rig->wire, &frame), FRAME_PING);
        control_clear(rig->control);
        close(rig->wire.fd);
        rig_connects(rig);
    }
}

static size_t left; /* bytes that the carrier below holds */

/* As TLS, which takes a record from its socket and gives it piece by piece. */
static ssize_t receive_held(struct carrier *carrier, struct ring *ring, size_t max)
{
    uint8_t buf[FRAME_MAX];
    size_t size = frame_encode(&ping, buf);
    struct iovec space[RING_IOV_MAX];

    if (left == 0)
        return -EAGAIN;
    assert_true(max >= size);
    assert_int_equal(ring_reserve(ring, size, space), 1);
    memcpy(space[0].iov_base, buf, size);
    ring_commit(ring, size);
    left -= size;
    return (ssize_t)size;
}

static bool holds(const struct carrier *carrier)
{
    return left > 0;
}

/* No poll tells of what a carrier holds. */
TEST(test_what_the_carrier_holds)
{
    _cleanup_rig_ rig = rig_new();
    struct carrier *carrier = rig->control->carrier;
    struct carrier_ops ops = *carrier->ops;
    uint8_t buf[FRAME_MAX];

    ops.recv = receive_held;
    ops.holds_input = holds;
    carrier->ops = &ops;
    left = 3 * frame_encode(&ping, buf);
    control_read(rig->control);
    assert_int_equal(rig->n_frames, 3);
    control_clear(rig->control);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_frames_come_and_go),
        CASE(test_frame_in_pieces),
        CASE(test_what_is_there_at_first),
        CASE(test_no_frame),
        CASE(test_peer_closes),
        CASE(test_peer_does_not_read),
        CASE(test_halted_in_between),
        CASE(test_answers_are_corked),
        CASE(test_last_word),
        CASE(test_no_last_word),
        CASE(test_linger),
        CASE(test_linger_without_a_connection),
        CASE(test_silence),
        CASE(test_pings),
        CASE(test_pings_of_the_next_connection),
        CASE(test_what_the_carrier_holds),
    };

    return cmocka_run_group_tests_name("helper-control-control", tests, NULL, NULL);
}
