/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/bus/record.h"
#include "ctl/bus/standing.h"
#include "ctl/terminal/meter.h"
#include "ctl/units.h"
#include "ctl/verbs/notify.h"
#include "ctl/verbs/watch-all.h"

/* ---- watch ---- */

static void show(struct meter *meter, json_object *record)
{
    struct progress progress;

    standing_progress(record, &progress);
    meter_update(meter, &progress);
}

static void summarize(struct ctl *ctl, json_object *record)
{
    char sent[UNITS_TEXT_MAX], received[UNITS_TEXT_MAX], took[UNITS_TEXT_MAX];
    char stood[UNITS_TEXT_MAX] = "";
    uint64_t started = record_number(record, "StartedUsec"), finished = record_number(record, "FinishedUsec"),
             downtime = record_number(record_object(record, "Details"), "downtime-usec");

    format_size(record_number(record, "BytesSent"), sent);
    format_size(record_number(record, "BytesReceived"), received);
    format_span(started, finished, took);
    if (downtime > 0)
        format_time(downtime, stood);
    ctl_say(ctl, "%s: %s%s%s%s%s; %s sent, %s received.", record_text(record, "Vm"), standing_outcome(record),
            took[0] ? " after " : "", took, downtime > 0 ? "; it stood still for " : "", stood, sent,
            received);
}

/* Shows one look. 1: it was the last one, 0, or -1. */
static int look(struct ctl *ctl, struct meter *meter, json_object *record, struct trouble *trouble)
{
    if (ctl->arguments.json != JSON_OFF) {
        record_print_json(ctl, record);
        if (ctl_flush(trouble) < 0)
            return -1;
    } else {
        show(meter, record);
    }
    if (!standing_is_finished(record))
        return 0;
    meter_clear(meter);
    if (ctl->arguments.json == JSON_OFF)
        summarize(ctl, record);
    return 1;
}

int verb_watch(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    uint64_t interval = ctl->arguments.json != JSON_OFF ? SECOND : SECOND / 4;
    struct meter meter;
    struct found found;
    int r;

    if (ctl->arguments.notify && ctl->arguments.n_operands > 0)
        return trouble_set(trouble, STATUS_USAGE, "--notify tells of all migrations of yours: name none.");
    if (ctl->arguments.notify)
        return notify_run(ctl, trouble);
    if (ctl->arguments.n_operands == 0)
        return watch_all(ctl, trouble);
    if (side_open(ctl, &side, trouble) < 0 ||
        find_one(&side, ctl->arguments.operands[0], &found, trouble) < 0 ||
        ctl_catch_signals(ctl, trouble) < 0)
        return -1;
    meter_open(&meter, ctl);
    while (ctl->interrupts == 0) {
        _cleanup_json_ json_object *record = NULL;

        if (record_read(&side, found.path, MIGRATION_INTERFACE, &record, trouble) < 0) {
            meter_clear(&meter);
            return -1;
        }
        r = look(ctl, &meter, record, trouble);
        if (r != 0)
            return r < 0 ? -1 : standing_judge(record, trouble);
        if (ctl_pause(ctl, interval, trouble) < 0)
            return -1;
    }
    meter_clear(&meter);
    return trouble_set(trouble, STATUS_FAILED, "Not watched any more; migration %s of VM '%s' goes on.",
                       found.id, found.vm);
}

/* ---- wait ---- */

/* Waits for one; its record is added to the list. Returns its status; -1: it was not waited for. */
static int wait_one(struct side *side, const char *operand, uint64_t end, json_object *list,
                    struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    _cleanup_(trouble_clear) struct trouble refused = {0};
    json_object *record = NULL;
    struct found found;
    char doing[400];
    uint64_t now = ctl_now();

    if (find_one(side, operand, &found, trouble) < 0 ||
        side_message(side, found.path, MIGRATION_INTERFACE, "Wait", &m, trouble) < 0)
        return -1;
    snprintf(doing, sizeof(doing), "Cannot wait for migration %s of VM '%s'", found.id, found.vm);
    if (side_send(side, m,
                  end == UINT64_MAX ? UINT64_MAX
                  : end > now       ? end - now
                                    : 1,
                  NULL, &refused, doing) < 0 &&
        refused.status == STATUS_DENIED)
        return trouble_set(trouble, STATUS_DENIED, "%s", refused.text);
    if (record_read(side, found.path, MIGRATION_INTERFACE, &record, trouble) < 0)
        return -1;
    json_object_array_add(list, record);
    if (standing_is_finished(record))
        return standing_judge(record, trouble);
    if (ctl_now() >= end)
        return trouble_set(trouble, STATUS_TIMED_OUT, "Migration %s of VM '%s' is still %s; it goes on.",
                           found.id, found.vm, record_text(record, "State"));
    return trouble_set(trouble, refused.status ? refused.status : STATUS_FAILED, "%s",
                       refused.text ? refused.text : "It cannot be waited for.");
}

int verb_wait(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_json_ json_object *list = json_object_new_array();
    uint64_t end = ctl->arguments.timeout > 0 ? ctl_now() + ctl->arguments.timeout : UINT64_MAX;
    int r = 0;

    if (side_open(ctl, &side, trouble) < 0)
        return -1;
    /* Each is waited for, also after one has failed; the first failure is the one that is told. */
    for (int i = 0; r >= 0 && i < ctl->arguments.n_operands; i++)
        r = wait_one(&side, ctl->arguments.operands[i], end, list, trouble);
    if (ctl->arguments.json != JSON_OFF) {
        record_print_json(ctl, list);
    } else if (!ctl->arguments.quiet) {
        for (size_t i = 0; i < json_object_array_length(list); i++) {
            json_object *record = json_object_array_get_idx(list, i);

            printf("%s %s %s\n", record_text(record, "Id"), record_text(record, "Vm"), standing_word(record));
        }
    }
    return r < 0 ? -1 : trouble->status;
}
