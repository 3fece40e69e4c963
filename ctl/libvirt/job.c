/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/qemu/qemu.h"

#define PAGE 4096 /* libvirt counts what the guest changes in pages */

struct job {
    struct job_order order;
    virTypedParameterPtr params;
    int n_params, max_params;
    struct thread *thread;
    int code;
    char words[1024];
};

static void run(void *argument)
{
    struct job *job = argument;
    const struct job_order *order = &job->order;
    const struct libvirt *libvirt = order->libvirt;
    virDomainPtr moved = NULL;
    int r = -1;

    if (order->far_uri) {
        r = libvirt->virDomainMigrateToURI3(order->domain, order->far_uri, job->params,
                                            (unsigned)job->n_params, order->flags);
    } else {
        moved = libvirt->virDomainMigrate3(order->domain, order->far, job->params, (unsigned)job->n_params,
                                           order->flags);
        r = moved ? 0 : -1;
        if (moved)
            libvirt->virDomainFree(moved);
    }
    if (r >= 0)
        return;
    job->code = libvirt_code(libvirt); /* its last error is this thread's */
    if (job->code == VIR_ERR_OK)
        job->code = VIR_ERR_INTERNAL_ERROR;
    snprintf(job->words, sizeof(job->words), "%s", libvirt_words(libvirt));
}

static int add_text(struct job *job, const char *key, const char *text)
{
    return text ? job->order.libvirt->virTypedParamsAddString(&job->params, &job->n_params, &job->max_params,
                                                              key, text)
                : 0;
}

static int add_number(struct job *job, const char *key, unsigned long long number)
{
    return number > 0 ? job->order.libvirt->virTypedParamsAddULLong(&job->params, &job->n_params,
                                                                    &job->max_params, key, number)
                      : 0;
}

static int add_params(struct job *job)
{
    const struct job_order *order = &job->order;
    int r = add_text(job, VIR_MIGRATE_PARAM_URI, order->uri);

    if (r >= 0)
        r = add_text(job, VIR_MIGRATE_PARAM_DISKS_URI, order->disks_uri);
    for (unsigned i = 0; r >= 0 && i < order->n_disks; i++)
        r = add_text(job, VIR_MIGRATE_PARAM_MIGRATE_DISKS, order->disks[i]);
    if (r >= 0)
        r = add_text(job, VIR_MIGRATE_PARAM_DEST_NAME, order->name);
    if (r >= 0)
        r = add_number(job, VIR_MIGRATE_PARAM_BANDWIDTH, order->bandwidth);
    if (r >= 0 && (order->flags & VIR_MIGRATE_POSTCOPY))
        r = add_number(job, VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY, order->bandwidth);
    if (r >= 0 && order->parallel > 0)
        r = order->libvirt->virTypedParamsAddInt(&job->params, &job->n_params, &job->max_params,
                                                 VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS,
                                                 (int)order->parallel);
    return r;
}

int job_begin(struct ctl *ctl, const struct job_order *order, struct job **ret, struct trouble *trouble)
{
    struct job *job = calloc(1, sizeof(*job));

    if (!job)
        return trouble_no_memory(trouble);
    job->order = *order;
    if (add_params(job) < 0) {
        trouble_set(trouble, STATUS_FAILED, "libvirt does not take what it is to be told: %s.",
                    libvirt_words(order->libvirt));
        job_free(job);
        return -1;
    }
    if (thread_begin(ctl, run, job, &job->thread, trouble) < 0) {
        job_free(job);
        return -1;
    }
    *ret = job;
    return 0;
}

bool job_is_over(const struct job *job)
{
    return thread_is_over(job->thread);
}

int job_code(const struct job *job)
{
    return job->code;
}

const char *job_words(const struct job *job)
{
    return job->words;
}

void job_free(struct job *job)
{
    if (!job)
        return;
    if (job->thread && !thread_is_over(job->thread)) {
        thread_leave(job->thread); /* what it uses stays */
        return;
    }
    thread_end(job->thread);
    job->order.libvirt->virTypedParamsFree(job->params, job->n_params);
    free(job);
}

static uint64_t number_of(const struct libvirt *libvirt, virTypedParameterPtr params, int n, const char *key)
{
    unsigned long long number = 0;

    return libvirt->virTypedParamsGetULLong(params, n, key, &number) > 0 ? number : 0;
}

bool job_read(const struct libvirt *libvirt, virDomainPtr domain, bool completed, struct job_stats *ret)
{
    virTypedParameterPtr params = NULL;
    int type = 0, n = 0;

    *ret = (struct job_stats){0};
    if (libvirt->virDomainGetJobStats(domain, &type, &params, &n,
                                      completed ? VIR_DOMAIN_JOB_STATS_COMPLETED : 0) < 0)
        return false;
    ret->active = type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED;
    ret->total = number_of(libvirt, params, n, VIR_DOMAIN_JOB_MEMORY_TOTAL);
    ret->remaining = number_of(libvirt, params, n, VIR_DOMAIN_JOB_MEMORY_REMAINING);
    ret->processed = number_of(libvirt, params, n, VIR_DOMAIN_JOB_MEMORY_PROCESSED);
    ret->passes = number_of(libvirt, params, n, VIR_DOMAIN_JOB_MEMORY_ITERATION);
    ret->dirty = PAGE * number_of(libvirt, params, n, VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE);
    ret->disk_total = number_of(libvirt, params, n, VIR_DOMAIN_JOB_DISK_TOTAL);
    ret->disk_remaining = number_of(libvirt, params, n, VIR_DOMAIN_JOB_DISK_REMAINING);
    ret->elapsed_msec = number_of(libvirt, params, n, VIR_DOMAIN_JOB_TIME_ELAPSED);
    if (completed) /* before, it is what QEMU expects */
        ret->downtime_msec =
            qemu_downtime(number_of(libvirt, params, n, VIR_DOMAIN_JOB_DOWNTIME), ret->elapsed_msec);
    libvirt->virTypedParamsFree(params, n);
    return true;
}
