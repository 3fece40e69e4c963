/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lies.h"

#include <stdio.h>
#include <string.h>

#include "broker.h"
#include "helper/control/outbox.h"
#include "helper/protocol/frame.h"
#include "side.h"
#include "world.h"

enum { CHANNELS_SAID = 8, KINDS_SAID = 5, ERRORS_SAID = VF_ERROR_MAX_ + 2 };

/* One at a bound, or near what is true, or any. */
static uint64_t number(void)
{
    static const uint64_t bounds[] = {0, 1, UINT32_MAX, UINT64_MAX, UINT64_MAX - 1, INT64_MAX, 1 << 16};

    return chance(400) ? bounds[pick(sizeof(bounds) / sizeof(bounds[0]))] : spread(chance(500) ? 70000 : 300);
}

static uint32_t channel(void)
{
    return chance(900) ? (uint32_t)pick(CHANNELS_SAID) : (uint32_t)number();
}

static void set_text(char *text, size_t size)
{
    snprintf(text, size, "%s", chance(800) ? "A lie." : "");
}

static struct outcome made_up_outcome(void)
{
    struct outcome outcome = {
        .outcome = (uint32_t)pick(VF_OUTCOME_MAX_), .downtime = number(), .total = number()};

    set_text(outcome.reason, sizeof(outcome.reason));
    return outcome;
}

/* Well formed, and of any type at any time. */
static void lie_to_peer(int side)
{
    struct frame frame = {.type = 1 + (enum frame_type)pick(FRAME_MAX_TYPE_ - 1)};

    if (!sides[side].session)
        return;
    if (frame.type >= FRAME_OPEN && frame.type <= FRAME_CLOSE)
        frame.channel = frame.type == FRAME_CLOSE && chance(200) ? FRAME_CHANNEL_ALL : channel();
    switch (frame.type) {
    case FRAME_HELLO:
        frame.hello.version = chance(800) ? 1 : (uint32_t)number();
        frame.hello.features = (uint32_t)number();
        frame.hello.max_channels = (uint32_t)number();
        frame.hello.n_streams = 1 + (uint32_t)pick(2);
        snprintf(frame.hello.streams[0], sizeof(frame.hello.streams[0]), "%s",
                 chance(800) ? "migrate" : "other");
        snprintf(frame.hello.streams[1], sizeof(frame.hello.streams[1]), "disks");
        break;
    case FRAME_OPEN:
        frame.stream = chance(900) ? (uint32_t)pick(3) : (uint32_t)number();
        break;
    case FRAME_ACK:
    case FRAME_FIN:
        frame.offset = number();
        break;
    case FRAME_PING:
    case FRAME_PONG:
        frame.cookie = number();
        break;
    case FRAME_REFUSED:
    case FRAME_ABORT:
        frame.refusal.error = 1 + (uint32_t)pick(ERRORS_SAID);
        set_text(frame.refusal.text, sizeof(frame.refusal.text));
        break;
    case FRAME_OUTCOME:
        frame.outcome = made_up_outcome();
        break;
    default:
        break;
    }
    tell("side %d lies to its peer: frame %u of channel %u", side, frame.type, frame.channel);
    sim.current = side;
    control_send(sides[side].session->control, &frame);
    sim.current = WORLD;
}

/* Whose other end is closed. */
static struct file *connection(bool local)
{
    struct conn *conn = conn_new(local, 1, 4096, 4096);
    struct file *file = file_of_conn(conn, 0);

    conn_close(conn, 1);
    return file;
}

/* Any message to a helper, with what must come with it, or what may not come at all. */
static void lie_to_helper(int side)
{
    static const enum message_type types[] = {
        MESSAGE_START_RELAY, MESSAGE_LISTENER, MESSAGE_PEER,  MESSAGE_PEER_FAILED, MESSAGE_QEMU,
        MESSAGE_QEMU_FAILED, MESSAGE_LIMIT,    MESSAGE_END,   MESSAGE_PIPE,        MESSAGE_SYNC,
        MESSAGE_HOLD,        MESSAGE_OUTCOME,  MESSAGE_OFFER, MESSAGE_PEER_MARKED,
    };
    enum message_type type = types[pick(sizeof(types) / sizeof(types[0]))];
    struct file *file = NULL;
    union message m = {0};

    if (!broker_is_up(&brokers[side]) || brokers[side].dead_until != 0)
        return;
    switch (type) {
    case MESSAGE_START_RELAY:
        m.start_relay = plan.start;
        file = connection(true);
        break;
    case MESSAGE_PEER:
    case MESSAGE_PEER_MARKED:
        m.peer = (struct message_peer){.serial = (uint32_t)pick(6), .kind = (uint32_t)pick(KINDS_SAID)};
        m.peer_marked.mark.number = type == MESSAGE_PEER_MARKED ? (uint32_t)number() : 0;
        file = connection(false);
        break;
    case MESSAGE_PEER_FAILED:
        m.peer_failed.serial = (uint32_t)pick(6);
        m.peer_failed.error = 1 + (uint32_t)pick(VF_ERROR_MAX_ - 1);
        break;
    case MESSAGE_QEMU:
        m.qemu = (struct message_qemu){.channel = chance(300) ? MESSAGE_CHANNEL_NEW : channel(),
                                       .stream = (uint32_t)pick(4)};
        file = connection(true);
        break;
    case MESSAGE_QEMU_FAILED:
        m.qemu_failed.channel = channel();
        m.qemu_failed.stream = (uint32_t)pick(4);
        m.qemu_failed.error = 1 + (uint32_t)pick(VF_ERROR_MAX_ - 1);
        break;
    case MESSAGE_LISTENER:
        file = connection(true);
        break;
    case MESSAGE_PIPE:
        m.pipe.channel = channel();
        m.pipe.use = (uint32_t)pick(3);
        file = file_new(FILE_PIPE);
        break;
    case MESSAGE_LIMIT:
        m.limit.bandwidth_limit = number();
        break;
    case MESSAGE_END:
        m.end.error = 1 + (uint32_t)pick(VF_ERROR_MAX_ - 1);
        break;
    case MESSAGE_SYNC:
        m.sync.cookie = number();
        break;
    case MESSAGE_HOLD:
        m.hold.usec = number();
        break;
    case MESSAGE_OUTCOME:
        m.outcome.outcome = made_up_outcome();
        break;
    default:
        m.offer.features = (uint32_t)number();
        break;
    }
    tell("the broker of side %d lies: %s", side, message_name(type));
    broker_sends(&brokers[side], type, &m, file);
}

void lie_at_start(struct message_start_relay *start)
{
    static const uint64_t windows[] = {0,         1, WINDOW_MIN - 1, WINDOW_MIN, WINDOW_MAX, WINDOW_MAX + 1,
                                       UINT64_MAX};

    if (plan.lies == 0 || !chance(50))
        return;
    tell("a START is not what it should be");
    sim.has_failed = sim.has_lied = true;
    switch (pick(6)) {
    case 0:
        start->window = windows[pick(sizeof(windows) / sizeof(windows[0]))];
        break;
    case 1:
        start->security = (uint32_t)pick(4);
        break;
    case 2:
        start->max_channels = (uint32_t)number();
        break;
    case 3:
        start->n_streams = (uint32_t)number();
        break;
    case 4:
        start->resume_timeout = number();
        plan.goes = false; /* it may wait for ever: only its broker ends it then */
        start->bandwidth_limit = number();
        break;
    default:
        memset(start->streams[pick(2)], (int)pick(256), sizeof(start->streams[0]));
    }
}

void maybe_lie(void)
{
    int side;

    if (plan.lies == 0 || !chance(20))
        return;
    plan.lies--;
    side = (int)pick(2);
    sim.has_failed = sim.has_lied = true;
    if (chance(700))
        lie_to_peer(side);
    else
        lie_to_helper(side);
}
