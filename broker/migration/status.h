/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a migration has come to, beside its identity: for the bus, which only reads it. */

#include <stdint.h>

#include "broker/migration/identity.h"
#include "broker/migration/report.h"
#include "common/error.h"
#include "common/message.h"

struct migration_status {
    enum vf_result result;
    char *message; /* owned; why it ended as it did, or is interrupted; NULL: nothing to say */
    char *ticket;  /* owned; incoming, until a peer has come: the text, for the same client-id again */
    char peer[MESSAGE_ADDRESS_MAX];
    uint64_t finished; /* µs, CLOCK_REALTIME */
    uint64_t gives_up; /* the same: when an interrupted one gives QEMU's connections up; 0: it is not
                          interrupted */
    struct report report;
};

/* What ErrorName and ErrorMessage say: why it ended, or why it is interrupted. Copies text, which is not used
 * for VF_ERROR_NONE. */
void status_set_error(struct migration_status *status, struct identity *identity, enum vf_error error,
                      const char *text);

/* It has served, or serves nobody any more. */
void status_drop_ticket(struct migration_status *status);
