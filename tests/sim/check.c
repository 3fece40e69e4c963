/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check.h"

#include "common/error.h"
#include "common/message.h"
#include "qemu.h"
#include "side.h"
#include "world.h"

enum { FDS_OF_HELPER = 12, FDS_OF_CHANNEL = 5 };

/* The last that was given up, of each stream; and the last that came to a good end. Numbers of connections at
 * the source, in their order. */
struct ledger {
    uint32_t lost[MESSAGE_STREAMS_MAX];
    uint32_t good[MESSAGE_STREAMS_MAX];
};

static void add(struct ledger *ledger, const struct qemu *qemu, int side)
{
    const struct qemu *at_source = qemu->side == SOURCE ? qemu : qemu->mate;

    if (qemu_is_complete(qemu)) {
        if (qemu->side == SOURCE)
            ledger->good[qemu->stream] = qemu->id;
        return;
    }
    if (!qemu->given || !qemu_has_carried(qemu))
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
    if (m->result.error == VF_ERROR_NONE)
        check_done(side);
    /* Both keep to the protocol, and no process fails. */
    if (m->result.error == VF_ERROR_PROTOCOL_MISMATCH ||
        (m->result.error == VF_ERROR_HELPER_FAILED && !plan.goes))
        fault("side %d ends with what cannot be: %s", side, m->result.text);
}
