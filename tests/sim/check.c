/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check.h"

#include "broker.h"
#include "common/error.h"
#include "common/message.h"
#include "qemu.h"
#include "side.h"
#include "world.h"

enum { FDS_OF_HELPER = 12, FDS_OF_CHANNEL = 5, REST_SPARED = 1344 };

#define PATIENCE_FAREWELL (60 * SECOND) /* in which a source that was cancelled has told its peer */

/* The last that was given up, of each stream; and the last that came to a good end. Numbers of connections at
 * the source, in their order. */
struct ledger {
    uint32_t lost[MESSAGE_STREAMS_MAX];
    uint32_t good[MESSAGE_STREAMS_MAX];
};

/* What QEMU left unread beside the main connection of its stream, which ended well: break-off.h. */
static bool is_spared(const struct qemu *qemu)
{
    const struct qemu *there = qemu->side == DESTINATION ? qemu : qemu->mate, *here;

    if (!there || !there->mate || there->conn)
        return false;
    here = there->mate;
    if (!here->shut || here->taken != here->written || here->written - there->received > REST_SPARED)
        return false;
    for (size_t i = 0; i < qemus.n && qemus.all[i].id < here->id; i++)
        if (qemus.all[i].side == SOURCE && qemus.all[i].stream == here->stream &&
            qemu_is_complete(&qemus.all[i]))
            return true;
    return false;
}

static void add(struct ledger *ledger, const struct qemu *qemu, int side)
{
    const struct qemu *at_source = qemu->side == SOURCE ? qemu : qemu->mate;

    if (qemu_is_complete(qemu)) {
        if (qemu->side == SOURCE)
            ledger->good[qemu->stream] = qemu->id;
        return;
    }
    if (!qemu->given || !qemu_has_carried(qemu) || is_spared(qemu))
        return;
    if (!qemu->dropped)
        fault("side %d says that it is done, and QEMU's connection %u is neither whole nor given up", side,
              qemu->id);
    if (at_source && at_source->id > ledger->lost[qemu->stream])
        ledger->lost[qemu->stream] = at_source->id;
}

/* What is done is delivered, or was delivered anew. */
static void check_done(int side)
{
    struct ledger ledger = {0};

    for (size_t i = 0; i < qemus.n; i++)
        add(&ledger, &qemus.all[i], side);
    if (ledger.good[0] == 0)
        fault("side %d says that it is done, and nothing was", side);
    for (uint32_t i = 0; i < plan.start.n_streams; i++)
        if (ledger.lost[i] > ledger.good[i])
            fault("side %d says that it is done, and QEMU's connection %u has nothing in its place", side,
                  ledger.lost[i]);
}

void check_message(int side, const void *data)
{
    const union message *m = data;

    if (m->header.type != MESSAGE_RESULT)
        return;
    if (fd_count(side) > FDS_OF_HELPER + FDS_OF_CHANNEL * 16)
        fault("side %d has %u descriptors", side, fd_count(side));
    if (sim.has_lied)
        return;
    if (m->result.error == VF_ERROR_NONE)
        check_done(side);
    /* Both keep to the protocol, and no process fails. */
    if (m->result.error == VF_ERROR_PROTOCOL_MISMATCH ||
        (m->result.error == VF_ERROR_HELPER_FAILED && !plan.goes))
        fault("side %d ends with what cannot be: %s", side, m->result.text);
}

void check_farewell(void)
{
    const struct broker *source = &brokers[SOURCE], *destination = &brokers[DESTINATION];
    bool was_in_vain =
        destination->has_result && (!source->has_result || destination->result_at <= source->result_at);

    if (!source->has_farewell || source->faults_left != plan.faults || plan.goes || sim.has_failed ||
        was_in_vain)
        return;
    if (!source->has_result && sim.now < source->ended_at + PATIENCE_FAREWELL)
        return;
    if (!source->has_result || !destination->has_result || destination->error == VF_ERROR_INTERRUPTED)
        fault("the source was cancelled while it was cut off, and has not told the destination");
}
