/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void status_set_error(struct migration_status *status, struct identity *identity, enum vf_error error,
                      const char *text)
{
    char *message = NULL;

    identity->error = error;
    free(status->message);
    status->message = NULL;
    if (error != VF_ERROR_NONE &&
        asprintf(&message, "Migration %s of VM '%s': %s", identity->id_text, identity->vm, text) >= 0)
        status->message = message;
}

void status_drop_ticket(struct migration_status *status)
{
    if (status->ticket)
        explicit_bzero(status->ticket, strlen(status->ticket));
    free(status->ticket);
    status->ticket = NULL;
}
