/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/drive.h"

#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/handover.h"
#include "ctl/drive/internal.h"
#include "ctl/drive/loss.h"
#include "ctl/drive/outcome.h"
#include "ctl/drive/recover.h"
#include "ctl/drive/sequence.h"
#include "ctl/drive/view.h"

#define LOOK       (SECOND / 4)
#define HAND_OVER  (SECOND / 200) /* between two looks while the VM stands still for it */
#define AUTO_AFTER 4 /* the pass over the memory with which it is clear that pre-copy does not end */

static bool postcopy_is_wanted(const struct drive *drive)
{
    const struct arguments *a = &drive->ends->ctl->arguments;

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
        ctl_say(drive->ends->ctl, "%s: it is '%s', and goes without post-copy, which would let it run.",
                drive->ends->vm, drive->state);
        drive->left_out = true;
    }
    return false;
}

/* The VM's run state, as long as it is at the source: the hand-over has states of its own. */
static int read_state(struct drive *drive, struct trouble *trouble)
{
    char state[32];

    if (qemu_run_state(drive->ends->qmp, state, trouble) < 0)
        return -1;
    if (strcmp(state, "finish-migrate") != 0 && strcmp(state, "postmigrate") != 0)
        memcpy(drive->state, state, sizeof(state));
    return 0;
}

/* Of both QEMUs. */
static unsigned events_of(const struct drive *drive)
{
    struct qmp *there = drive->ends->destination_qmp;

    return qmp_events(drive->ends->qmp) + (there ? qmp_events(there) : 0);
}

/* Waits for the next look: some time, news of QEMU's, or Ctrl-C. */
static int pause_for(struct drive *drive, struct trouble *trouble)
{
    unsigned interrupts = drive->ends->ctl->interrupts;
    uint64_t pause = handover_is_near(drive) ? HAND_OVER : LOOK;

    for (uint64_t now = ctl_now(), end = now + pause; now < end; now = ctl_now()) {
        if (drive->ends->ctl->interrupts > interrupts || drive->ends->ctl->resized ||
            drive->seen != events_of(drive) || !qmp_is_open(drive->ends->qmp))
            break;
        if (ctl_turn(drive->ends->ctl, end - now, trouble) < 0)
            return -1;
    }
    return 0;
}

/*
 * Looks at both, shows it. -1 where QEMU is lost; a broker that is away leaves the record empty. `seen` is
 * read before QEMU is asked: an event that comes during the look then ends the next pause at once. The
 * hand-over comes before anything else is asked, since the VM may stand still for it.
 */
static int look(struct drive *drive, json_object **ret, struct trouble *trouble)
{
    drive->seen = events_of(drive);
    if (qemu_query(drive->ends->qmp, &drive->info, trouble) < 0)
        return -1;
    handover_try(drive);
    drive->postcopy =
        drive->postcopy || drive->info.phase == QEMU_POSTCOPY || drive->info.phase == QEMU_PAUSED;
    if (drive->info.phase == QEMU_PRECOPY && !drive->asked && read_state(drive, trouble) < 0)
        return -1;
    if (tunnel_read(&drive->ends->tunnel, ret, NULL) < 0)
        *ret = json_object_new_object();
    view_show(drive, *ret);
    if (drive->ends->peers && strcmp(record_text(*ret, "State"), "interrupted") == 0)
        peers_mend(drive->ends->peers);
    return 0;
}

/* It is paused: recovers it, where that was asked for. 1: go on looking. */
static int on_paused(struct drive *drive, struct trouble *trouble)
{
    if (drive_resumes(drive))
        return 1;
    if (drive->ends->ctl->arguments.postcopy == POSTCOPY_AUTO && recover_try(drive))
        return 1;
    return outcome_paused(drive, trouble);
}

/* Tells QEMU to go, and how it is with the VM then. */
static int begin(struct drive *drive, struct trouble *trouble)
{
    view_be_patient(drive, drive->ends->qmp);
    if (drive->ends->destination_qmp)
        view_be_patient(drive, drive->ends->destination_qmp);
    meter_open(&drive->meter, drive->ends->ctl);
    /* A VM that is resumed is in post-copy already: Ctrl-C must not cancel it. STOPs are counted from here
     * on. */
    drive->asked = drive->resume && !drive->ends->taken;
    drive->since = ctl_now();
    drive->stops = qmp_stops(drive->ends->qmp);
    if (drive->ends->taken)
        return 0;
    if (tunnel_check_socket(&drive->ends->tunnel, qmp_uid(drive->ends->qmp), trouble) < 0 ||
        (!drive->resume && read_state(drive, trouble) < 0) ||
        qemu_migrate(drive->ends->qmp, drive->ends->tunnel.socket, drive->resume, trouble) < 0) {
        ends_undo(drive->ends);
        return -1;
    }
    return 0;
}

/* Ctrl-C once post-copy was asked for: the VM is to run at the destination first. The second one does not
 * wait. */
static bool may_detach(struct drive *drive)
{
    bool begins = drive->info.phase == QEMU_PRECOPY || handover_is_near(drive);

    if (drive->ends->ctl->interrupts > 0 && begins && !drive->held_up) {
        meter_clear(&drive->meter);
        ctl_say(drive->ends->ctl,
                "%s: post-copy was asked for, and begins. Ctrl-C once more leaves the migration before.",
                drive->ends->vm);
        drive->held_up = true;
    }
    return drive->ends->ctl->interrupts > (begins ? 1 : 0);
}

/* With disks, QEMU waits before it hands the VM over: their copies end then. */
static int turn_disks(struct drive *drive, struct trouble *trouble)
{
    struct disks *disks = drive->ends->disks;
    json_object *arguments;

    if (disks_are_over(disks) || drive->info.phase != QEMU_PRECOPY)
        return 0;
    if (strcmp(drive->info.status, "pre-switchover") != 0)
        return disks_check(disks, trouble);
    /* The VM stands still now. Its copies end, and the destination closes its disks, before QEMU goes on: two
     * QEMUs must never write to one disk. */
    if (disks_finish(disks, trouble) < 0)
        return -1;
    drive->asked = drive->ends->ctl->arguments.postcopy != POSTCOPY_NO;
    arguments = json_object_new_object();
    json_object_object_add(arguments, "state", json_object_new_string("pre-switchover"));
    return qmp_execute(drive->ends->qmp, "migrate-continue", arguments, NULL, trouble);
}

/* A disk cannot be copied, which is why: QEMU is told to give up, and the VM goes on at the source. */
static int give_up(struct drive *drive, const struct trouble *why, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble ended = {0};
    int r = outcome_cancelled(drive, &ended);

    if (r >= 0)
        return r;
    return trouble_set(trouble, ended.status == STATUS_CANCELLED ? STATUS_FAILED : ended.status, "%s %s",
                       why->text ? why->text : "", ended.text ? ended.text : "");
}

/* The source's monitor is lost. 1: it is there again. */
static int on_lost(struct drive *drive, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble why = {0};

    /* What copies the disks keeps to the monitor that it has. */
    switch (drive->ends->destination && !drive->ends->disks ? recover_source(drive, &why) : REACH_GONE) {
    case REACH_THERE:
        trouble_clear(trouble);
        return 1;
    case REACH_AWAY:
        return outcome_left(drive, why.text, trouble);
    default:
        return outcome_lost(drive, trouble);
    }
}

/*
 * One turn: look, then what QEMU has come to, then what the user wants, then post-copy, then a pause.
 *
 *                                   Ctrl-C                       lost monitor
 *     pre-copy, nothing asked       cancels, VM stays            cancels what it can
 *     post-copy asked for           waits, a second one leaves   nothing is cut: a cancel would lose the VM
 *     post-copy, paused             leaves                       the same
 *
 * `asked` is the line between the two: behind it the VM may have a part of its memory at either end.
 */
static int drive_on(struct drive *drive, struct trouble *trouble)
{
    for (;;) {
        _cleanup_(trouble_clear) struct trouble disks = {0};
        _cleanup_json_ json_object *record = NULL;
        int r;

        if (look(drive, &record, trouble) < 0) {
            r = on_lost(drive, trouble);
            if (r > 0)
                continue;
            return r;
        }
        if (drive->ends->ctl->hangup && drive->ends->destination && drive->info.phase < QEMU_DONE)
            return outcome_left(drive, NULL, trouble);
        if (turn_disks(drive, &disks) < 0)
            return give_up(drive, &disks, trouble);
        switch (drive->info.phase) {
        case QEMU_DONE:
            return outcome_done(drive, trouble);
        case QEMU_FAILED:
        case QEMU_CANCELLED:
            return outcome_failed(drive, trouble);
        case QEMU_PAUSED:
            if (drive->ends->ctl->interrupts > 0)
                return outcome_detached(drive, trouble);
            if (on_paused(drive, trouble) < 0)
                return -1;
            break;
        case QEMU_POSTCOPY:
            drive->asked = true;
            drive->told = false;
            break;
        default:
            break;
        }
        if (drive->ends->ctl->interrupts > 0 && !drive->asked)
            return outcome_cancelled(drive, trouble);
        if (may_detach(drive))
            return outcome_detached(drive, trouble);
        if (postcopy_is_due(drive)) {
            /* From the moment it is asked QEMU may begin, unless it waits for the disks: what would cancel
             * must not come after. */
            drive->asked = disks_are_over(drive->ends->disks);
            if (qmp_execute(drive->ends->qmp, "migrate-start-postcopy", NULL, NULL, trouble) < 0)
                return outcome_lost(drive, trouble);
            if (drive->asked)
                continue;
        }
        if (pause_for(drive, trouble) < 0)
            return outcome_lost(drive, trouble);
    }
}

int drive_run(struct ends *ends, struct trouble *trouble)
{
    struct drive drive = {.ends = ends, .resume = ends->resume && !ends->taken};
    int r = begin(&drive, trouble);

    if (r >= 0)
        r = drive_on(&drive, trouble);
    meter_clear(&drive.meter);
    view_let_go(&drive);
    if (r < 0 && trouble)
        sequence_fail(ends, &drive, drive.shown[0] ? drive.shown : "setup", trouble);
    trouble_clear(&drive.refused);
    return r;
}
