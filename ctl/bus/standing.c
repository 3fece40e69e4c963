/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/standing.h"

#include <string.h>

bool standing_is_finished(json_object *record)
{
    return strcmp(record_text(record, "State"), "finished") == 0;
}

const char *standing_outcome(json_object *record)
{
    const char *outcome = record_text(record, "Outcome"), *result = record_text(record, "Result");

    if (outcome[0] != '\0')
        return outcome;
    return strcmp(result, "done") == 0 ? "carried" : result;
}

const char *standing_word(json_object *record)
{
    const char *state = record_text(record, "State"), *phase = record_text(record, "Phase");

    if (standing_is_finished(record))
        return standing_outcome(record);
    return phase[0] == '\0' || strcmp(state, "interrupted") == 0 ? state : phase;
}

const char *standing_reason(json_object *record)
{
    const char *text = record_text(record, "ErrorMessage"), *at = strstr(text, "': ");

    return strncmp(text, "Migration ", 10) == 0 && at ? at + 3 : text;
}

int standing_judge(json_object *record, struct trouble *trouble)
{
    const char *outcome = record_text(record, "Outcome"), *error = record_text(record, "ErrorMessage");
    const char *reason = record_text(record_object(record, "Details"), "reason");
    int status = trouble_status_of(record_text(record, "Result"), record_text(record, "ErrorName"));

    if (strcmp(outcome, "moved") == 0)
        return STATUS_DONE;
    if (outcome[0] == '\0' && status == STATUS_DONE)
        return STATUS_DONE;
    if (strcmp(outcome, "lost") == 0 || strcmp(outcome, "unknown") == 0 || status == STATUS_DONE)
        status = STATUS_FAILED;
    if (outcome[0] == '\0')
        trouble_set(trouble, status, "%s", error[0] ? error : "It failed.");
    else
        trouble_set(trouble, status, "Migration %s of VM '%s': %s%s%s", record_text(record, "Id"),
                    record_text(record, "Vm"), outcome, reason[0] ? ": " : "", reason);
    return status;
}

void standing_progress(json_object *record, struct progress *ret)
{
    json_object *details = record_object(record, "Details");
    bool incoming = strcmp(record_text(record, "Role"), "incoming") == 0;
    bool disks = strcmp(record_text(record, "Phase"), "disks") == 0;
    uint64_t total = record_number(details, disks ? "disk-total" : "memory-total");

    *ret = (struct progress){
        .vm = record_text(record, "Vm"),
        .phase = standing_word(record),
        .fraction = standing_is_finished(record) ? -1 : record_real(record, "Progress"),
        .done = strcmp(standing_word(record), "moved") == 0,
        .bytes = record_number(record, incoming ? "BytesReceived" : "BytesSent"),
        .rate = record_number(record, "Rate"),
        .has_memory = total > 0 && !standing_is_finished(record),
        .dirty = disks ? 0 : record_number(details, "dirty-rate"),
        .remaining = record_number(details, disks ? "disk-remaining" : "memory-remaining"),
        .reconnects = (uint32_t)record_number(record, "Reconnects"),
    };
}
