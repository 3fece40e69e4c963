/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/report.h"

#include <stddef.h>
#include <string.h>

#include "common/words.h"

enum { MILLION = 1000000, ALMOST = 990000 /* not all before the VM has moved */ };

static const char *const phases[REPORT_PHASE_MAX_] = {
    [REPORT_PHASE_NONE] = "",
    [REPORT_PHASE_SETUP] = "setup",
    [REPORT_PHASE_PRECOPY] = "pre-copy",
    [REPORT_PHASE_SWITCHOVER] = "switchover",
    [REPORT_PHASE_POSTCOPY] = "post-copy",
    [REPORT_PHASE_PAUSED] = "paused",
    [REPORT_PHASE_RECOVERING] = "recovering",
    [REPORT_PHASE_FINISHING] = "finishing",
    [REPORT_PHASE_DISKS] = "disks",
};

static const char *const by_whom[REPORT_BY_MAX_] = {
    [REPORT_BY_NOBODY] = "",
    [REPORT_BY_OWNER] = "owner",
    [REPORT_BY_PEER] = "peer",
};

const char *report_phase_text(uint32_t phase)
{
    return phase < REPORT_PHASE_MAX_ ? phases[phase] : NULL;
}

const char *report_by_text(uint32_t by)
{
    return by < REPORT_BY_MAX_ ? by_whom[by] : NULL;
}

enum report_phase report_phase_of(const char *text)
{
    return word_number(phases, REPORT_PHASE_MAX_, text);
}

/* What is on its way: the disks while they are, else the memory. */
static uint64_t total_of(const struct progress *progress)
{
    return progress->phase == REPORT_PHASE_DISKS ? progress->disk_total : progress->memory_total;
}

static uint64_t left_of(const struct progress *progress)
{
    return progress->phase == REPORT_PHASE_DISKS ? progress->disk_remaining : progress->memory_remaining;
}

/* Of that; millionths, and one more. */
static uint32_t fraction_of(const struct progress *progress)
{
    double done;

    if (total_of(progress) == 0)
        return 0;
    if (left_of(progress) >= total_of(progress))
        return 1;
    done = 1 - (double)left_of(progress) / (double)total_of(progress);
    return (uint32_t)(done * MILLION < ALMOST ? done * MILLION : ALMOST) + 1;
}

/* At this rate, less what the guest changes meanwhile. */
static uint64_t remaining_of(const struct progress *progress, uint64_t rate)
{
    double usec;

    if (left_of(progress) == 0 || rate <= progress->dirty_rate)
        return 0;
    usec = (double)left_of(progress) / (double)(rate - progress->dirty_rate) * 1e6;
    return usec < 1e15 ? (uint64_t)usec : 0;
}

void report_update(struct report *report, const struct progress *progress, uint64_t rate)
{
    const bool same = progress->phase == report->progress.phase && progress->pass == report->progress.pass;
    uint32_t fraction = fraction_of(progress);

    report->progress = *progress;
    if (!same || fraction > report->fraction)
        report->fraction = fraction;
    report->rate = rate;
    report->remaining = remaining_of(progress, rate);
}

bool report_may_set(const struct report *report, const struct outcome *outcome, enum report_by by)
{
    if (report->by == by && memcmp(&report->outcome, outcome, sizeof(*outcome)) == 0)
        return false;
    return by == REPORT_BY_OWNER || report->by != REPORT_BY_OWNER;
}

double report_fraction(const struct report *report)
{
    if (report->outcome.outcome == VF_OUTCOME_MOVED)
        return 1;
    return report->fraction > 0 ? (double)(report->fraction - 1) / MILLION : -1;
}
