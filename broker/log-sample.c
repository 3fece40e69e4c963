/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/log-sample.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/log.h"
#include "common/clock.h"

bool log_sample_at(struct log_sample *sample, uint32_t burst, uint64_t now, uint32_t *ret_suppressed)
{
    *ret_suppressed = 0;
    if (sample->n == 0 || now - sample->begin >= LOG_SAMPLE_INTERVAL) {
        *ret_suppressed = sample->suppressed;
        *sample = (struct log_sample){.begin = now};
    }
    if (sample->n < burst) {
        sample->n++;
        return true;
    }
    sample->suppressed += sample->suppressed < UINT32_MAX;
    return false;
}

static void say_suppressed(uint32_t n, const char *what, const char *key)
{
    if (n > 0)
        log_event(LOG_NOTICE, NULL, NULL, "%" PRIu32 " messages about %s%s%s were suppressed.", n, what,
                  key ? " of " : "", key ? key : "");
}

bool log_sample(struct log_sample *sample, const char *what)
{
    uint32_t suppressed;
    bool r = log_sample_at(sample, LOG_SAMPLE_BURST, exact_now(), &suppressed);

    say_suppressed(suppressed, what, NULL);
    return r;
}

/* That of the key. What was suppressed of one that makes room counts for all. */
static struct log_sample *sample_of(struct log_samples *samples, const char *key, uint64_t now)
{
    size_t oldest = 0, i;

    for (i = 0; i < LOG_SAMPLE_KEYS; i++) {
        if (strncmp(samples->each[i].key, key, LOG_SAMPLE_KEY_MAX - 1) == 0)
            break;
        if (samples->each[i].last < samples->each[oldest].last)
            oldest = i;
    }
    if (i == LOG_SAMPLE_KEYS) {
        i = oldest;
        samples->all.suppressed += samples->each[i].sample.suppressed;
        samples->each[i].sample = (struct log_sample){0};
        snprintf(samples->each[i].key, LOG_SAMPLE_KEY_MAX, "%s", key);
    }
    samples->each[i].last = now;
    return &samples->each[i].sample;
}

bool log_samples_at(struct log_samples *samples, const char *key, uint64_t now, uint32_t *ret_suppressed,
                    uint32_t *ret_suppressed_of_all)
{
    *ret_suppressed_of_all = 0;
    return log_sample_at(sample_of(samples, key, now), LOG_SAMPLE_BURST, now, ret_suppressed) &&
           log_sample_at(&samples->all, LOG_SAMPLE_ALL, now, ret_suppressed_of_all);
}

bool log_sample_of(struct log_samples *samples, const char *key, const char *what)
{
    uint32_t suppressed, of_all;
    bool r = log_samples_at(samples, key, exact_now(), &suppressed, &of_all);

    say_suppressed(suppressed, what, key);
    say_suppressed(of_all, what, NULL);
    return r;
}
