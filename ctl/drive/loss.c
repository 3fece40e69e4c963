/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/loss.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/handover.h"
#include "ctl/drive/recover.h"
#include "ctl/drive/report.h"
#include "ctl/drive/whereabouts.h"
#include "ctl/units.h"

#define SETTLES (10 * SECOND) /* for the destination to notice that the source's QEMU is gone */

static const char *how_to_resume(const struct drive *drive)
{
    return drive->ends->destination ? "the same command with --resume"
                                    : "'vmferryctl receive … --resume' at the destination, then "
                                      "'vmferryctl send … --resume' here";
}

/* The connections that --ssh made carry the migration on. */
static void leave_peers(struct drive *drive)
{
    meter_clear(&drive->meter);
    drive->ends->left = true;
    if (drive->ends->peers)
        peers_leave(drive->ends->peers);
    drive->ends->peers = NULL;
}

/* QEMU does not answer, and was left for Ctrl-C. Where the VM will be is for QEMU to say: nothing is cut. */
static int end_silent(struct drive *drive, struct trouble *trouble)
{
    char silent[UNITS_TEXT_MAX], held[240] = "";

    trouble_clear(trouble);
    leave_peers(drive);
    if (handover_holds(drive))
        snprintf(held, sizeof(held),
                 " When it has moved, it stands still at %.80s until the same command with --resume, or "
                 "'cont', starts it.",
                 drive->ends->host);
    format_time(qmp_silence(drive->ends->qmp), silent);
    return trouble_set(
        trouble, STATUS_FAILED,
        "%s has not answered for %s. The migration of VM '%s' is not cancelled: it goes on by "
        "itself, and where the VM is then only the two QEMUs know (query-status).%s 'vmferryctl "
        "watch %s' shows the tunnel.",
        qmp_name(drive->ends->qmp), silent, drive->ends->vm, held, tunnel_id(&drive->ends->tunnel));
}

/* ---- Paused ---- */

/* Nothing can be recovered, and nothing has to be carried any more: why says so. */
static int end_ended(struct drive *drive, const char *why, struct trouble *trouble)
{
    const struct qmp *there = drive->ends->destination_qmp;
    const char *reason = there ? qmp_shutdown(there) : "";

    if (strncmp(reason, "guest-", 6) == 0) {
        trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' has ended by itself at %s (%s), before all of its memory had come there. QEMU at "
            "the source is of no use any more: end it.",
            drive->ends->vm, drive->ends->host, reason);
        drive_report(drive, VF_OUTCOME_MOVED, "shutdown", trouble);
    } else {
        trouble_set(
            trouble, STATUS_FAILED,
            "The post-copy of VM '%s' is paused for good: QEMU at %s, where it ran, is gone (%s). The VM is "
            "lost: each of the two had a part of its memory. End QEMU at the source.",
            drive->ends->vm, drive->ends->host, why[0] ? why : "its monitor is closed");
        drive_report(drive, VF_OUTCOME_LOST, "", trouble);
    }
    tunnel_cancel(&drive->ends->tunnel);
    tunnel_cancel(&drive->ends->destination_tunnel);
    return -1;
}

/* The destination's last word was lost on the way. */
static int end_unheard(struct drive *drive, struct trouble *trouble)
{
    char state[32];

    if (qemu_run_state(drive->ends->destination_qmp, state, trouble) < 0)
        return -1;
    trouble_set(
        trouble, STATUS_FAILED,
        "All of VM '%s' has come to %s, and QEMU there says that it is '%s'; but the one at the source "
        "did not hear of it, and is paused for good. End QEMU at the source.",
        drive->ends->vm, drive->ends->host, state);
    drive_report(drive, VF_OUTCOME_MOVED, state, trouble);
    return -1;
}

int outcome_paused(struct drive *drive, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble why = {0};
    struct qemu_info there = {0};
    enum reach reach = drive->ends->destination ? recover_reach(drive, &why) : REACH_AWAY;
    char about[400] = "as long as QEMU at the destination lives, nothing is lost";

    meter_clear(&drive->meter);
    if (!drive->ends->destination && drive->reason[0])
        snprintf(about, sizeof(about),
                 "as long as QEMU at the destination lives, nothing is lost; but %.240s", drive->reason);
    if (reach == REACH_GONE)
        return end_ended(drive, why.text ? why.text : "", trouble);
    if (reach == REACH_THERE && qemu_query(drive->ends->destination_qmp, &there, NULL) >= 0) {
        if (there.phase == QEMU_DONE)
            return end_unheard(drive, trouble);
        if (there.phase != QEMU_PAUSED && there.phase != QEMU_POSTCOPY && there.phase != QEMU_PRECOPY)
            return end_ended(drive, drive->reason[0] ? drive->reason : "another one is in its place",
                             trouble);
        snprintf(about, sizeof(about), "nothing is lost: QEMU at %.80s says '%s'", drive->ends->host,
                 there.status);
    } else if (reach == REACH_AWAY && drive->ends->destination) {
        snprintf(about, sizeof(about),
                 "as long as QEMU at %.80s lives, nothing is lost, but it cannot be asked now (%.240s)",
                 drive->ends->host, why.text ? why.text : "no reason is known");
    }
    drive->ends->left = true;
    return trouble_set(
        trouble, STATUS_FAILED,
        "The post-copy of VM '%s' is paused: the connection was lost (%s). The VM stands still, and "
        "%s. When the network is back, recover it: %s.",
        drive->ends->vm, drive->info.error[0] ? drive->info.error : "QEMU gives no reason", about,
        how_to_resume(drive));
}

/* ---- Left ---- */

int outcome_detached(struct drive *drive, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    const char *id = tunnel_id(&drive->ends->tunnel);
    bool over = tunnel_read(&drive->ends->tunnel, &record, NULL) >= 0 &&
                strcmp(record_text(record, "State"), "finished") == 0;

    leave_peers(drive);
    if (drive->info.phase == QEMU_PAUSED || over)
        return outcome_paused(drive, trouble);
    if (handover_holds(drive))
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' is left in the middle of its hand-over (QEMU says '%s'): it stands still at %s "
            "when it has come there, until the same command with --resume, or 'cont', starts it.",
            drive->ends->vm, drive->info.status, drive->ends->host);
    return trouble_set(trouble, STATUS_FAILED,
                       "VM '%s' is in post-copy (QEMU says '%s'), where a cancel would lose it: the "
                       "migration goes on by itself. "
                       "'vmferryctl watch %s' shows it; should it pause, %s recovers it.",
                       drive->ends->vm, drive->info.status, id,
                       drive->ends->destination
                           ? "'vmferryctl migrate … --resume'"
                           : "'vmferryctl receive … --resume' at the destination and then "
                             "'vmferryctl send … --resume' here");
}

int outcome_left(struct drive *drive, const char *why, struct trouble *trouble)
{
    trouble_clear(trouble);
    leave_peers(drive);
    return trouble_set(trouble, STATUS_FAILED,
                       "%s The migration of VM '%s' goes on without vmferryctl.%s 'vmferryctl migrate "
                       "--attach VM', or the same "
                       "command with --resume, takes it over ('vmferryctl watch %s' shows the tunnel).",
                       why ? why : "A signal ends vmferryctl.", drive->ends->vm,
                       handover_holds(drive) ? " When it has moved, the VM stands still until then." : "",
                       tunnel_id(&drive->ends->tunnel));
}

/* ---- The source's monitor is lost ---- */

/* What the destination's QEMU comes to without the source's; QEMU_NONE: it cannot be asked. */
static enum qemu_phase wait_settled(struct drive *drive, char ret_state[static 32])
{
    struct qmp *there = drive->ends->destination_qmp;
    struct qemu_info info = {0};

    for (uint64_t end = ctl_now() + SETTLES;;) {
        if (!there || qemu_query(there, &info, NULL) < 0 || qemu_run_state(there, ret_state, NULL) < 0)
            return QEMU_NONE;
        if (info.phase >= QEMU_PAUSED || ctl_now() >= end || drive->ends->ctl->interrupts > 1 ||
            ctl_turn(drive->ends->ctl, SECOND / 20, NULL) < 0)
            return info.phase;
    }
}

/* LOST is reported only where it is proved: the destination says that it lacks memory, and the source has
 * ended. A source that merely does not answer still holds the rest, and may go on by itself. */
static int lost_in_postcopy(struct drive *drive, const char *why, struct trouble *trouble)
{
    const char *vm = drive->ends->vm, *host = drive->ends->host;
    char state[32] = "", silent[96];

    leave_peers(drive);
    switch (wait_settled(drive, state)) {
    case QEMU_DONE:
        trouble_set(trouble, STATUS_FAILED,
                    "%s VM '%s' has all of its memory at %s all the same; QEMU there says that it is '%s'.",
                    why, vm, host, state);
        drive_report(drive, VF_OUTCOME_MOVED, state, trouble);
        return -1;
    case QEMU_PAUSED:
    case QEMU_FAILED:
        if (qmp_has_ended(drive->ends->qmp)) {
            trouble_set(trouble, STATUS_FAILED,
                        "%s That was in post-copy, before all of VM '%s' had come to %s: the VM is lost. End "
                        "QEMU there.",
                        why, vm, host);
            drive_report(drive, VF_OUTCOME_LOST, "", trouble);
            return -1;
        }
        break;
    case QEMU_NONE:
        if (drive->ends->destination_qmp)
            whereabouts_of_silent(drive->ends->destination_qmp, silent);
        if (qmp_has_ended(drive->ends->qmp)) {
            trouble_set(trouble, STATUS_FAILED,
                        "%s That was in post-copy: VM '%s' is lost, unless all of it had come to the "
                        "destination before. QEMU there %s.",
                        why, vm,
                        drive->ends->destination_qmp ? silent : "says it (query-migrate, query-status)");
            /* Of both: whatever there was is gone. */
            drive_report(drive,
                         drive->ends->destination_qmp && qmp_has_ended(drive->ends->destination_qmp)
                             ? VF_OUTCOME_LOST
                             : VF_OUTCOME_UNKNOWN,
                         "", trouble);
            return -1;
        }
        break;
    default:
        break;
    }
    return trouble_set(
        trouble, STATUS_FAILED,
        "%s Post-copy has begun: the migration goes on without vmferryctl as long as both QEMUs live "
        "('vmferryctl watch %s').",
        why, tunnel_id(&drive->ends->tunnel));
}

/* What is said of it, and what became of the VM. */
static enum vf_outcome tell_precopy(const struct drive *drive, const struct whereabouts *w, const char *why,
                                    int status, struct trouble *trouble)
{
    const char *vm = drive->ends->vm, *host = drive->ends->host;
    bool ended = qmp_has_ended(drive->ends->qmp), sent = qmp_stops(drive->ends->qmp) > drive->stops;

    if (strcmp(w->destination, "running") == 0) {
        trouble_set(trouble, status, "%s VM '%s' runs at %s.", why, vm, host);
        return VF_OUTCOME_MOVED;
    }
    if (w->arrived) {
        trouble_set(trouble, status,
                    "%s All of VM '%s' has come to %s, where it stands still ('%s'), for QEMU at the source "
                    "did not say that it has let go. %s tell QEMU at %s 'cont'.",
                    why, vm, host, w->destination,
                    ended ? "Make sure that it has ended, then" : "End it, then", host);
        return VF_OUTCOME_UNKNOWN;
    }
    if (!drive->ends->destination && sent) {
        trouble_set(trouble, status,
                    "%s The migration is cancelled. VM '%s' had stopped for the hand-over: only QEMU at the "
                    "destination says whether it is there (query-status).",
                    why, vm);
        return VF_OUTCOME_UNKNOWN;
    }
    if (ended) {
        trouble_set(
            trouble, status,
            "%s The migration is cancelled, and VM '%s' does not run any more: it had not come to the "
            "destination.",
            why, vm);
        return VF_OUTCOME_LOST;
    }
    trouble_set(trouble, status,
                "%s The migration is cancelled. VM '%s' is not at the destination; whether it runs at the "
                "source only QEMU there says (query-status).",
                why, vm);
    return VF_OUTCOME_UNKNOWN;
}

/* Reports before the tunnels go: the other broker hears of an outcome only while there is one. */
static void lost_in_precopy(struct drive *drive, const char *why, int status, struct trouble *trouble)
{
    enum vf_outcome outcome;
    struct whereabouts w;

    qmp_execute(drive->ends->qmp, "migrate_cancel", NULL, NULL, NULL);
    whereabouts_look(drive, &w);
    outcome = tell_precopy(drive, &w, why, status, trouble);
    drive_report(drive, outcome, w.destination, trouble);
    tunnel_cancel(&drive->ends->tunnel);
    ends_undo(drive->ends);
}

int outcome_lost(struct drive *drive, struct trouble *trouble)
{
    struct trouble why;
    const char *reason = qmp_shutdown(drive->ends->qmp);
    char text[480];

    if (qmp_silence(drive->ends->qmp) > 0)
        return end_silent(drive, trouble);
    why = *trouble;
    *trouble = (struct trouble){0};
    meter_clear(&drive->meter);
    if (reason[0])
        snprintf(text, sizeof(text), "QEMU at the source has ended (%s).", reason);
    else
        snprintf(text, sizeof(text), "%s",
                 why.text ? why.text : "QEMU at the source cannot be asked any more.");
    if (drive->asked || drive->info.phase == QEMU_POSTCOPY || drive->info.phase == QEMU_PAUSED)
        lost_in_postcopy(drive, text, trouble);
    else
        lost_in_precopy(drive, text, why.status ? why.status : STATUS_FAILED, trouble);
    trouble_clear(&why);
    return -1;
}
