/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/sequence.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/internal.h"

static void add_text(json_object *object, const char *name, const char *text)
{
    json_object_object_add(object, name, text && text[0] ? json_object_new_string(text) : NULL);
}

void sequence_show(struct drive *drive, const struct progress *progress)
{
    _cleanup_json_ json_object *object = NULL;
    uint64_t now = ctl_now();

    if (drive->ends->ctl->arguments.json != JSON_SEQUENCE ||
        (drive->printed_at > 0 && now < drive->printed_at + SECOND))
        return;
    drive->printed_at = now;
    object = json_object_new_object();
    add_text(object, "Vm", progress->vm);
    add_text(object, "Phase", progress->phase);
    json_object_object_add(object, "Progress", json_object_new_double(progress->fraction));
    json_object_object_add(object, "BytesSent", json_object_new_uint64(progress->bytes));
    json_object_object_add(object, "Rate", json_object_new_uint64(progress->rate));
    json_object_object_add(object, "Remaining", json_object_new_uint64(progress->remaining));
    json_object_object_add(object, "DirtyRate", json_object_new_uint64(progress->dirty));
    json_object_object_add(object, "Pass", json_object_new_uint64(drive->info.passes));
    json_object_object_add(object, "Reconnects", json_object_new_uint64(progress->reconnects));
    add_text(object, "Note", progress->note);
    record_print_json(drive->ends->ctl, object);
    fflush(stdout);
}

static void add_state(json_object *object, const char *name, struct qmp *qmp)
{
    char state[32] = "";

    if (qmp && qmp_is_open(qmp) && qemu_run_state(qmp, state, NULL) < 0)
        state[0] = '\0';
    add_text(object, name, state);
}

static const char *name_of(int status)
{
    static const char *const names[] = {
        [STATUS_FAILED] = "failed",       [STATUS_USAGE] = "usage",   [STATUS_CANCELLED] = "cancelled",
        [STATUS_TIMED_OUT] = "timed-out", [STATUS_DENIED] = "denied", [STATUS_BOTH_RUN] = "both-run",
    };

    return status > 0 && (size_t)status < sizeof(names) / sizeof(names[0]) ? names[status] : "failed";
}

void sequence_fail(struct ends *ends, struct drive *drive, const char *phase, const struct trouble *trouble)
{
    _cleanup_json_ json_object *object = NULL;

    if (ends->ctl->arguments.json == JSON_OFF || ends->reported)
        return;
    ends->reported = true;
    object = json_object_new_object();
    add_text(object, "Vm", ends->vm);
    add_text(object, "Phase", phase);
    json_object_object_add(object, "Final", json_object_new_boolean(true));
    json_object_object_add(object, "ExitStatus",
                           json_object_new_int(trouble->status ? trouble->status : STATUS_FAILED));
    add_text(object, "Error", name_of(trouble->status));
    add_text(object, "ErrorMessage", trouble->text);
    add_state(object, "Source", ends->qmp);
    add_state(object, "Destination", ends->destination_qmp);
    if (drive)
        add_text(object, "Status", drive->info.status);
    record_print_json(ends->ctl, object);
}
