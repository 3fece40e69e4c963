/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/outcome.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/standing.h"
#include "ctl/drive/arrival.h"
#include "ctl/drive/handover.h"
#include "ctl/drive/loss.h"
#include "ctl/drive/report.h"
#include "ctl/drive/whereabouts.h"
#include "ctl/units.h"

#define END_WAIT (30 * SECOND)

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
    if (drive->ends->ctl->arguments.json == JSON_SEQUENCE)
        json_object_object_add(record, "Final", json_object_new_boolean(true));
    drive->ends->reported = true;
    record_print_json(drive->ends->ctl, record);
}

/*
 * The source says that the VM has moved, the destination does not. As long as that one was not told to start
 * it, the VM is at the source as it was: QEMU there goes on with 'cont', also after 'completed'.
 */
static int end_astray(struct drive *drive, enum arrival arrival, struct trouble *trouble)
{
    char why[160], then[400];

    if (qmp_is_open(drive->ends->destination_qmp) && drive->arrived[0])
        snprintf(why, sizeof(why), "says that it is '%s'%s", drive->arrived,
                 arrival == ARRIVAL_FAILED ? ", and that the migration has failed" : "");
    else
        whereabouts_of_silent(drive->ends->destination_qmp, why);
    if (handover_holds(drive) && !drive->ends->resume)
        snprintf(
            then, sizeof(then),
            "It had not been told to start the VM, which stands still at the source as well. If that QEMU "
            "lives, the same command with --resume starts the VM there; only if it has ended, tell the one "
            "at the source 'cont'.");
    else
        snprintf(then, sizeof(then),
                 "Look at its log, and whether the VM runs there, before you start it anywhere.");
    return trouble_set(trouble, STATUS_FAILED,
                       "QEMU at the source says that VM '%s' has moved, but the one at %s %s. %s",
                       drive->ends->vm, drive->ends->host, why, then);
}

static void summarize(struct drive *drive, json_object *record, bool confirmed)
{
    char took[UNITS_TEXT_MAX], stood[UNITS_TEXT_MAX], sent[UNITS_TEXT_MAX];

    format_time(drive->info.total_msec * 1000, took);
    format_time(drive->info.downtime_msec * 1000, stood);
    format_size(record ? record_number(record, "BytesSent") : drive->info.transferred, sent);
    ctl_say(drive->ends->ctl, "%s: done after %s; it stood still for %s; %s sent.%s%s", drive->ends->vm, took,
            stood, sent, drive->arrived[0] ? " At the destination it is " : "", drive->arrived);
    ctl_say(drive->ends->ctl, "QEMU at the source has stopped (postmigrate), and can be ended.");
    if (!confirmed && drive->ends->tunnel.path)
        ctl_say(drive->ends->ctl, "The tunnel could not confirm it (%s); QEMU has.",
                record && record_text(record, "ErrorMessage")[0] ? record_text(record, "ErrorMessage")
                                                                 : "no answer");
}

/* The source says 'completed', which alone proves nothing of the destination. The outcome is reported before
 * the tunnel's end is waited for, since the other broker hears of it through the tunnel; the times follow,
 * once QEMU knows them. */
int outcome_done(struct drive *drive, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    enum arrival arrival = arrival_wait(drive);
    int settled = arrival == ARRIVAL_DONE ? arrival_settle(drive, trouble) : 0, finished;
    bool moved = !drive->ends->destination_qmp || arrival == ARRIVAL_DONE;
    struct qemu_info told;

    if (moved) {
        /* The other broker hears of the times only while the tunnel is there. */
        if (drive->info.total_msec == 0)
            qemu_query_times(drive->ends->qmp, &drive->info);
        drive_report_moved(drive);
    } else {
        settled = end_astray(drive, arrival, trouble);
        drive_report(drive, VF_OUTCOME_UNKNOWN, drive->arrived, trouble);
    }
    told = drive->info;
    finished = tunnel_wait_finished(&drive->ends->tunnel, END_WAIT, &record, NULL);
    settings_restore(drive->ends->qmp, &drive->ends->before);
    if (drive->ends->destination_qmp && arrival == ARRIVAL_DONE)
        settings_restore(drive->ends->destination_qmp, &drive->ends->destination_before);
    qemu_query_times(drive->ends->qmp, &drive->info);
    meter_clear(&drive->meter);
    if (moved &&
        (told.total_msec != drive->info.total_msec || told.downtime_msec != drive->info.downtime_msec))
        drive_report_moved(drive); /* QEMU knows the times only now */
    if (settled >= 0)
        summarize(drive, record,
                  finished > 0 && record && strcmp(record_text(record, "Result"), "done") == 0);
    if (!record && !drive->ends->tunnel.path)
        record = json_object_new_object();
    if (drive->ends->ctl->arguments.json != JSON_OFF && record)
        print_json(drive, record);
    return settled < 0 ? -1 : STATUS_DONE;
}

/* Where it is after a migration that did not move it; with what the user is told as the reason. */
static void report_whereabouts(struct drive *drive, const struct whereabouts *w,
                               const struct trouble *trouble)
{
    bool there = strcmp(w->destination, "running") == 0;

    drive_report(drive,
                 w->both || w->may_both || w->source[0] == '\0' ? VF_OUTCOME_UNKNOWN
                 : there                                        ? VF_OUTCOME_MOVED
                                                                : VF_OUTCOME_NOT_MOVED,
                 there && !w->both ? w->destination : w->source, trouble);
}

/* Ends the tunnel, if it has not ended. Its other broker hears of the outcome only before that, unless it is
 * in hand. */
static void end_tunnel(struct drive *drive, struct whereabouts *w, bool finished)
{
    if (drive->ends->destination && !finished)
        tunnel_cancel(&drive->ends->tunnel);
    whereabouts_look(drive, w);
}

/* After a cancel. */
static const char *hint_at_waiting(const struct whereabouts *w)
{
    return w->arrived || w->both || strcmp(w->destination, "running") == 0
               ? ""
               : " The QEMU that waited for it has ended, or must be started anew before the next try.";
}

/* The source has given up a post-copy, as a 'migrate_cancel' of another client makes it: none resumes that.
 */
static int end_in_postcopy(struct drive *drive, bool known, struct trouble *trouble)
{
    trouble_set(trouble, STATUS_FAILED,
                "VM '%s' was in post-copy when QEMU at the source gave it up ('%s'%s%s). %s", drive->ends->vm,
                drive->info.status, drive->info.error[0] ? ": " : "", drive->info.error,
                known ? "The destination has only a part of its memory: the VM is lost. End both QEMUs."
                      : "It is lost, unless QEMU at the destination says 'completed' (query-migrate), which "
                        "could not be asked.");
    drive_report(drive, known ? VF_OUTCOME_LOST : VF_OUTCOME_UNKNOWN, "", trouble);
    tunnel_cancel(&drive->ends->tunnel);
    tunnel_cancel(&drive->ends->destination_tunnel);
    return -1;
}

/* 'send' cannot ask the destination's QEMU, nor compare its capabilities. reason: the tunnel's. */
static const char *hint_at_halves(const struct drive *drive, const char *reason)
{
    if (drive->ends->destination || (reason[0] && !strstr(reason, "QEMU closed its connection")))
        return "";
    return reason[0] ? " --postcopy and --multifd= must be given to 'receive' as here."
                     : " The log of QEMU at the destination may say why; --postcopy and --multifd= must be "
                       "given to 'receive' as here.";
}

int outcome_failed(struct drive *drive, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    struct whereabouts whereabouts;
    char where[WHEREABOUTS_MAX];
    const char *why = "", *hint = qemu_hint_at_owner(drive->info.error);
    int status = STATUS_FAILED, finished;
    bool by_other;

    meter_clear(&drive->meter);
    /* Where the tunnel was the reason, it has one; else it learns now. */
    finished = tunnel_wait_finished(&drive->ends->tunnel, SECOND, &record, NULL);
    if (record)
        why = standing_reason(record); /* also while it is interrupted */
    /* By another client, at either end: what QEMU says comes of that. */
    by_other = finished > 0 && trouble_status_of(record_text(record, "Result"),
                                                 record_text(record, "ErrorName")) == STATUS_CANCELLED;
    if (by_other)
        drive->info.phase = QEMU_CANCELLED;
    if (drive->info.phase == QEMU_CANCELLED)
        status = STATUS_CANCELLED;
    end_tunnel(drive, &whereabouts, finished > 0);
    if (drive->postcopy && !whereabouts.arrived && strcmp(whereabouts.source, "postmigrate") == 0)
        return end_in_postcopy(drive, whereabouts.destination[0], trouble);
    whereabouts_tell(drive, &whereabouts, where);
    if (status == STATUS_CANCELLED)
        trouble_set(trouble, whereabouts_status(&whereabouts, status), "%s. %s%s", where,
                    by_other && why[0] ? why : "QEMU says: cancelled.", hint_at_waiting(&whereabouts));
    else
        trouble_set(trouble, whereabouts_status(&whereabouts, status), "%s. QEMU says: %s%s%s%s%s%s", where,
                    drive->info.error[0] ? drive->info.error : drive->info.status, hint, hint[0] ? "" : ".",
                    why[0] ? " The tunnel says: " : "", why, hint_at_halves(drive, why));
    report_whereabouts(drive, &whereabouts, trouble);
    if (finished <= 0)
        tunnel_cancel(&drive->ends->tunnel);
    ends_undo(drive->ends);
    return -1;
}

/* Before post-copy: QEMU gives up, and the VM stays where it is. */
int outcome_cancelled(struct drive *drive, struct trouble *trouble)
{
    struct whereabouts whereabouts;
    char where[WHEREABOUTS_MAX];

    meter_clear(&drive->meter);
    ctl_say(drive->ends->ctl, "Cancelling …");
    drive->reported = 0;
    drive_report_progress(drive); /* so that the tunnel waits for what QEMU says, and the cancel */
    qmp_execute(drive->ends->qmp, "migrate_cancel", NULL, NULL, NULL);
    for (uint64_t end = ctl_now() + END_WAIT; ctl_now() < end && drive->ends->ctl->interrupts < 3;) {
        if (qemu_query(drive->ends->qmp, &drive->info, NULL) < 0 || drive->info.phase >= QEMU_DONE)
            break;
        drive_report_progress(drive);
        ctl_turn(drive->ends->ctl, SECOND / 20, NULL);
    }
    if (drive->info.phase == QEMU_DONE)
        return outcome_done(drive, trouble); /* it was too late */
    if (qmp_silence(drive->ends->qmp) > 0)
        return outcome_lost(drive, trouble);
    end_tunnel(drive, &whereabouts, false);
    whereabouts_tell(drive, &whereabouts, where);
    trouble_set(trouble, whereabouts_status(&whereabouts, STATUS_CANCELLED), "Cancelled: %s.%s", where,
                hint_at_waiting(&whereabouts));
    report_whereabouts(drive, &whereabouts, trouble);
    tunnel_cancel(&drive->ends->tunnel);
    ends_undo(drive->ends);
    return -1;
}
