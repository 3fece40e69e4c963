/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/totals.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/release.h"
#include "common/cleanup.h"
#include "common/clock.h"

static const uint8_t magic[8] = {'v', 'm', 'f', 't', 'o', 't', 'l', '1'};

/* The file, all of it. Another layout gets another magic. */
struct file {
    uint8_t magic[8];
    uint64_t last_id, last_started;
    uint32_t last_role, last_timed;
    struct totals_sums sums;
};

const uint64_t totals_bounds[TOTALS_BOUNDS] = {10000,   30000,    100000,   300000,   1000000,
                                               3000000, 10000000, 30000000, 100000000};

const char *totals_word(uint32_t position)
{
    uint32_t result = position + 2 - VF_OUTCOME_MAX_;

    if (position < VF_OUTCOME_MAX_ - 1)
        return vf_outcome_to_string(position + 1);
    return result == VF_RESULT_DONE ? "carried" : vf_result_to_string(result);
}

static uint32_t position_of(const struct tally *tally)
{
    return tally->outcome != VF_OUTCOME_NONE ? tally->outcome - 1 : VF_OUTCOME_MAX_ - 2 + tally->result;
}

/* 0, or a negative errno. */
static int read_file(const char *directory, struct file *ret)
{
    _cleanup_own_fd_ int fd = -1;
    char path[PATH_MAX];
    ssize_t n;

    snprintf(path, sizeof(path), "%s/totals", directory);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    n = read(fd, ret, sizeof(*ret));
    if (n < 0)
        return -errno;
    return n == sizeof(*ret) && memcmp(ret->magic, magic, sizeof(magic)) == 0 ? 0 : -EBADMSG;
}

void totals_open(struct totals *totals, const char *directory)
{
    struct file file;
    int r = directory ? read_file(directory, &file) : -ENOENT;

    *totals = (struct totals){.directory = directory, .sums.since = wall_now()};
    if (r >= 0) {
        totals->sums = file.sums;
        totals->last_id = file.last_id;
        totals->last_started = file.last_started;
        totals->last_role = file.last_role;
        totals->last_timed = file.last_timed;
    } else if (r != -ENOENT) {
        log_event(LOG_WARNING, NULL, NULL, "The totals of this host begin anew: their file %s.",
                  r == -EBADMSG ? "is of another version" : strerror(-r));
    }
}

/* A reader finds the old file or the new one. */
static int write_file(const struct totals *totals)
{
    struct file file = {.last_id = totals->last_id,
                        .last_started = totals->last_started,
                        .last_role = totals->last_role,
                        .last_timed = totals->last_timed,
                        .sums = totals->sums};
    char path[PATH_MAX], temporary[PATH_MAX];
    _cleanup_own_fd_ int fd = -1;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/totals", totals->directory);
    snprintf(temporary, sizeof(temporary), "%s/totals.new", totals->directory);
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    memcpy(file.magic, magic, sizeof(magic));
    n = write(fd, &file, sizeof(file));
    if (n != sizeof(file))
        return n < 0 ? -errno : -ENOSPC;
    return rename(temporary, path) < 0 ? -errno : 0;
}

static void add_downtime(struct totals_sums *sums, uint64_t downtime)
{
    if (downtime == 0)
        return;
    for (size_t i = 0; i < TOTALS_BOUNDS; i++)
        sums->downtimes[i] += downtime <= totals_bounds[i];
    sums->downtimes[TOTALS_BOUNDS]++;
    sums->downtime += downtime;
}

static void keep(struct totals *totals, const struct tally *tally)
{
    int r;

    totals->last_id = tally->id;
    totals->last_started = tally->started;
    totals->last_role = tally->role;
    totals->last_timed = tally->downtime > 0;
    r = totals->directory ? write_file(totals) : 0;
    if (r < 0)
        log_event(LOG_WARNING, NULL, NULL, "The totals of this host cannot be written: %s.", strerror(-r));
}

void totals_add(struct totals *totals, const struct tally *tally)
{
    struct totals_sums *sums = &totals->sums;

    sums->migrations[tally->role][position_of(tally)]++;
    sums->sent += tally->sent;
    sums->received += tally->received;
    sums->reconnects += tally->reconnects;
    sums->interrupted += tally->interrupted;
    add_downtime(sums, tally->downtime);
    keep(totals, tally);
}

void totals_add_downtime(struct totals *totals, const struct tally *tally)
{
    add_downtime(&totals->sums, tally->downtime);
    keep(totals, tally);
}

bool totals_is_last(const struct totals *totals, uint64_t id, uint32_t role, uint64_t started)
{
    return totals->last_id == id && totals->last_role == role && totals->last_started == started;
}
