/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/whereabouts.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"

/* For the source's QEMU to let the VM go on after it has said that it failed. */
#define DECIDES (5 * SECOND)

static bool is_running(const char *state)
{
    return strcmp(state, "running") == 0;
}

static void look_at_source(struct drive *drive, struct whereabouts *ret)
{
    for (uint64_t end = ctl_now() + DECIDES;;) {
        if (qemu_run_state(drive->ends->qmp, ret->source, NULL) < 0)
            ret->source[0] = '\0';
        if (strcmp(ret->source, "finish-migrate") != 0 || ctl_now() >= end ||
            ctl_turn(drive->ends->ctl, SECOND / 20, NULL) < 0)
            return;
    }
}

void whereabouts_look(struct drive *drive, struct whereabouts *ret)
{
    struct qmp *there = drive->ends->destination_qmp;
    struct qemu_info info;

    *ret = (struct whereabouts){0};
    look_at_source(drive, ret);
    if (!there) {
        ret->may_both = is_running(ret->source) && qmp_stops(drive->ends->qmp) > drive->stops;
        return;
    }
    /* The source has decided: its time is not that of a migration any more. */
    qmp_be_patient(there, NULL, NULL);
    if (qemu_query(there, &info, NULL) < 0 || qemu_run_state(there, ret->destination, NULL) < 0) {
        ret->destination[0] = '\0';
        return;
    }
    ret->arrived = info.phase == QEMU_DONE;
    if (info.phase == QEMU_FAILED)
        message_text_set(ret->failed, sizeof(ret->failed), info.error[0] ? info.error : info.status);
    ret->both = is_running(ret->source) && is_running(ret->destination);
    /* The source says that the VM was not moved. Two that run would write to the same disks. */
    if (ret->both)
        qmp_execute(there, "stop", NULL, NULL, NULL);
}

void whereabouts_of_silent(const struct qmp *qmp, char ret[static 96])
{
    const char *reason = qmp_shutdown(qmp);

    if (qmp_has_ended(qmp))
        snprintf(ret, 96, "has ended%s%s%s", reason[0] ? " (" : "", reason, reason[0] ? ")" : "");
    else
        snprintf(ret, 96, "does not answer any more");
}

static void tell_destination(const struct drive *drive, const struct whereabouts *w, char *ret, size_t size)
{
    const char *host = drive->ends->host;
    char silent[96];

    ret[0] = '\0';
    if (!drive->ends->destination_qmp)
        return;
    if (w->destination[0] == '\0' && drive->info.phase == QEMU_FAILED) {
        whereabouts_of_silent(drive->ends->destination_qmp, silent);
        snprintf(ret, size, "; QEMU at %.80s %s%s", host, silent,
                 qmp_has_ended(drive->ends->destination_qmp) ? ", and its log says why" : "");
    } else if (w->failed[0] && drive->info.phase == QEMU_FAILED) {
        snprintf(ret, size, "; QEMU at %.80s says: %s; end it, and start it anew before the next try", host,
                 w->failed);
    } else if (w->arrived) {
        snprintf(ret, size,
                 "; QEMU at %.80s has all of it as well (%s), and was not told to start it: end that one",
                 host, w->destination);
    }
}

void whereabouts_tell(const struct drive *drive, const struct whereabouts *w,
                      char ret[static WHEREABOUTS_MAX])
{
    const char *vm = drive->ends->vm, *host = drive->ends->host;
    char silent[96], there[400];

    if (w->both) {
        snprintf(ret, WHEREABOUTS_MAX,
                 "VM '%.80s' ran on both hosts, for something other than vmferryctl had started it at %.80s. "
                 "It runs on at the source; at %.80s it was told to stop. Whatever it wrote there is on its "
                 "disks: "
                 "look at them, and end QEMU there",
                 vm, host, host);
        return;
    }
    if (w->may_both) {
        snprintf(
            ret, WHEREABOUTS_MAX,
            "VM '%.80s' runs on at the source; but it had stopped there for the hand-over, so that it may "
            "run at the destination as well. Ask QEMU there at once (query-status), and stop one of them",
            vm);
        return;
    }
    if (is_running(w->destination)) {
        snprintf(ret, WHEREABOUTS_MAX, "VM '%.80s' runs at %.80s; at the source it is '%s'", vm, host,
                 w->source[0] ? w->source : "not known");
        return;
    }
    tell_destination(drive, w, there, sizeof(there));
    whereabouts_of_silent(drive->ends->qmp, silent);
    if (w->source[0] == '\0')
        snprintf(ret, WHEREABOUTS_MAX, "VM '%.80s' was not moved; QEMU at the source %s%s", vm, silent,
                 there);
    else if (is_running(w->source))
        snprintf(ret, WHEREABOUTS_MAX, "VM '%.80s' was not moved; it runs on at the source%s", vm, there);
    else
        snprintf(ret, WHEREABOUTS_MAX, "VM '%.80s' was not moved; at the source QEMU says that it is '%s'%s",
                 vm, w->source, there);
}

int whereabouts_status(const struct whereabouts *w, int status)
{
    return w->both || w->may_both ? STATUS_BOTH_RUN : status;
}
