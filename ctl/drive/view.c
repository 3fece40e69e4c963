/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/view.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"
#include "ctl/bus/standing.h"
#include "ctl/drive/report.h"
#include "ctl/drive/sequence.h"

#define SILENT      (3 * SECOND)  /* for so long QEMU may be silent without it being said */
#define STANDS      (60 * SECOND) /* for so long nothing may arrive */
#define DIFFERS     (10 * SECOND) /* the same where the options of 'receive' are not known */
#define MANY_PASSES 5             /* over the memory, without an end */
#define AWAY_FIRST  (2 * SECOND)  /* for so long a host may be away without it being said */

static const char *phase_text(const struct drive *drive, json_object *record)
{
    if (drive->info.phase == QEMU_DONE)
        return "finishing"; /* it is done when both ends have said so */
    if (drive->info.phase == QEMU_PAUSED)
        return "paused";
    if (strcmp(record_text(record, "State"), "interrupted") == 0)
        return "interrupted";
    if (drive->info.phase == QEMU_POSTCOPY)
        return "post-copy";
    return strcmp(drive->info.status, "active") == 0 ? "pre-copy"
           : drive->info.status[0]                   ? drive->info.status
                                                     : "setup";
}

/* What is beside the progress, unless something is there already. */
static void note(struct drive *drive, json_object *record)
{
    const struct qemu_info *info = &drive->info;
    bool interrupted = strcmp(record_text(record, "State"), "interrupted") == 0;
    uint64_t sent = record_number(record, "BytesSent"), now = ctl_now();

    if (sent != drive->sent || interrupted || drive->sent_at == 0 || info->remaining == 0) {
        drive->sent = sent;
        drive->sent_at = now;
    }
    drive->note[0] = '\0';
    if (interrupted)
        snprintf(drive->note, sizeof(drive->note), "%.150s", standing_reason(record));
    else if (now >= drive->sent_at + STANDS && record_number(record, "RoundTripUsec") > 0)
        snprintf(
            drive->note, sizeof(drive->note),
            "nothing arrives, though the hosts hear each other: something on the way swallows large packets "
            "(MTU, firewall)%s",
            drive->ends->destination ? "" : ", or --multifd= differs");
    else if (!drive->ends->destination && now >= drive->sent_at + DIFFERS &&
             strcmp(info->status, "active") == 0)
        snprintf(drive->note, sizeof(drive->note),
                 "nothing arrives: was --multifd= given to 'receive' as here?");
    else if (info->phase == QEMU_PRECOPY && info->passes >= MANY_PASSES &&
             drive->ends->ctl->arguments.postcopy == POSTCOPY_NO)
        snprintf(
            drive->note, sizeof(drive->note),
            "pass %u: the guest writes faster than the link: --postcopy=auto, or a longer --downtime-limit=",
            (unsigned)info->passes);
}

void view_show(struct drive *drive, json_object *record)
{
    const struct qemu_info *info = &drive->info;
    bool silent = drive->note[0] != '\0';
    struct progress progress = {
        .vm = drive->ends->vm,
        .phase = phase_text(drive, record),
        .fraction = info->total > 0 ? 1 - (double)info->remaining / (double)info->total : -1,
        .bytes = record_number(record, "BytesSent"),
        .rate = record_number(record, "Rate"),
        .has_memory = info->total > 0,
        .dirty = info->phase == QEMU_PRECOPY ? info->dirty : 0,
        .remaining = info->remaining,
        .reconnects = (uint32_t)record_number(record, "Reconnects"),
        .note = drive->note[0] ? drive->note : NULL,
    };

    if (!silent) {
        note(drive, record);
        progress.note = drive->note[0] ? drive->note : NULL;
    }
    if (info->total > 0 && info->transferred == 0)
        progress.fraction = 0; /* nothing is remaining yet either */
    snprintf(drive->shown, sizeof(drive->shown), "%s", progress.phase);
    sequence_show(drive, &progress);
    meter_update(&drive->meter, &progress);
    drive_report_progress(drive);
    drive->note[0] = '\0';
}

/* QEMU does not answer. It is waited for, until Ctrl-C says otherwise: see qmp_be_patient(). */
static bool on_silent(struct qmp *qmp, uint64_t usec, void *userdata)
{
    struct drive *drive = userdata;
    bool there = qmp == drive->ends->destination_qmp;
    _cleanup_json_ json_object *record = NULL;

    if (drive->ends->ctl->interrupts > 0 && drive->asked)
        return usec < SECOND; /* there is nothing to cancel */
    if (drive->ends->ctl->interrupts > 0 && !drive->held_up) {
        meter_clear(&drive->meter);
        ctl_say(
            drive->ends->ctl,
            "QEMU%s%s does not answer at the moment. VM '%s' is not cancelled before it does; Ctrl-C once "
            "more leaves the migration to itself.",
            there ? " at " : "", there ? drive->ends->host : "", drive->ends->vm);
        drive->held_up = true;
    }
    if (usec < SILENT)
        return true;
    snprintf(drive->note, sizeof(drive->note), "QEMU%s%.80s has not answered for %u s", there ? " at " : "",
             there ? drive->ends->host : "", (unsigned)(usec / SECOND));
    if (tunnel_read(&drive->ends->tunnel, &record, NULL) < 0)
        record = json_object_new_object();
    view_show(drive, record);
    drive->note[0] = '\0';
    return true;
}

void view_be_patient(struct drive *drive, struct qmp *qmp)
{
    qmp_be_patient(qmp, on_silent, drive);
}

static void let_go(struct qmp *qmp)
{
    if (qmp)
        qmp_be_patient(qmp, NULL, NULL);
}

void view_let_go(struct drive *drive)
{
    let_go(drive->ends->qmp);
    let_go(drive->ends->destination_qmp);
}

/* ---- A host is away ---- */

/* Asks nothing, for it runs inside of the loop. */
static void show_away(struct drive *drive)
{
    const struct away *away = &drive->away;
    const struct qemu_info *info = &drive->info;
    struct progress progress = {
        .vm = drive->ends->vm,
        .phase = "unreachable",
        .fraction = info->total > 0 ? 1 - (double)info->remaining / (double)info->total : -1,
        .bytes = drive->sent,
        .has_memory = info->total > 0,
        .remaining = info->remaining,
        .note = drive->note,
    };

    snprintf(drive->note, sizeof(drive->note), "no connection to %.50s for %u s, trying again%s%.70s%s",
             away->host, (unsigned)((ctl_now() - away->since) / SECOND), away->why[0] ? " (" : "", away->why,
             away->why[0] ? ")" : "");
    snprintf(drive->shown, sizeof(drive->shown), "%s", progress.phase);
    sequence_show(drive, &progress);
    meter_update(&drive->meter, &progress);
    drive->note[0] = '\0';
}

static int on_away(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct drive *drive = userdata;

    show_away(drive);
    sd_event_source_set_time_relative(source, SECOND);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

void view_away(struct drive *drive, const char *host, const char *why)
{
    struct away *away = &drive->away;

    message_text_set(away->why, sizeof(away->why), why ? why : "");
    if (away->timer)
        return;
    away->host = host;
    away->since = ctl_now();
    sd_event_add_time_relative(drive->ends->ctl->event, &away->timer, CLOCK_MONOTONIC, AWAY_FIRST, 0, on_away,
                               drive);
}

void view_back(struct drive *drive)
{
    drive->away.timer = sd_event_source_disable_unref(drive->away.timer);
}
