/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker.h"

#include <string.h>
#include <syslog.h>

#include "network.h"
#include "qemu.h"
#include "side.h"
#include "world.h"

struct broker brokers[2];

enum { QEMU_TIMEOUT = 30 /* s */ };

void broker_begin(int side)
{
    struct file *file = file_new(FILE_LINK);
    struct channel_of_link *ends = &sides[side].ends;

    file->link = ends;
    file->end = 1;
    ends->to_helper.n = ends->to_broker.n = 0;
    ends->broker_gone = ends->helper_gone = false;
    ends->to_helper.capacity = 100;
    ends->to_broker.capacity = chance(200) ? 3 : 100;
    brokers[side] = (struct broker){.side = side, .fd = fd_new(file)};
    brokers[side].qemu_up_at = sim.now + (chance(700) ? 0 : spread(5 * SECOND));
}

void broker_offers(struct broker *broker)
{
    union message m = {.offer.features = OFFERS_KNOWN};

    if (chance(800))
        broker_sends(broker, MESSAGE_OFFER, &m, NULL);
}

static bool is_told(const struct broker *broker)
{
    return sides[broker->side].ends.to_broker.n > 0;
}

static bool has_left(const struct broker *broker)
{
    return sides[broker->side].ends.helper_gone && !is_told(broker);
}

static const struct task *due_task(const struct broker *broker)
{
    for (size_t i = 0; i < broker->n_tasks; i++)
        if (broker->tasks[i].at <= sim.now)
            return &broker->tasks[i];
    return NULL;
}

bool broker_is_due(const struct broker *broker)
{
    if (!broker_is_up(broker) || broker->busy_until > sim.now)
        return false;
    return broker->dead_until != 0 || is_told(broker) || has_left(broker) || due_task(broker);
}

uint64_t broker_next(const struct broker *broker)
{
    uint64_t next = NEVER;

    if (broker->fd < 0)
        return NEVER;
    if (!broker_is_up(broker))
        return broker->dead_until;
    for (size_t i = 0; i < broker->n_tasks; i++)
        if (broker->tasks[i].at > sim.now)
            next = earlier(next, broker->tasks[i].at);
    return broker->busy_until > sim.now ? earlier(next, broker->busy_until) : next;
}

bool broker_sends(struct broker *broker, enum message_type type, union message *m, struct file *file)
{
    int fd = file ? fd_new(file) : -1;
    int r = message_send(broker->fd, type, m, fd);

    if (fd >= 0)
        fd_close(fd);
    return r >= 0;
}

void broker_hurries(struct broker *broker, uint64_t usec)
{
    for (size_t i = 0; i < broker->n_tasks; i++)
        broker->tasks[i].at = earlier(broker->tasks[i].at, sim.now + pick(usec));
}

void broker_goes(struct broker *broker)
{
    if (broker->fd < 0)
        return;
    tell("the broker of side %d goes for good", broker->side);
    fd_close(broker->fd);
    broker->fd = -1;
}

void broker_dies(struct broker *broker, uint64_t usec)
{
    if (!broker_is_up(broker) || broker->dead_until != 0)
        return;
    tell("the broker of side %d dies for %ju µs", broker->side, (uintmax_t)usec);
    broker->n_tasks = 0;
    broker->dead_until = sim.now + usec;
}

static void come_back(struct broker *broker)
{
    union message m = {0};

    broker->dead_until = 0;
    broker->voice = VOICE_SYNCING;
    m.sync.cookie = broker->cookie = 1 + pick(UINT32_MAX);
    tell("the broker of side %d is back", broker->side);
    broker_sends(broker, MESSAGE_SYNC, &m, NULL);
}

bool broker_adds_qemu(struct broker *broker, uint32_t stream, uint64_t total)
{
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW, .stream = stream, .shared = chance(100)}};
    struct file *file;
    struct qemu *qemu;

    if (!broker_is_up(broker) || broker->has_result || sides[broker->side].ends.helper_gone)
        return false;
    qemu = qemu_new(SOURCE, stream, total, &file);
    qemu->window = plan.resume_timeout > 0 ? plan.window : 0;
    tell("QEMU's connection %u of stream %u comes, with %ju bytes", qemu->id, stream, (uintmax_t)qemu->total);
    qemu->given = broker_sends(broker, MESSAGE_QEMU, &m, file);
    return qemu->given;
}

void broker_ends(struct broker *broker, enum vf_error error)
{
    union message m = {.end = {.error = error, .text = "It was cancelled."}};

    if (!broker_is_up(broker) || broker->has_result || broker->has_ended)
        return;
    tell("side %d is cancelled", broker->side);
    broker->has_ended = broker_sends(broker, MESSAGE_END, &m, NULL);
    broker->has_farewell = broker->has_ended && side_is_cut_off(broker->side);
    broker->ended_at = sim.now;
    broker->faults_left = plan.faults;
}

/* ---- What it was asked for ---- */

static void bring_peer(struct broker *broker, const struct task *task)
{
    union message m = {.peer = {.serial = task->serial, .kind = task->kind, .shared = chance(50)}};
    union message failed = {
        .peer_failed = {.serial = task->serial, .error = VF_ERROR_PEER_UNREACHABLE, .text = "No network."}};
    struct file *file = network_dial();

    tell("peer connection %u of kind %u: %s", task->serial, task->kind, file ? "is there" : "failed");
    if (file)
        broker_sends(broker, MESSAGE_PEER, &m, file);
    else
        broker_sends(broker, MESSAGE_PEER_FAILED, &failed, NULL);
}

static void bring_qemu(struct broker *broker, const struct task *task)
{
    union message m = {.qemu = {.channel = task->channel, .stream = task->stream, .shared = chance(100)}};
    union message pipe = {.pipe = {.channel = task->channel}};
    struct file *file;
    struct qemu *qemu = qemu_new(DESTINATION, task->stream, plan_back_total(), &file);

    qemu->window = plan.resume_timeout > 0 ? plan.window : 0;
    tell("QEMU's connection %u is there for channel %u", qemu->id, task->channel);
    if (plan.start.security == SECURITY_PLAIN && chance(700))
        broker_sends(broker, MESSAGE_PIPE, &pipe, file_new(FILE_PIPE));
    qemu->given = broker_sends(broker, MESSAGE_QEMU, &m, file);
}

static void finish(struct broker *broker, struct task *task)
{
    struct task done = *task;

    *task = broker->tasks[--broker->n_tasks];
    if (done.type == MESSAGE_NEED_PEER)
        bring_peer(broker, &done);
    else
        bring_qemu(broker, &done);
}

static void ask(struct broker *broker, struct task task)
{
    bool is_slow = chance(task.type == MESSAGE_NEED_QEMU ? 200 : 50);

    task.at = sim.now + spread(is_slow ? 9 * SECOND : SECOND / 50);
    if (task.type == MESSAGE_NEED_QEMU && task.at < broker->qemu_up_at)
        task.at = broker->qemu_up_at;
    if (broker->n_tasks == TASKS)
        fault("a helper asks for more than it can need");
    broker->tasks[broker->n_tasks++] = task;
}

/* ---- What it is told ---- */

static void on_state(struct broker *broker, const struct message_state_changed *m)
{
    tell("state %u", m->state);
    if (m->state == STATE_WAITING || m->state >= STATE_FINISHED || broker->has_result ||
        (broker->state == STATE_ACTIVE && m->state == STATE_CONNECTED))
        fault("the state of side %d becomes %u after %u", broker->side, m->state, broker->state);
    if (m->state == STATE_INTERRUPTED && plan.quiet && !sim.has_failed)
        fault("side %d is interrupted, and nothing went wrong: %s", broker->side, m->text);
    broker->state = m->state;
}

static void on_result(struct broker *broker, const struct message_result *m)
{
    tell("result %u: %s", m->error, m->text);
    if (broker->has_result)
        fault("side %d has a second result", broker->side);
    broker->has_result = true;
    broker->result_at = sim.now;
    broker->error = m->error;
    memcpy(broker->text, m->text, sizeof(broker->text));
}

static void on_log(struct broker *broker, const struct message_log *m)
{
    tell("log: %s", m->text);
    if (m->priority <= LOG_ERR && !sim.has_failed)
        fault("side %d says: %s", broker->side, m->text);
}

static void on_message(struct broker *broker, const union message *m)
{
    switch (m->header.type) {
    case MESSAGE_NEED_PEER:
        tell("needs peer connection %u of kind %u", m->need_peer.serial, m->need_peer.kind);
        if (broker->voice != VOICE_SYNCING)
            ask(broker, (struct task){.type = MESSAGE_NEED_PEER,
                                      .serial = m->need_peer.serial,
                                      .kind = m->need_peer.kind});
        break;
    case MESSAGE_NEED_QEMU:
        tell("needs QEMU for channel %u", m->need_qemu.channel);
        if (broker->voice != VOICE_SYNCING)
            ask(broker, (struct task){.type = MESSAGE_NEED_QEMU,
                                      .channel = m->need_qemu.channel,
                                      .stream = m->need_qemu.stream});
        break;
    case MESSAGE_STATE:
        on_state(broker, &m->state_changed);
        break;
    case MESSAGE_RESULT:
        on_result(broker, &m->result);
        break;
    case MESSAGE_LOG:
        on_log(broker, &m->log);
        break;
    case MESSAGE_SYNCED:
        if (m->synced.cookie == broker->cookie)
            broker->voice = VOICE_SYNCED;
        break;
    default:
        break;
    }
}

void broker_turn(struct broker *broker)
{
    const struct task *task = due_task(broker);
    union message m;
    int fd, r;

    broker->busy_until = chance(50) ? sim.now + spread(SECOND / 5) : 0;
    if (broker->dead_until != 0) {
        come_back(broker);
        return;
    }
    if (task && (!is_told(broker) || chance(500))) {
        finish(broker, &broker->tasks[task - broker->tasks]);
        return;
    }
    r = message_recv(broker->fd, TO_BROKER, broker->has_result ? PHASE_ENDED : PHASE_RELAY, &m, &fd);
    sim.current = broker->side;
    if (r > 0) {
        on_message(broker, &m);
    } else if (r == 0) {
        if (!broker->has_result && !sim.has_failed)
            fault("the helper of side %d leaves without a result", broker->side);
        sim.current = WORLD;
        fd_close(broker->fd);
        broker->fd = -1;
    } else {
        fault("side %d says what it may not: %s (%s)", broker->side, message_name(m.header.type),
              strerror(-r));
    }
    sim.current = WORLD;
}
