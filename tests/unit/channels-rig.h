/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The channels of one side, with what they tell written down. The peer, the QEMUs and the broker are the
 * test. */

#include "helper-rig.h"

#include "helper/channel/channels.h"
#include "helper/channel/frames.h"
#include "helper/channel/internal.h"
#include "helper/control/control.h"

struct channels_rig {
    struct desk desk;
    struct stats page;
    struct ring_pool pool;
    struct workers workers;
    struct stream_names streams;
    struct control *control;
    struct requests *requests;
    struct channels *channels;
    struct wire wire;
    unsigned connection;
    bool halted;
    int n_active, n_ended, n_lost, n_failed, n_refused, n_violated;
    enum vf_error error;
    char why[512];
};

static inline void rig_note(struct channels_rig *rig, enum vf_error error, const char *why)
{
    rig->error = error;
    snprintf(rig->why, sizeof(rig->why), "%s", why);
}

static inline void rig_active(void *userdata)
{
    ((struct channels_rig *)userdata)->n_active++;
}

static inline void rig_ended(void *userdata)
{
    ((struct channels_rig *)userdata)->n_ended++;
}

static inline bool rig_awaits_cancel(void *userdata)
{
    return false;
}

static inline void rig_lost(void *userdata, const char *why)
{
    struct channels_rig *rig = userdata;

    rig->n_lost++;
    rig->halted = true; /* as a session does */
    rig_note(rig, VF_ERROR_NONE, why);
}

static inline void rig_failed(void *userdata, enum vf_error error, const char *why)
{
    struct channels_rig *rig = userdata;

    rig->n_failed++;
    rig_note(rig, error, why);
}

static inline void rig_refused(void *userdata, enum vf_error error, const char *why)
{
    struct channels_rig *rig = userdata;

    rig->n_refused++;
    rig_note(rig, error, why);
}

static inline void rig_violated(void *userdata, uint32_t channel, const char *what)
{
    struct channels_rig *rig = userdata;

    rig->n_violated++;
    rig_note(rig, VF_ERROR_PROTOCOL_MISMATCH, what);
}

static const struct channel_events rig_events = {
    .active = rig_active,
    .ended = rig_ended,
    .lost = rig_lost,
    .awaits_cancel = rig_awaits_cancel,
    .failed = rig_failed,
    .refused = rig_refused,
    .violated = rig_violated,
};

static inline void rig_ignores_frame(void *userdata, const struct frame *frame)
{
}

static inline void rig_ignores_text(void *userdata, const char *text)
{
}

static const struct control_events rig_control_events = {
    .frame = rig_ignores_frame, .lost = rig_ignores_text, .violated = rig_ignores_text};

/* The control connection that there is: the peer's end is the wire. Neither side has greeted. */
static inline void rig_adopts(struct channels_rig *rig)
{
    struct carrier *carrier;
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    rig->wire = (struct wire){.fd = pair[1]};
    assert_int_equal(carrier_raw_new(pair[0], &carrier), 0);
    assert_int_equal(control_adopt(rig->control, carrier), 0);
    rig->halted = false;
}

static inline void rig_connects(struct channels_rig *rig)
{
    rig_adopts(rig);
    channels_connect(rig->channels, ++rig->connection);
}

static inline void rig_loses_connection(struct channels_rig *rig)
{
    channels_disconnect(rig->channels);
    requests_drop_peers(rig->requests);
    control_clear(rig->control);
    close(rig->wire.fd);
    rig->wire.fd = -1;
}

static inline struct channels_rig *rig_new(enum message_role role, bool resumes)
{
    struct channels_rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    desk_init(&rig->desk);
    rig->pool = (struct ring_pool){.lock = PTHREAD_MUTEX_INITIALIZER, .max_free = 4};
    rig->streams = (struct stream_names){.n = 2, .names = {"migrate", "disks"}};
    rig->requests = requests_new(&rig->desk.link);
    assert_int_equal(
        control_new(rig->desk.event, &rig->pool, &rig->halted, &rig_control_events, rig, &rig->control), 0);
    const struct channels_options options = {
        .event = rig->desk.event,
        .link = &rig->desk.link,
        .workers = &rig->workers,
        .control = rig->control,
        .requests = rig->requests,
        .pool = &rig->pool,
        .page = &rig->page,
        .streams = &rig->streams,
        .peer_streams = &rig->streams,
        .halted = &rig->halted,
        .role = role,
        .security = SECURITY_PLAIN,
        .max_channels = 4,
        .window = 1 << 20,
        .resumes = resumes,
    };
    assert_int_equal(channels_new(&options, &rig_events, rig, &rig->channels), 0);
    rig_connects(rig);
    return rig;
}

static inline void rig_freep(struct channels_rig **rig)
{
    channels_free((*rig)->channels);
    control_free((*rig)->control);
    requests_free((*rig)->requests);
    ring_pool_clear(&(*rig)->pool);
    desk_clear(&(*rig)->desk);
    if ((*rig)->wire.fd >= 0)
        close((*rig)->wire.fd);
    free(*rig);
}

#define _cleanup_rig_ __attribute__((cleanup(rig_freep))) struct channels_rig *

/* ---- What the peer says ---- */

static inline const char *rig_hears(struct channels_rig *rig, enum frame_type type, uint32_t channel,
                                    uint64_t offset)
{
    struct frame frame = {.type = type, .channel = channel, .offset = offset};

    return channels_on_frame(rig->channels, &frame);
}

static inline const char *rig_hears_open(struct channels_rig *rig, uint32_t channel, uint32_t stream)
{
    struct frame frame = {.type = FRAME_OPEN, .channel = channel, .stream = stream};

    return channels_on_frame(rig->channels, &frame);
}

static inline const char *rig_hears_refusal(struct channels_rig *rig, uint32_t channel, enum vf_error error)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = channel, .refusal = {.error = error}};

    return channels_on_frame(rig->channels, &frame);
}

/* ---- What this side says ---- */

static inline void rig_says(struct channels_rig *rig, enum frame_type type, uint32_t channel)
{
    struct frame frame;

    assert_int_equal(wire_heard(&rig->wire, &frame), type);
    assert_int_equal(frame.channel, channel);
}

static inline void rig_says_offset(struct channels_rig *rig, enum frame_type type, uint64_t offset)
{
    struct frame frame;

    assert_int_equal(wire_heard(&rig->wire, &frame), type);
    assert_int_equal(frame.offset, offset);
}

static inline void rig_says_nothing(struct channels_rig *rig)
{
    struct frame frame;

    assert_int_equal(wire_heard(&rig->wire, &frame), 0);
}

static inline uint32_t rig_asks_peer(struct channels_rig *rig)
{
    union message m;

    assert_int_equal(desk_heard(&rig->desk, &m), MESSAGE_NEED_PEER);
    assert_int_equal(m.need_peer.kind, PEER_CHANNEL);
    return m.need_peer.serial;
}

static inline void rig_asks_qemu(struct channels_rig *rig, uint32_t channel)
{
    union message m;

    assert_int_equal(desk_heard(&rig->desk, &m), MESSAGE_NEED_QEMU);
    assert_int_equal(m.need_qemu.channel, channel);
}

static inline void rig_asks_nothing(struct channels_rig *rig)
{
    union message m;

    assert_int_equal(desk_heard(&rig->desk, &m), 0);
}

/* ---- Connections: each returns the test's end ---- */

static inline int rig_gets_peer(struct channels_rig *rig, uint32_t channel)
{
    struct carrier *carrier;
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[0], &carrier), 0);
    channels_set_peer(rig->channels, channel, carrier);
    return pair[1];
}

/* Source: QEMU connects. */
static inline int rig_adds_qemu(struct channels_rig *rig, uint32_t stream)
{
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    channels_add_qemu(rig->channels, stream, pair[0], false);
    return pair[1];
}

/* Destination: the broker brings what was asked for. */
static inline int rig_gets_qemu(struct channels_rig *rig, uint32_t channel, uint32_t stream)
{
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    channels_on_qemu(rig->channels, channel, stream, pair[0], false);
    return pair[1];
}

static inline void rig_closes(struct channels_rig *rig, int *fd)
{
    close(*fd);
    *fd = -1;
    desk_run(&rig->desk);
}

static inline void rig_sends(struct channels_rig *rig, int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    desk_run(&rig->desk);
}

static inline void rig_receives(struct channels_rig *rig, int fd, const char *text)
{
    char buf[256] = "";

    desk_run(&rig->desk);
    assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), strlen(text));
    assert_string_equal(buf, text);
}

static inline enum stats_channel_state rig_state(const struct channels_rig *rig, size_t slot)
{
    return (enum stats_channel_state)rig->page.channels[slot].state;
}
