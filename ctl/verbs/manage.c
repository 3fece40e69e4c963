/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/manage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/bus/record.h"
#include "ctl/libvirt/cancel.h"
#include "ctl/qemu/qemu.h"
#include "ctl/shell.h"
#include "ctl/units.h"

#define SILENT_FIRST (3 * SECOND) /* for so long QEMU may be silent without it being said */
#define SILENT_AGAIN (30 * SECOND)
#define CANCEL_WAIT  (10 * SECOND) /* for QEMU to let the VM go on after it was told to cancel */

/* Does it with each migration that the operands name. The first trouble ends it. */
static int each(struct ctl *ctl, int n_operands, struct trouble *trouble,
                int (*act)(struct side *side, const struct found *found, struct trouble *trouble))
{
    _cleanup_(side_close) struct side side = {0};

    if (side_open(ctl, &side, trouble) < 0)
        return -1;
    for (int i = 0; i < n_operands; i++) {
        struct found found;

        if (find_one(&side, ctl->arguments.operands[i], &found, trouble) < 0 ||
            act(&side, &found, trouble) < 0)
            return -1;
    }
    return STATUS_DONE;
}

/* ---- cancel ---- */

struct silence {
    const struct ctl *ctl;
    uint64_t next; /* when it is said that QEMU is silent */
};

/* QEMU holds its lock, as in the last part of a pre-copy: only Ctrl-C ends the waiting. */
static bool on_silent(struct qmp *qmp, uint64_t usec, void *userdata)
{
    struct silence *silence = userdata;

    if (usec < silence->next)
        return true;
    silence->next = usec + SILENT_AGAIN;
    ctl_say(silence->ctl,
            "%s has not answered for %u s. Nothing is cancelled before it does; Ctrl-C ends the waiting.",
            qmp_name(qmp), (unsigned)(usec / SECOND));
    return true;
}

/*
 * In whatever status before post-copy that is no end: setup, active, wait-unplug, pre-switchover, device.
 * Once the VM has stopped for the hand-over the destination may have all of it, which only QEMU there can
 * tell. 1: so it is, 0, or -1.
 */
static int cancel_at_source(struct qmp *qmp, struct side *side, const struct found *found,
                            const struct qemu_info *info, struct trouble *trouble)
{
    struct qemu_info now = *info;
    char before[32], after[32] = "";
    bool handed;

    if (qemu_run_state(qmp, before, trouble) < 0 ||
        qmp_execute(qmp, "migrate_cancel", NULL, NULL, trouble) < 0)
        return -1;
    handed = strcmp(before, "finish-migrate") == 0 && strcmp(info->status, "pre-switchover") != 0;
    for (uint64_t end = ctl_now() + CANCEL_WAIT; ctl_now() < end && side->ctl->interrupts == 0;) {
        if (qemu_query(qmp, &now, trouble) < 0 || qemu_run_state(qmp, after, trouble) < 0)
            return -1;
        if (now.phase >= QEMU_DONE && strcmp(after, "finish-migrate") != 0)
            break;
        if (ctl_turn(side->ctl, SECOND / 20, trouble) < 0)
            return -1;
    }
    if (now.phase == QEMU_DONE)
        return trouble_set(trouble, STATUS_FAILED,
                           "It is too late to cancel migration %s: QEMU says that VM '%s' has moved.",
                           found->id, found->vm);
    return handed && strcmp(after, "running") == 0;
}

/* A domain of libvirt: its sockets have such names. */
static bool is_libvirts(struct side *side, const struct found *found)
{
    _cleanup_json_ json_object *record = NULL;

    return record_read(side, found->path, MIGRATION_INTERFACE, &record, NULL) >= 0 &&
           strstr(record_socket(record, "migrate"), ".tunnelmigrate.dest.");
}

/*
 * Only QEMU knows whether post-copy has begun: where it is in the middle of it, it is asked, or the user is.
 * 1: it was cancelled, and may run on both hosts; 0, or -1.
 */
static int may_cancel(struct side *side, const struct found *found, struct trouble *trouble)
{
    const struct arguments *a = &side->ctl->arguments;
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    char command[SHELL_COMMAND_MAX];
    struct silence silence = {.ctl = side->ctl, .next = SILENT_FIRST};
    struct qemu_info info;

    if (a->force || (strcmp(found->state, "active") != 0 && strcmp(found->state, "interrupted") != 0))
        return 0;
    if (!a->qmp && is_libvirts(side, found))
        return libvirt_cancel(side, found, trouble) < 0 ? -1 : 0;
    if (!a->qmp)
        return trouble_set(
            trouble, STATUS_USAGE,
            "Migration %s of VM '%s' is %s. In pre-copy the VM goes on at the source when it is cancelled, "
            "but after post-copy has begun that can lose the guest. Give --qmp=SOCKET, so that QEMU is "
            "asked, or --force.",
            found->id, found->vm, found->state);
    if (qmp_open(side, a->qmp, &qmp, trouble) < 0)
        return -1;
    qmp_be_patient(qmp, on_silent, &silence);
    if (qemu_query(qmp, &info, trouble) < 0)
        return -1;
    if (info.phase == QEMU_POSTCOPY || info.phase == QEMU_PAUSED)
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' is in post-copy (QEMU says '%s'): cancelling migration %s can lose the guest. Let it "
            "end, or recover it (%s). --force cancels all the same.",
            found->vm, info.status, found->id,
            shell_vmferryctl(strcmp(found->role, "outgoing") == 0 ? "send" : "receive", found->id,
                             "--qmp=SOCKET --resume", command));
    return strcmp(found->role, "outgoing") == 0 && info.phase == QEMU_PRECOPY
               ? cancel_at_source(qmp, side, found, &info, trouble)
               : 0;
}

static int cancel(struct side *side, const struct found *found, struct trouble *trouble)
{
    char doing[400];
    int r = may_cancel(side, found, trouble);

    if (r < 0)
        return -1;
    snprintf(doing, sizeof(doing), "Cannot cancel migration %s of VM '%s'", found->id, found->vm);
    if (side_call(side, found->path, MIGRATION_INTERFACE, "Cancel", NULL, trouble, doing, NULL) < 0)
        return -1;
    if (r > 0)
        return trouble_set(
            trouble, STATUS_BOTH_RUN,
            "Migration %s is cancelled, and VM '%s' runs on at the source; but it had stopped there for the "
            "hand-over, so that it may run at the destination as well. Ask QEMU there at once "
            "(query-status), "
            "and stop one of them. ('vmferryctl migrate' does not let that happen.)",
            found->id, found->vm);
    return 0;
}

int verb_cancel(struct ctl *ctl, struct trouble *trouble)
{
    return each(ctl, ctl->arguments.n_operands, trouble, cancel);
}

/* ---- limit, forget ---- */

static int limit(struct side *side, const struct found *found, struct trouble *trouble)
{
    const char *text = side->ctl->arguments.operands[1];
    char doing[400];
    uint64_t rate;

    if (!parse_size(text, &rate))
        return trouble_set(
            trouble, STATUS_USAGE,
            "'%s' is no rate. Give bytes per second, as 100M or 1.5G (1024-based); 0 takes the limit away.",
            text);
    snprintf(doing, sizeof(doing), "Cannot limit migration %s of VM '%s'", found->id, found->vm);
    return side_call(side, found->path, "org.freedesktop.DBus.Properties", "Set", NULL, trouble, doing, "ssv",
                     MIGRATION_INTERFACE, "BandwidthLimit", "t", rate);
}

int verb_limit(struct ctl *ctl, struct trouble *trouble)
{
    return each(ctl, 1, trouble, limit);
}

static int forget(struct side *side, const struct found *found, struct trouble *trouble)
{
    char doing[400];

    snprintf(doing, sizeof(doing), "Cannot forget migration %s of VM '%s'", found->id, found->vm);
    return side_call(side, found->path, MIGRATION_INTERFACE, "Forget", NULL, trouble, doing, NULL);
}

int verb_forget(struct ctl *ctl, struct trouble *trouble)
{
    return each(ctl, ctl->arguments.n_operands, trouble, forget);
}
