/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How often something may be done: a token bucket. Pure; the caller brings the time. */

#include <stdbool.h>
#include <stdint.h>

struct rate_limit {
    uint32_t per_second;
    uint32_t burst; /* so many at once, after a pause */
};

/* All zero: a full bucket. */
struct rate {
    uint64_t missing; /* millionths of what the full bucket has */
    uint64_t last;    /* µs; when that was */
};

/* How much it lacks now. */
static inline uint64_t rate_missing(const struct rate *rate, const struct rate_limit *limit, uint64_t now)
{
    uint64_t since = now > rate->last ? now - rate->last : 0;

    if (since > UINT64_MAX / (limit->per_second + 1ULL) || since * limit->per_second >= rate->missing)
        return 0;
    return rate->missing - since * limit->per_second;
}

/*
 * Takes so many of it; false: it has not so many, and nothing is taken. Of more than the burst the whole
 * bucket is the price, so that nothing is impossible for ever. now: µs, of a clock that does not go back.
 */
static inline bool rate_take(struct rate *rate, const struct rate_limit *limit, uint32_t n, uint64_t now)
{
    uint64_t full = (uint64_t)limit->burst * 1000000, price = (uint64_t)n * 1000000;
    uint64_t missing = rate_missing(rate, limit, now);

    price = price < full ? price : full;
    if (missing + price > full)
        return false;
    *rate = (struct rate){.missing = missing + price, .last = now};
    return true;
}
