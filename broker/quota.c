/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "quota.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "migration.h"

/* A helper that lies about its own can count no more than the page has places. */
static uint32_t channels_of(const struct migration *migration)
{
    const struct stats *stats = migration->page.stats;
    uint32_t places = stats ? STATS_READ(stats->n_channels) : 0;
    uint32_t n = (uint32_t)migration->supplied.n_peers;

    for (uint32_t i = 0; i < migration->options.n_streams; i++)
        n += (uint32_t)migration->streams[i].n_supplied;
    for (uint32_t i = 0; i < places && i < STATS_CHANNELS_MAX; i++) {
        uint16_t state = STATS_READ(stats->channels[i].state);

        n += state == STATS_CHANNEL_OPENING || state == STATS_CHANNEL_OPEN;
    }
    return n;
}

int quota_admit(const struct migration *migration, uint32_t more, char why[static QUOTA_WHY_MAX])
{
    const struct config *config = migration->manager->config;
    const struct migration *other;
    uint32_t of_user = 0, in_all = 0;

    TAILQ_FOREACH(other, &migration->manager->migrations, entry)
    {
        uint32_t n = other->state == STATE_FINISHED ? 0 : channels_of(other);

        in_all += n;
        if (other->uid == migration->uid)
            of_user += n;
    }
    if (migration->uid != 0 && of_user + more > config->max_channels_per_user)
        snprintf(why, QUOTA_WHY_MAX,
                 "uid %u may have %" PRIu32 " channels and sockets that wait at once (MaxChannelsPerUser=).",
                 migration->uid, config->max_channels_per_user);
    else if (in_all + more > config->max_channels_in_all)
        snprintf(why, QUOTA_WHY_MAX,
                 "this host allows %" PRIu32 " channels and sockets that wait at once (MaxChannelsInAll=).",
                 config->max_channels_in_all);
    else
        return 0;
    return -EDQUOT;
}
