/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/manage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/qemu/qmp.h"
#include "ctl/shell.h"
#include "ctl/units.h"

#define SILENT_FIRST (3 * SECOND) /* for so long QEMU may be silent without it being said */
#define SILENT_AGAIN (30 * SECOND)

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

/* Only QEMU knows whether post-copy has begun: where it is in the middle of it, it is asked, or the user is.
 */
static int may_cancel(struct side *side, const struct found *found, struct trouble *trouble)
{
    const struct arguments *a = &side->ctl->arguments;
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    _cleanup_json_ json_object *info = NULL;
    char command[SHELL_COMMAND_MAX];
    struct silence silence = {.ctl = side->ctl, .next = SILENT_FIRST};
    const char *status;

    if (a->force || (strcmp(found->state, "active") != 0 && strcmp(found->state, "interrupted") != 0))
        return 0;
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
    if (qmp_execute(qmp, "query-migrate", NULL, &info, trouble) < 0)
        return -1;
    status = record_text(info, "status");
    if (strncmp(status, "postcopy", 8) == 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' is in post-copy (QEMU says '%s'): cancelling migration %s can lose the guest. Let it "
            "end, or recover it (%s). --force cancels all the same.",
            found->vm, status, found->id,
            shell_vmferryctl(strcmp(found->role, "outgoing") == 0 ? "send" : "receive", found->id,
                             "--qmp=SOCKET --resume", command));
    if (strcmp(found->role, "outgoing") == 0 &&
        (strcmp(status, "active") == 0 || strcmp(status, "setup") == 0))
        return qmp_execute(qmp, "migrate_cancel", NULL, NULL, trouble);
    return 0;
}

static int cancel(struct side *side, const struct found *found, struct trouble *trouble)
{
    char doing[400];

    if (may_cancel(side, found, trouble) < 0)
        return -1;
    snprintf(doing, sizeof(doing), "Cannot cancel migration %s of VM '%s'", found->id, found->vm);
    return side_call(side, found->path, MIGRATION_INTERFACE, "Cancel", NULL, trouble, doing, NULL);
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
