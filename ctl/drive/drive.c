/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/drive.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/arrival.h"
#include "ctl/drive/recover.h"
#include "ctl/units.h"

#define LOOK       (SECOND / 4)
#define GRACE      (10 * SECOND) /* for QEMU to leave 'postcopy-paused' after it was told to resume */
#define END_WAIT   (30 * SECOND)
#define SILENT     (3 * SECOND) /* for so long QEMU may be silent without it being said */
#define AUTO_AFTER 4 /* the pass over the memory with which it is clear that pre-copy does not end */

/* ---- What is shown ---- */

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

static void show(struct drive *drive, json_object *record)
{
    const struct qemu_info *info = &drive->info;
    struct progress progress = {
        .vm = drive->vm,
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

    if (info->total > 0 && info->transferred == 0)
        progress.fraction = 0; /* nothing is remaining yet either */
    meter_update(&drive->meter, &progress);
}

/* QEMU does not answer. It is waited for, until Ctrl-C says otherwise: see qmp_be_patient(). */
static bool on_silent(struct qmp *qmp, uint64_t usec, void *userdata)
{
    struct drive *drive = userdata;
    bool there = qmp == drive->destination_qmp;
    _cleanup_json_ json_object *record = NULL;

    if (drive->ctl->interrupts > 0 && drive->asked)
        return usec < SECOND; /* there is nothing to cancel */
    if (drive->ctl->interrupts > 0 && !drive->held_up) {
        meter_clear(&drive->meter);
        ctl_say(
            drive->ctl,
            "QEMU%s%s does not answer at the moment. VM '%s' is not cancelled before it does; Ctrl-C once "
            "more leaves the migration to itself.",
            there ? " at " : "", there ? drive->host : "", drive->vm);
        drive->held_up = true;
    }
    if (usec < SILENT)
        return true;
    snprintf(drive->note, sizeof(drive->note), "QEMU%s%.80s has not answered for %u s", there ? " at " : "",
             there ? drive->host : "", (unsigned)(usec / SECOND));
    if (tunnel_read(&drive->tunnel, &record, NULL) < 0)
        record = json_object_new_object();
    show(drive, record);
    drive->note[0] = '\0';
    return true;
}

void drive_be_patient(struct drive *drive, struct qmp *qmp)
{
    qmp_be_patient(qmp, on_silent, drive);
}

/* ---- The ends of it ---- */

static void print_json(struct drive *drive, json_object *record)
{
    json_object *qemu = json_object_new_object();

    json_object_object_add(qemu, "Status", json_object_new_string(drive->info.status));
    json_object_object_add(qemu, "TotalMsec", json_object_new_uint64(drive->info.total_msec));
    json_object_object_add(qemu, "DowntimeMsec", json_object_new_uint64(drive->info.downtime_msec));
    json_object_object_add(qemu, "Transferred", json_object_new_uint64(drive->info.transferred));
    json_object_object_add(qemu, "SourceRunState",
                           drive->state[0] ? json_object_new_string(drive->state) : NULL);
    json_object_object_add(qemu, "RunState",
                           drive->arrived[0] ? json_object_new_string(drive->arrived) : NULL);
    json_object_object_add(record, "Qemu", qemu);
    record_print_json(drive->ctl, record);
}

/* The source says that the VM has moved, the destination does not. */
static int end_astray(struct drive *drive, enum arrival arrival, struct trouble *trouble)
{
    char why[160];

    if (qmp_is_open(drive->destination_qmp) && drive->arrived[0])
        snprintf(why, sizeof(why), "says that it is '%s'", drive->arrived);
    else
        snprintf(why, sizeof(why), "does not answer any more");
    return trouble_set(trouble, STATUS_FAILED,
                       "QEMU at the source says that VM '%s' has moved, but the one at %s %s%s. Look at its "
                       "log, and whether "
                       "the VM runs there, before you start it anywhere.",
                       drive->vm, drive->host, why,
                       arrival == ARRIVAL_FAILED ? ", and that the migration has failed" : "");
}

static void summarize(struct drive *drive, json_object *record, bool confirmed)
{
    char took[UNITS_TEXT_MAX], stood[UNITS_TEXT_MAX], sent[UNITS_TEXT_MAX];

    format_time(drive->info.total_msec * 1000, took);
    format_time(drive->info.downtime_msec * 1000, stood);
    format_size(record ? record_number(record, "BytesSent") : drive->info.transferred, sent);
    ctl_say(drive->ctl, "%s: done after %s; it stood still for %s; %s sent.%s%s", drive->vm, took, stood,
            sent, drive->arrived[0] ? " At the destination it is " : "", drive->arrived);
    if (!confirmed)
        ctl_say(drive->ctl, "The tunnel could not confirm it (%s); QEMU has.",
                record && record_text(record, "ErrorMessage")[0] ? record_text(record, "ErrorMessage")
                                                                 : "no answer");
}

static int end_done(struct drive *drive, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    enum arrival arrival = arrival_wait(drive);
    int settled = arrival == ARRIVAL_DONE ? arrival_settle(drive, trouble) : 0;
    int finished = tunnel_wait_finished(&drive->tunnel, END_WAIT, &record, NULL);

    qemu_before_clear(&drive->before);
    qemu_before_clear(&drive->destination_before);
    meter_clear(&drive->meter);
    if (drive->destination_qmp && arrival != ARRIVAL_DONE)
        settled = end_astray(drive, arrival, trouble);
    if (settled >= 0)
        summarize(drive, record,
                  finished > 0 && record && strcmp(record_text(record, "Result"), "done") == 0);
    if (drive->ctl->arguments.json != JSON_OFF && record)
        print_json(drive, record);
    return settled < 0 ? -1 : STATUS_DONE;
}

/* After a pre-copy that did not succeed: where the VM is, as QEMU says. */
static void tell_where(struct drive *drive, char ret[static 96])
{
    char state[32];

    if (qemu_run_state(drive->qmp, state, NULL) < 0)
        snprintf(ret, 96, "QEMU at the source does not answer any more");
    else if (strcmp(state, "running") == 0)
        snprintf(ret, 96, "it runs on at the source");
    else
        snprintf(ret, 96, "at the source QEMU says that it is '%s'", state);
}

static int end_failed(struct drive *drive, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    char where[96];
    const char *why = "", *hint = qemu_hint_at_owner(drive->info.error);
    int status = drive->info.phase == QEMU_CANCELLED ? STATUS_CANCELLED : STATUS_FAILED;

    meter_clear(&drive->meter);
    /* Where the tunnel was the reason, it has one; else it learns now. */
    if (tunnel_wait_finished(&drive->tunnel, SECOND, &record, NULL) <= 0) {
        tunnel_cancel(&drive->tunnel);
    } else {
        why = record_text(record, "ErrorMessage");
        if (trouble_status_of(record_text(record, "Result"), record_text(record, "ErrorName")) ==
            STATUS_CANCELLED)
            status = STATUS_CANCELLED; /* by another client, at either end */
    }
    tell_where(drive, where);
    drive_undo(drive);
    return trouble_set(trouble, status, "VM '%s' was not moved; %s. QEMU says: %s%s%s%s%s", drive->vm, where,
                       drive->info.error[0] ? drive->info.error : drive->info.status, hint,
                       hint[0] ? "" : ".", why[0] ? " The tunnel says: " : "", why);
}

/* QEMU does not answer, and was left for Ctrl-C. Where the VM will be is for QEMU to say: nothing is cut. */
static int end_silent(struct drive *drive, struct trouble *trouble)
{
    char silent[UNITS_TEXT_MAX];

    trouble_clear(trouble);
    meter_clear(&drive->meter);
    if (drive->peers)
        peers_leave(drive->peers);
    drive->peers = NULL;
    format_time(qmp_silence(drive->qmp), silent);
    return trouble_set(trouble, STATUS_FAILED,
                       "%s has not answered for %s. The migration of VM '%s' is not cancelled: it goes on by "
                       "itself, and where the VM is then only the two QEMUs know (query-status). 'vmferryctl "
                       "watch %s' shows the tunnel.",
                       qmp_name(drive->qmp), silent, drive->vm, tunnel_id(&drive->tunnel));
}

/* Before post-copy: QEMU gives up, and the VM stays where it is. */
static int end_cancelled(struct drive *drive, struct trouble *trouble)
{
    char where[96];

    meter_clear(&drive->meter);
    ctl_say(drive->ctl, "Cancelling …");
    qmp_execute(drive->qmp, "migrate_cancel", NULL, NULL, NULL);
    for (uint64_t end = ctl_now() + END_WAIT; ctl_now() < end && drive->ctl->interrupts < 3;) {
        if (qemu_query(drive->qmp, &drive->info, NULL) < 0 || drive->info.phase >= QEMU_DONE)
            break;
        ctl_turn(drive->ctl, SECOND / 20, NULL);
    }
    if (drive->info.phase == QEMU_DONE)
        return end_done(drive, trouble); /* it was too late */
    if (qmp_silence(drive->qmp) > 0)
        return end_silent(drive, trouble);
    tunnel_cancel(&drive->tunnel);
    tell_where(drive, where);
    drive_undo(drive);
    return trouble_set(trouble, STATUS_CANCELLED, "Cancelled: VM '%s' was not moved; %s.", drive->vm, where);
}

/* After post-copy has begun: nothing is stopped. */
static int end_detached(struct drive *drive, struct trouble *trouble)
{
    const char *id = tunnel_id(&drive->tunnel);

    meter_clear(&drive->meter);
    if (drive->peers)
        peers_leave(drive->peers);
    drive->peers = NULL;
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' is in post-copy, where a cancel would lose it: the migration goes on by itself. "
        "'vmferryctl watch %s' shows it; should it pause, %s recovers it.",
        drive->vm, id,
        drive->destination ? "'vmferryctl migrate … --resume'"
                           : "'vmferryctl receive … --resume' at the destination and then "
                             "'vmferryctl send … --resume' here");
}

/* QEMU cannot be spoken to any more. */
static int end_lost(struct drive *drive, struct trouble *trouble)
{
    struct trouble why;

    if (qmp_silence(drive->qmp) > 0)
        return end_silent(drive, trouble);
    why = *trouble;
    *trouble = (struct trouble){0};
    meter_clear(&drive->meter);
    if (drive->asked) {
        if (drive->peers)
            peers_leave(drive->peers);
        drive->peers = NULL;
        trouble_set(trouble, STATUS_FAILED,
                    "%s Post-copy has begun: the migration goes on without vmferryctl "
                    "('vmferryctl watch %s').",
                    why.text ? why.text : "", tunnel_id(&drive->tunnel));
    } else {
        qmp_execute(drive->qmp, "migrate_cancel", NULL, NULL, NULL);
        tunnel_cancel(&drive->tunnel);
        drive_undo(drive);
        trouble_set(trouble, why.status, "%s The migration is cancelled.", why.text ? why.text : "");
    }
    trouble_clear(&why);
    return -1;
}

/* ---- The way there ---- */

static bool postcopy_is_wanted(const struct drive *drive)
{
    const struct arguments *a = &drive->ctl->arguments;

    if (drive->asked || strcmp(drive->info.status, "active") != 0)
        return false;
    switch (a->postcopy) {
    case POSTCOPY_NOW:
        return drive->info.transferred > 0;
    case POSTCOPY_AFTER:
        return ctl_now() >= drive->since + a->postcopy_after;
    case POSTCOPY_AUTO:
        return drive->info.passes >= AUTO_AFTER;
    default:
        return false;
    }
}

static bool postcopy_is_due(struct drive *drive)
{
    if (!postcopy_is_wanted(drive))
        return false;
    if (strcmp(drive->state, "running") == 0)
        return true;
    if (!drive->left_out) {
        meter_clear(&drive->meter);
        ctl_say(drive->ctl, "%s: it is '%s', and goes without post-copy, which would let it run.", drive->vm,
                drive->state);
        drive->left_out = true;
    }
    return false;
}

/* The VM's run state, as long as it is at the source: the hand-over has states of its own. */
static int read_state(struct drive *drive, struct trouble *trouble)
{
    char state[32];

    if (qemu_run_state(drive->qmp, state, trouble) < 0)
        return -1;
    if (strcmp(state, "finish-migrate") != 0 && strcmp(state, "postmigrate") != 0)
        memcpy(drive->state, state, sizeof(state));
    return 0;
}

/* Waits for the next look: some time, news of QEMU's, or Ctrl-C. */
static int pause_for(struct drive *drive, struct trouble *trouble)
{
    unsigned events = qmp_events(drive->qmp);

    for (uint64_t now = ctl_now(), end = now + LOOK; now < end; now = ctl_now()) {
        if (drive->ctl->interrupts > 0 || drive->ctl->resized || events != qmp_events(drive->qmp) ||
            !qmp_is_open(drive->qmp))
            break;
        if (ctl_turn(drive->ctl, end - now, trouble) < 0)
            return -1;
    }
    return 0;
}

/* Looks at both, shows it. -1 where QEMU is lost; a broker that is away leaves the record NULL. */
static int look(struct drive *drive, json_object **ret, struct trouble *trouble)
{
    if (qemu_query(drive->qmp, &drive->info, trouble) < 0 ||
        (drive->info.phase == QEMU_PRECOPY && !drive->asked && read_state(drive, trouble) < 0))
        return -1;
    if (tunnel_read(&drive->tunnel, ret, NULL) < 0)
        *ret = json_object_new_object();
    show(drive, *ret);
    if (drive->peers && strcmp(record_text(*ret, "State"), "interrupted") == 0)
        peers_mend(drive->peers);
    return 0;
}

/* It is paused: recovers it, where that was asked for. 1: go on looking. */
static int on_paused(struct drive *drive, struct trouble *trouble)
{
    if (ctl_now() < drive->since + GRACE && drive->resume)
        return 1; /* it was told to resume a moment ago, and says so late */
    if (drive->ctl->arguments.postcopy == POSTCOPY_AUTO) {
        drive->resume = true;
        recover_try(drive);
        return 1;
    }
    meter_clear(&drive->meter);
    return trouble_set(
        trouble, STATUS_FAILED,
        "The post-copy of VM '%s' is paused: the connection was lost (%s). The VM stands still, and nothing "
        "is lost. When the network is back, recover it: %s.",
        drive->vm, drive->info.error[0] ? drive->info.error : "QEMU gives no reason",
        drive->destination ? "the same command with --resume"
                           : "'vmferryctl receive … --resume' at the destination, then "
                             "'vmferryctl send … --resume' here");
}

/* Tells QEMU to go, and how it is with the VM then. */
static int begin(struct drive *drive, struct trouble *trouble)
{
    drive_be_patient(drive, drive->qmp);
    if (drive->destination_qmp)
        drive_be_patient(drive, drive->destination_qmp);
    meter_open(&drive->meter, drive->ctl);
    drive->asked = drive->resume;
    drive->since = ctl_now();
    if (tunnel_check_socket(&drive->tunnel, qmp_uid(drive->qmp), trouble) < 0 ||
        (!drive->resume && read_state(drive, trouble) < 0) ||
        qemu_migrate(drive->qmp, drive->tunnel.socket, drive->resume, trouble) < 0) {
        drive_undo(drive);
        return -1;
    }
    return 0;
}

static int drive_on(struct drive *drive, struct trouble *trouble)
{
    for (;;) {
        _cleanup_json_ json_object *record = NULL;

        if (look(drive, &record, trouble) < 0)
            return end_lost(drive, trouble);
        switch (drive->info.phase) {
        case QEMU_DONE:
            return end_done(drive, trouble);
        case QEMU_FAILED:
        case QEMU_CANCELLED:
            return end_failed(drive, trouble);
        case QEMU_PAUSED:
            if (drive->ctl->interrupts > 0)
                return end_detached(drive, trouble);
            if (on_paused(drive, trouble) < 0)
                return -1;
            break;
        case QEMU_POSTCOPY:
            drive->asked = true;
            drive->told = false;
            arrival_begin(drive);
            break;
        default:
            break;
        }
        if (drive->ctl->interrupts > 0)
            return drive->asked ? end_detached(drive, trouble) : end_cancelled(drive, trouble);
        if (postcopy_is_due(drive)) {
            /* From the moment it is asked QEMU may begin: what would cancel must not come after. */
            drive->asked = true;
            if (qmp_execute(drive->qmp, "migrate-start-postcopy", NULL, NULL, trouble) < 0)
                return end_lost(drive, trouble);
            continue;
        }
        if (pause_for(drive, trouble) < 0)
            return end_lost(drive, trouble);
    }
}

int drive_run(struct drive *drive, struct trouble *trouble)
{
    int r = begin(drive, trouble);

    if (r >= 0)
        r = drive_on(drive, trouble);
    meter_clear(&drive->meter);
    return r;
}

void drive_undo(struct drive *drive)
{
    if (!drive->found) {
        tunnel_cancel(&drive->tunnel);
        tunnel_cancel(&drive->destination_tunnel);
    }
    if (drive->qmp)
        qemu_restore(drive->qmp, &drive->before);
    if (drive->destination_qmp)
        qemu_restore(drive->destination_qmp, &drive->destination_before);
}

void drive_clear(struct drive *drive)
{
    tunnel_clear(&drive->tunnel);
    tunnel_clear(&drive->destination_tunnel);
    qemu_before_clear(&drive->before);
    qemu_before_clear(&drive->destination_before);
    peers_free(drive->peers);
    qmp_free(drive->qmp);
    qmp_free(drive->destination_qmp);
    *drive = (struct drive){0};
}
