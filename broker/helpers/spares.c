/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/helpers/spares.h"

static unsigned more_of(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

/* Periods that have gone by without a call have seen no burst. */
static void turn_period(struct spares *spares, uint64_t now)
{
    const uint64_t since = now - spares->period_began;

    if (since < SPARES_PERIOD)
        return;
    spares->last_peak = since < 2 * SPARES_PERIOD ? spares->peak : 0;
    spares->peak = 0;
    spares->period_began = now - since % SPARES_PERIOD;
}

void spares_take(struct spares *spares, uint64_t now)
{
    turn_period(spares, now);
    if (now - spares->burst_began >= SPARES_BURST) {
        spares->burst = 0;
        spares->burst_began = now;
    }
    if (spares->burst < spares->max)
        spares->burst++;
    spares->peak = more_of(spares->peak, spares->burst);
}

unsigned spares_wanted(struct spares *spares, uint64_t now)
{
    unsigned wanted;

    turn_period(spares, now);
    wanted = more_of(more_of(spares->peak, spares->last_peak), 1);
    return wanted < spares->max ? wanted : spares->max;
}

uint64_t spares_fall_in(struct spares *spares, uint64_t now)
{
    turn_period(spares, now);
    if (more_of(spares->peak, spares->last_peak) <= 1)
        return UINT64_MAX;
    return spares->period_began + SPARES_PERIOD - now;
}
