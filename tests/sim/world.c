/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "broker.h"
#include "check.h"
#include "event.h"
#include "lies.h"
#include "network.h"
#include "qemu.h"
#include "side.h"

struct plan plan;

#define PATIENCE (200 * SECOND) /* after which nothing goes wrong any more */

enum { STEPS_MAX = 1000000 };

/* ---- What a seed makes ---- */

/* As QEMU's multifd does: its main connection is before the others, and all send more than a socket holds. */
static void make_deserters(void)
{
    plan.deserts = true;
    plan.gentle = plan.quiet = plan.goes = false;
    plan.faults = (unsigned)pick(3);
    plan.channels = 2 + (unsigned)pick(5);
    plan.size = 20000;
    plan.resume_timeout = plan.start.resume_timeout = 5 * SECOND;
    plan.start.max_channels = 16;
}

static void make_plan(void)
{
    static const uint64_t timeouts[] = {SECOND, 5 * SECOND, 20 * SECOND, 0};

    plan = (struct plan){.gentle = chance(500), .recovers = chance(700)};
    plan.resume_timeout = plan.gentle ? 300 * SECOND : timeouts[pick(4)];
    plan.window = chance(700) ? WINDOW_MIN : 4 * WINDOW_MIN;
    plan.goes = !plan.gentle && chance(100);
    plan.faults = chance(100) ? 0 : 1 + (unsigned)pick(5);
    plan.quiet = plan.faults == 0;
    plan.channels = chance(500) ? 1 : 1 + (unsigned)pick(6);
    plan.size = chance(5) ? 600000 : chance(150) ? 100000 : 2000;
    plan.start = (struct message_start_relay){
        .id = 1 + pick(UINT32_MAX),
        .security = chance(20) ? SECURITY_TLS : SECURITY_PLAIN,
        .max_channels = plan.gentle || chance(700) ? 16 : 1 + (uint32_t)pick(3),
        .window = plan.window,
        .resume_timeout = plan.resume_timeout,
        .bandwidth_limit = chance(100) ? 20000 + spread(10000000) : 0,
        .n_streams = 1 + (uint32_t)pick(2),
        .streams = {"migrate", "disks"},
    };
    for (size_t i = 0; i < sizeof(plan.start.secret); i++)
        plan.start.secret[i] = (uint8_t)pick(256);
    kernel.short_permille = chance(500) ? 0 : (unsigned)pick(400);
    kernel.eintr_permille = chance(700) ? 0 : (unsigned)pick(50);
    if (sim.seed % 16 == 7) /* of the seed itself, so that the others mean what they always did */
        make_deserters();
}

static uint64_t flow_size(uint64_t max)
{
    return chance(100) ? 0 : spread(max);
}

uint64_t plan_back_total(void)
{
    return flow_size(chance(200) ? plan.size : plan.size / 8);
}

/* ---- What goes wrong ---- */

/* Before both are connected nothing is promised but a clear end. */
static bool faults_may_come(void)
{
    return !plan.gentle ||
           (brokers[SOURCE].state >= STATE_CONNECTED && brokers[DESTINATION].state >= STATE_CONNECTED);
}

static void gentle_fault(void)
{
    union message limit = {.limit.bandwidth_limit = chance(500) ? 0 : 100000 + spread(10000000)};
    int side = (int)pick(2);

    switch (pick(8)) {
    case 0:
    case 1:
        network_cut(true, spread(10 * SECOND));
        break;
    case 2:
        network_cut(false, 0);
        break;
    case 3:
        network_stall(spread(15 * SECOND));
        break;
    case 4:
        tell("side %d stands still", side);
        sides[side].frozen_until = sim.now + spread(8 * SECOND);
        break;
    case 5:
        broker_dies(&brokers[side], spread(5 * SECOND));
        break;
    case 6:
        if (broker_is_up(&brokers[side]))
            broker_sends(&brokers[side], MESSAGE_LIMIT, &limit, NULL);
        break;
    default:
        network_stranger();
        break;
    }
}

static void hard_fault(void)
{
    int side = (int)pick(2);

    switch (pick(plan.goes ? 4 : 3)) {
    case 0:
        network_cut(true, plan.resume_timeout + spread(40 * SECOND));
        break;
    case 1:
        if (qemus.n > 0)
            qemus.all[pick(qemus.n)].die_at = sim.now;
        break;
    case 2:
        broker_ends(&brokers[side], chance(500) ? VF_ERROR_CANCELLED : VF_ERROR_TIMED_OUT);
        break;
    default:
        broker_goes(&brokers[side]);
        break;
    }
}

static void maybe_fault(void)
{
    /* Often at the beginning and at the end, where most is said; some in long transfers. */
    if (plan.faults == 0 || !faults_may_come() || !chance(12))
        return;
    plan.faults--;
    if (!plan.gentle && chance(300))
        hard_fault();
    else
        gentle_fault();
}

/* ---- Who starts what ---- */

static void maybe_connect(void)
{
    uint32_t stream;

    if (plan.channels == 0 || !chance(100))
        return;
    /* The main stream's first, for without it there is no migration. */
    stream = qemus.n == 0 ? 0 : (uint32_t)pick(plan.start.n_streams);
    if (broker_adds_qemu(&brokers[SOURCE], stream,
                         qemus.n == 0 ? 8 + spread(plan.size) : flow_size(plan.size)))
        plan.channels--;
    else if (brokers[SOURCE].has_result || brokers[SOURCE].fd < 0)
        plan.channels = 0;
}

static bool is_any_left(void)
{
    for (size_t i = 0; i < qemus.n; i++)
        if (qemus.all[i].side == SOURCE && qemus.all[i].given && !qemus.all[i].left)
            return true;
    return false;
}

/* Its time is up: a caller cancels, and where that does not help, does without a broker. */
static void give_up(unsigned times)
{
    if (times == 1) {
        check_farewell();
        broker_ends(&brokers[SOURCE], VF_ERROR_CANCELLED);
        broker_ends(&brokers[DESTINATION], VF_ERROR_CANCELLED);
    } else if (plan.gentle || times > 4) {
        fault("it does not come to an end: states %u and %u, results %d and %d", brokers[SOURCE].state,
              brokers[DESTINATION].state, brokers[SOURCE].has_result, brokers[DESTINATION].has_result);
    } else if (times > 2 && plan.goes) {
        broker_goes(&brokers[SOURCE]);
        broker_goes(&brokers[DESTINATION]);
    }
}

/* Every few seconds, once nothing goes wrong any more. */
static void manage(void)
{
    static const unsigned times_to_recover = 4, times_to_cancel = 12;
    static uint64_t at, began;
    static unsigned times, recovered;

    if (sim.steps == 1)
        at = times = recovered = 0, began = sim.now;
    if (sim.now > began + PATIENCE)
        plan.faults = plan.lies = plan.channels = 0;
    if (plan.faults > 0 || plan.channels > 0 || sim.now < at)
        return;
    at = sim.now + 7 * SECOND;
    times++;
    if (plan.gentle && times < 100)
        return;
    if (!plan.gentle && plan.recovers && recovered < times_to_recover && !is_any_left() && qemus.n > 0 &&
        qemus.n < QEMUS / 2) {
        recovered++;
        for (uint32_t i = 0; i < plan.start.n_streams; i++)
            broker_adds_qemu(&brokers[SOURCE], i, 8 + spread(plan.size));
        return;
    }
    if (times >= times_to_cancel)
        give_up(1 + (times - times_to_cancel) / 12);
}

/* ---- Turns ---- */

/* One thing of all that is due; false when nothing is. */
static bool turn(void)
{
    enum { MAX = QEMUS + 8 };
    struct {
        int what;
        struct qemu *qemu;
    } due[MAX];
    unsigned n = 0, which;

    for (int i = 0; i < 2; i++) {
        if (side_due(i) > 0)
            due[n++].what = i;
        if (broker_is_due(&brokers[i]))
            due[n++].what = 2 + i;
    }
    if (network_is_due())
        due[n++].what = 4;
    for (size_t i = 0; i < qemus.n; i++)
        if (qemu_is_due(&qemus.all[i])) {
            due[n].what = 5;
            due[n++].qemu = &qemus.all[i];
        }
    if (n == 0)
        return false;
    which = (unsigned)pick(n);
    switch (due[which].what) {
    case 0:
    case 1:
        side_turn(due[which].what);
        break;
    case 2:
    case 3:
        broker_turn(&brokers[due[which].what - 2]);
        break;
    case 4:
        network_turn();
        break;
    default:
        qemu_turn(due[which].qemu);
        break;
    }
    return true;
}

static void wait_for_next(void)
{
    uint64_t next = network_next();
    const struct conn *conn;

    for (int i = 0; i < 2; i++) {
        next = earlier(next, side_next(i));
        next = earlier(next, broker_next(&brokers[i]));
    }
    for (size_t i = 0; i < qemus.n; i++)
        next = earlier(next, qemu_next(&qemus.all[i]));
    TAILQ_FOREACH(conn, &kernel.conns, entry)
    {
        next = earlier(next, conn_next(conn));
    }
    if (next == NEVER)
        fault("nothing can happen any more");
    if (next > sim.now)
        sim.now = next;
}

static bool is_over(void)
{
    return !sides[SOURCE].event && !sides[DESTINATION].event && brokers[SOURCE].fd < 0 &&
           brokers[DESTINATION].fd < 0;
}

static void end(void)
{
    for (int i = 0; i < 2; i++)
        if (plan.gentle && (!brokers[i].has_result || brokers[i].error != VF_ERROR_NONE))
            fault("side %d ended with error %u: %s", i, brokers[i].error, brokers[i].text);
    check_farewell();
    network_end();
    for (size_t i = 0; i < qemus.n; i++)
        if (qemus.all[i].conn)
            conn_close(qemus.all[i].conn, 1);
    for (int i = 0; i < 2; i++) {
        struct channel_of_link *ends = &sides[i].ends;

        while (queue_head(&ends->to_helper))
            queue_drop(&ends->to_helper);
        while (queue_head(&ends->to_broker))
            queue_drop(&ends->to_broker);
    }
    kernel_end();
}

void world_run(uint64_t seed)
{
    sim_begin(seed);
    kernel_begin();
    network_begin();
    qemus_begin();
    make_plan();
    if (sim.fails != FAILS_NOTHING) { /* then a clear end is enough */
        plan.gentle = plan.quiet = false;
        plan.goes = true;
        plan.lies = sim.fails == FAILS_TRUTH ? 1 + (unsigned)pick(8) : 0;
    }
    tell("gentle %d, resume %ju µs, window %ju, %u faults, %u channels, size %ju", plan.gentle,
         (uintmax_t)plan.resume_timeout, (uintmax_t)plan.window, plan.faults, plan.channels,
         (uintmax_t)plan.size);
    for (int i = 0; i < 2; i++) {
        struct message_start_relay start = plan.start;

        broker_begin(i);
        lie_at_start(&start);
        side_start(i, &start, chance(500) ? 1 + (unsigned)pick(2) : 0);
        broker_offers(&brokers[i]);
    }
    while (!is_over()) {
        if (++sim.steps > STEPS_MAX)
            fault("it does not come to an end in %d steps", STEPS_MAX);
        maybe_connect();
        maybe_fault();
        maybe_lie();
        manage();
        if (!turn() && !is_over())
            wait_for_next();
        else if (chance(300))
            sim.now += pick(40);
        for (int i = 0; i < 2; i++)
            side_leaves(i);
    }
    end();
}
