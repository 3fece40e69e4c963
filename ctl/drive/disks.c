/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/disks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/report.h"
#include "ctl/drive/disks-choose.h"
#include "ctl/qemu/qemu.h"
#include "ctl/terminal/meter.h"

#define LOOK        (SECOND / 4)
#define LOOK_FINISH (SECOND / 200) /* the VM stands still meanwhile */
#define FINISH_MAX  (60 * SECOND)
#define STOP_MAX    (10 * SECOND)
#define EXPORT_MAX  32

enum stage {
    FOUND,     /* nothing has begun */
    MIRRORING, /* there may be a server, nodes and jobs */
    OVER,      /* source and copy were equal when the VM stood still; nothing is left of the mirrors */
    UNDONE,
};

struct disks {
    struct ctl *ctl;
    struct qmp *near, *far; /* borrowed */
    struct disk_pair pair[DISKS_MAX];
    char export[DISKS_MAX][EXPORT_MAX]; /* the name of the job, too, and of the node at the source */
    unsigned n;
    enum stage stage;
};

static void name_export(struct disks *disks, unsigned number)
{
    snprintf(disks->export[number], EXPORT_MAX, "vmferry-disk%u", number);
}

int disks_find(struct ctl *ctl, struct side *source, struct qmp *near, struct qmp *far, struct disks **ret,
               struct trouble *trouble)
{
    struct disks *disks = calloc(1, sizeof(*disks));
    int n;

    if (!disks)
        return trouble_no_memory(trouble);
    *disks = (struct disks){.ctl = ctl, .near = near, .far = far};
    n = disks_choose(source, near, far, disks->pair, trouble);
    if (n < 0) {
        free(disks);
        return -1;
    }
    disks->n = (unsigned)n;
    for (unsigned i = 0; i < disks->n; i++)
        name_export(disks, i);
    *ret = disks;
    return 0;
}

/* Jobs that have ended, and their targets: with these the connections to the destination go. */
static void remove_jobs(struct disks *disks, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        block_job_remove(disks->near, disks->export[i]);
        block_node_remove(disks->near, disks->export[i]);
    }
}

static bool export_is_gone(struct disks *disks, unsigned i)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};

    return block_export_remove(disks->far, disks->export[i], &refused) >= 0 ||
           (refused.text && strstr(refused.text, "not found"));
}

/*
 * Removes the exports, each once its client's last word has come: else the tunnel would have bytes for
 * nobody, and fail. One that is not there was removed before.
 */
static bool wait_unused(struct disks *disks, unsigned n)
{
    uint64_t end = ctl_now() + FINISH_MAX;

    for (unsigned i = 0; i < n; i++)
        while (!export_is_gone(disks, i))
            if (!qmp_is_open(disks->far) || ctl_now() > end || ctl_turn(disks->ctl, LOOK_FINISH, NULL) < 0)
                return false;
    return true;
}

static int still_used(const struct disks *disks, struct trouble *trouble)
{
    return trouble_set(trouble, STATUS_FAILED, "%s does not close its disks.", qmp_name(disks->far));
}

/*
 * Of a vmferryctl that has ended while QEMU waits for it to go on. It removes a job only once all have ended
 * well, and one that has failed stays: without the first job all copies are equal, for the VM stands still.
 */
static int tidy(struct disks *disks, struct trouble *trouble)
{
    for (unsigned i = 0; i < DISKS_MAX; i++)
        name_export(disks, i);
    remove_jobs(disks, DISKS_MAX);
    if (!wait_unused(disks, DISKS_MAX))
        return still_used(disks, trouble);
    block_serve_end(disks->far, NULL); /* it may have ended before */
    return 0;
}

int disks_take_over(struct ctl *ctl, struct qmp *near, struct qmp *far, struct disks **ret,
                    struct trouble *trouble)
{
    _cleanup_json_ json_object *list = NULL;
    struct qemu_info info;
    struct disks *disks;
    struct block_job job;

    *ret = NULL;
    if (qemu_query(near, &info, trouble) < 0 || block_jobs(near, &list, trouble) < 0)
        return -1;
    disks = calloc(1, sizeof(*disks));
    if (!disks)
        return trouble_no_memory(trouble);
    *disks = (struct disks){.ctl = ctl, .near = near, .far = far, .stage = MIRRORING};
    for (; disks->n < DISKS_MAX; disks->n++) {
        name_export(disks, disks->n);
        block_read_job(list, disks->export[disks->n], &job);
        if (job.state == BLOCK_JOB_NONE)
            break;
        strcpy(disks->pair[disks->n].near.name, disks->export[disks->n]);
    }
    if (disks->n == 0 && strcmp(info.status, "pre-switchover") != 0) {
        free(disks);
        return 0;
    }
    if (disks->n == 0 && tidy(disks, trouble) < 0) {
        free(disks);
        return -1;
    }
    *ret = disks;
    return 0;
}

unsigned disks_count(const struct disks *disks)
{
    return disks ? disks->n : 0;
}

/* ---- Mirroring ---- */

/* The lock of an image that the source has open is not to be had where both see the same file. */
static int export(struct disks *disks, unsigned i, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};

    if (block_export(disks->far, disks->pair[i].far.node, disks->export[i], &refused) >= 0)
        return 0;
    if (refused.text && strstr(refused.text, "lock"))
        return trouble_set(
            trouble, STATUS_FAILED,
            "Disk '%s' is on storage that both hosts share (%s). Name in --disks= the disks that are "
            "to go, without it.",
            disks->pair[i].near.name, refused.text);
    return trouble_set(trouble, refused.status, "%s", refused.text ? refused.text : "");
}

/* What a vmferryctl that was killed has left there. */
static void clear_leftovers(struct disks *disks)
{
    struct block_job job;

    for (unsigned i = 0; i < disks->n; i++) {
        _cleanup_json_ json_object *list = NULL;

        if (block_jobs(disks->near, &list, NULL) < 0)
            return;
        block_read_job(list, disks->export[i], &job);
        if (job.state != BLOCK_JOB_NONE) {
            disks->stage = MIRRORING;
            disks_undo(disks);
            disks->stage = FOUND;
            return;
        }
    }
}

/* How far all are, and whether one has failed. */
static int look(struct disks *disks, struct block_job *ret_sum, struct trouble *trouble)
{
    _cleanup_json_ json_object *list = NULL;
    struct block_job job;

    *ret_sum = (struct block_job){.state = BLOCK_JOB_ENDED};
    if (block_jobs(disks->near, &list, trouble) < 0)
        return -1;
    for (unsigned i = 0; i < disks->n; i++) {
        block_read_job(list, disks->export[i], &job);
        if (job.state == BLOCK_JOB_NONE || job.error[0])
            return trouble_set(trouble, STATUS_FAILED, "Disk '%s' cannot be copied: %s.",
                               disks->pair[i].near.name, job.error[0] ? job.error : "its mirror job is gone");
        ret_sum->done += job.done;
        ret_sum->total += job.total;
        if (job.state < ret_sum->state)
            ret_sum->state = job.state;
    }
    return 0;
}

static void show(struct meter *meter, const struct tunnel *tunnel, const struct tunnel *destination,
                 const struct block_job *sum)
{
    const struct report_progress report = {
        .phase = "disks", .disk_total = sum->total, .disk_remaining = sum->total - sum->done};
    _cleanup_json_ json_object *record = NULL;
    struct progress progress = {.vm = tunnel->vm, .phase = "disks"};

    report_progress(tunnel, &report);
    report_progress(destination, &report);
    if (tunnel_read(tunnel, &record, NULL) < 0)
        return;
    progress.fraction = sum->total > 0 ? (double)sum->done / (double)sum->total : -1;
    progress.bytes = record_number(record, "BytesSent");
    progress.rate = record_number(record, "Rate");
    progress.has_memory = true;
    progress.remaining = sum->total - sum->done;
    progress.reconnects = (uint32_t)record_number(record, "Reconnects");
    meter_update(meter, &progress);
}

static int wait_ready(struct disks *disks, const struct tunnel *tunnel, const struct tunnel *destination,
                      struct trouble *trouble)
{
    struct meter meter = {0};
    struct block_job sum = {.state = BLOCK_JOB_RUNS};
    int r = 0;

    meter_open(&meter, disks->ctl);
    while (r >= 0 && sum.state < BLOCK_JOB_READY) {
        r = look(disks, &sum, trouble);
        if (r >= 0 && disks->ctl->interrupts > 0)
            r = trouble_set(trouble, STATUS_CANCELLED,
                            "Cancelled: VM '%s' was not moved; it runs on at the source, on its own disks.",
                            tunnel->vm);
        if (r < 0 || sum.state >= BLOCK_JOB_READY)
            break;
        show(&meter, tunnel, destination, &sum);
        r = ctl_turn(disks->ctl, LOOK, trouble);
    }
    meter_clear(&meter);
    return r;
}

/* The stream's socket at that end, checked as that of "migrate". The caller's. */
static char *socket_of(const struct tunnel *tunnel, uid_t qemu, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    struct tunnel disks = *tunnel;

    if (tunnel_read(tunnel, &record, trouble) < 0)
        return NULL;
    disks.socket = strdup(record_socket(record, "disks"));
    if (!disks.socket)
        trouble_no_memory(trouble);
    else if (disks.socket[0] && tunnel_check_socket(&disks, qemu, trouble) >= 0)
        return disks.socket;
    else
        trouble_set(trouble, STATUS_FAILED, "Migration %s has no socket for the stream 'disks'.",
                    tunnel_id(tunnel));
    free(disks.socket);
    return NULL;
}

static int begin(struct disks *disks, const char *near, const char *far, struct trouble *trouble)
{
    if (block_serve(disks->far, far, trouble) < 0)
        return -1;
    disks->stage = MIRRORING;
    for (unsigned i = 0; i < disks->n; i++)
        if (export(disks, i, trouble) < 0)
            return -1;
    for (unsigned i = 0; i < disks->n; i++)
        if (block_mirror(disks->near, disks->pair[i].near.node, near, disks->export[i], trouble) < 0)
            return -1;
    return 0;
}

int disks_mirror(struct disks *disks, const struct tunnel *source, const struct tunnel *destination,
                 struct trouble *trouble)
{
    _cleanup_free_ char *near = NULL, *far = NULL;

    if (disks->n == 0)
        return 0;
    clear_leftovers(disks);
    near = socket_of(source, qmp_uid(disks->near), trouble);
    far = near ? socket_of(destination, qmp_uid(disks->far), trouble) : NULL;
    return far && begin(disks, near, far, trouble) >= 0 ? wait_ready(disks, source, destination, trouble)
                                                        : -1;
}

int disks_check(struct disks *disks, struct trouble *trouble)
{
    struct block_job sum;

    return !disks || disks->n == 0 || disks->stage != MIRRORING ? 0 : look(disks, &sum, trouble);
}

/* ---- The end ---- */

/* Waits until all jobs have ended. False: they have not, or QEMU cannot be asked. */
static bool wait_ended(struct disks *disks, uint64_t usec)
{
    struct block_job job;

    for (uint64_t end = ctl_now() + usec; ctl_now() < end;) {
        _cleanup_json_ json_object *list = NULL;
        bool ended = true;

        if (block_jobs(disks->near, &list, NULL) < 0)
            return false;
        for (unsigned i = 0; i < disks->n; i++) {
            block_read_job(list, disks->export[i], &job);
            ended = ended && (job.state == BLOCK_JOB_NONE || job.state == BLOCK_JOB_ENDED);
        }
        if (ended)
            return true;
        if (ctl_turn(disks->ctl, LOOK_FINISH, NULL) < 0)
            return false;
    }
    return false;
}

/* One that was told so by a vmferryctl that has ended, may have ended, too. */
static int finish_jobs(struct disks *disks, struct trouble *trouble)
{
    _cleanup_json_ json_object *list = NULL;
    struct block_job job;

    if (block_jobs(disks->near, &list, trouble) < 0)
        return -1;
    for (unsigned i = 0; i < disks->n; i++) {
        block_read_job(list, disks->export[i], &job);
        if (job.state == BLOCK_JOB_READY && block_job_finish(disks->near, disks->export[i], trouble) < 0)
            return -1;
    }
    return 0;
}

/*
 * While the VM stands still. The order, in which each step needs the one before it:
 *
 *     block-job-complete    the mirrors write their rest, and end; source and copy are equal
 *     look()                none has failed: a job that failed would be removed below unseen
 *     remove_jobs()         QEMU at the source closes its connections to the destination
 *     wait_unused()         QEMU at the destination has heard that, and lets go of the exports
 *     block_serve_end()     its server ends; only then may the VM start there
 */
int disks_finish(struct disks *disks, struct trouble *trouble)
{
    struct block_job sum;

    if (disks->n > 0) {
        if (finish_jobs(disks, trouble) < 0)
            return -1;
        if (!wait_ended(disks, FINISH_MAX))
            return trouble_set(trouble, STATUS_FAILED, "The copies of the disks do not come to their end.");
        if (look(disks, &sum, trouble) < 0)
            return -1;
        remove_jobs(disks, disks->n);
        /* Before the VM starts there: nothing may write to its disks beside it. */
        if (!wait_unused(disks, disks->n) || block_serve_end(disks->far, trouble) < 0)
            return still_used(disks, trouble);
    }
    disks->stage = OVER;
    return 0;
}

bool disks_are_over(const struct disks *disks)
{
    return !disks || disks->stage == OVER;
}

void disks_undo(struct disks *disks)
{
    if (!disks || disks->stage != MIRRORING)
        return;
    /* The jobs first: a server that goes under a running mirror would make it fail. */
    disks->stage = UNDONE;
    if (qmp_is_open(disks->near)) {
        for (unsigned i = 0; i < disks->n; i++)
            block_job_stop(disks->near, disks->export[i]);
        if (wait_ended(disks, STOP_MAX))
            remove_jobs(disks, disks->n);
    }
    if (qmp_is_open(disks->far))
        block_serve_end(disks->far, NULL);
}

void disks_free(struct disks *disks)
{
    free(disks);
}
