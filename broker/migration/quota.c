/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/quota.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/helpers/stats-page.h"
#include "common/cleanup.h"

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A helper that lies about its own can count no more than one migration may have. */
static uint32_t channels_of(const struct entry *entry, uint32_t max)
{
    const struct stats *stats = entry->page ? entry->page->stats : NULL;
    uint32_t places = stats ? STATS_READ(stats->n_channels) : 0, n = 0;

    for (uint32_t i = 0; i < places && i < STATS_CHANNELS_MAX; i++) {
        uint16_t state = STATS_READ(stats->channels[i].state);

        n += state == STATS_CHANNEL_OPENING || state == STATS_CHANNEL_OPEN;
    }
    return least(n, max) + entry->n_waiting;
}

struct share {
    uid_t uid;
    uint32_t n;
};

static int compare(const void *a, const void *b)
{
    const struct share *one = a, *other = b;

    return (one->uid > other->uid) - (one->uid < other->uid);
}

/* What all users have together. A user other than root counts for no more than max_per_user: what a user has
 * beyond that, for a moment, is not at the cost of others. */
static uint32_t add_up(struct share *shares, size_t n, uint32_t max_per_user)
{
    uint32_t in_all = 0, of_user = 0;

    if (n > 0)
        qsort(shares, n, sizeof(*shares), compare);
    for (size_t i = 0; i < n; i++) {
        of_user += shares[i].n;
        if (i + 1 < n && shares[i + 1].uid == shares[i].uid)
            continue;
        in_all += shares[i].uid != 0 ? least(of_user, max_per_user) : of_user;
        of_user = 0;
    }
    return in_all;
}

/* Of a user other than root. At least one, so that no window is too large for anything. */
static uint32_t most_of_user(const struct config *config, bool *ret_by_windows)
{
    uint64_t by_windows = config->max_windows_per_user / config->window;

    *ret_by_windows = by_windows < config->max_channels_per_user;
    if (!*ret_by_windows)
        return config->max_channels_per_user;
    return by_windows > 0 ? (uint32_t)by_windows : 1;
}

int quota_admit(const struct registry *registry, const struct config *config, const struct entry *entry,
                uint32_t more, char why[static QUOTA_WHY_MAX])
{
    _cleanup_free_ struct share *shares = calloc(registry->n_running + 1, sizeof(*shares));
    const uid_t uid = entry->identity.uid;
    const struct entry *other;
    uint32_t of_user = 0, in_all, most;
    bool by_windows;
    size_t n = 0;

    if (!shares) {
        snprintf(why, QUOTA_WHY_MAX, "there is no memory to count what there is.");
        return -EDQUOT;
    }
    TAILQ_FOREACH(other, &registry->entries, next)
    {
        if (other->identity.state == STATE_FINISHED || n > registry->n_running)
            continue;
        shares[n] = (struct share){other->identity.uid, channels_of(other, config->max_channels)};
        if (other->identity.uid == uid)
            of_user += shares[n].n;
        n++;
    }
    most = most_of_user(config, &by_windows);
    in_all = add_up(shares, n, most);
    if (uid != 0 && of_user + more > most && by_windows)
        snprintf(why, QUOTA_WHY_MAX,
                 "uid %u may have %" PRIu64 " MiB for channels and sockets that wait, %" PRIu64
                 " MiB for each (MaxWindowsPerUserMiB=, WindowMiB=).",
                 uid, config->max_windows_per_user >> 20, config->window >> 20);
    else if (uid != 0 && of_user + more > most)
        snprintf(why, QUOTA_WHY_MAX,
                 "uid %u may have %" PRIu32 " channels and sockets that wait at once (MaxChannelsPerUser=).",
                 uid, most);
    else if (in_all + more > config->max_channels_in_all)
        snprintf(why, QUOTA_WHY_MAX,
                 "this host allows %" PRIu32 " channels and sockets that wait at once (MaxChannelsInAll=).",
                 config->max_channels_in_all);
    else
        return 0;
    return -EDQUOT;
}
