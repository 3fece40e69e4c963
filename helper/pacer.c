/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pacer.h"

enum { BURST_USEC = 50000, QUANTUM_USEC = 5000, SECOND_USEC = 1000000 };

#define TOKENS_MAX ((int64_t)1 << 40) /* far more than a read takes, far less than overflows */

static int64_t worth(const struct pacer *pacer, uint64_t usec)
{
    /* In two parts, so that a large rate does not overflow; usec is at most a burst. */
    uint64_t bytes = pacer->rate / SECOND_USEC * usec + pacer->rate % SECOND_USEC * usec / SECOND_USEC;

    return bytes < TOKENS_MAX ? (int64_t)bytes : TOKENS_MAX;
}

/* Grants whole bytes and keeps the fraction: none is lost, however often it is asked. past is below 1 s. */
static void fill(struct pacer *pacer, uint64_t past)
{
    __extension__ unsigned __int128 credit = (unsigned __int128)pacer->rate * past + pacer->fraction;
    __extension__ unsigned __int128 bytes = credit / SECOND_USEC;

    pacer->fraction = (uint32_t)(credit % SECOND_USEC);
    pacer->tokens += bytes < TOKENS_MAX ? (int64_t)bytes : TOKENS_MAX;
}

void pacer_set(struct pacer *pacer, uint64_t rate, uint64_t now)
{
    *pacer = (struct pacer){.rate = rate, .at = now, .round = 1, .share = UINT64_MAX};
}

size_t pacer_allows(struct pacer *pacer, uint64_t now)
{
    int64_t most = worth(pacer, BURST_USEC);

    if (pacer->rate == 0)
        return SIZE_MAX;
    if (most < 1)
        most = 1;
    if (now > pacer->at) {
        uint64_t past = now - pacer->at;

        if (past >= SECOND_USEC) {
            pacer->tokens = most;
        } else {
            fill(pacer, past);
        }
        pacer->at = now;
        if (pacer->tokens > most)
            pacer->tokens = most;
    }
    return pacer->tokens > 0 ? (size_t)pacer->tokens : 0;
}

void pacer_share(struct pacer *pacer, uint64_t now, uint32_t n_flows)
{
    size_t all = pacer_allows(pacer, now);

    pacer->round++;
    pacer->share = n_flows > 1 ? all / n_flows + 1 : all;
}

void pacer_take(struct pacer *pacer, size_t n)
{
    if (pacer->rate != 0)
        pacer->tokens -= (int64_t)n;
}

bool pacer_open(const struct pacer *pacer)
{
    return pacer->rate == 0 || pacer->tokens > 0;
}

uint64_t pacer_wait_usec(const struct pacer *pacer)
{
    uint64_t missing;

    if (pacer_open(pacer))
        return 0;
    /* Not for each byte anew: a quantum's worth at a time, at least a byte's. */
    missing = (uint64_t)(1 - pacer->tokens) * SECOND_USEC / pacer->rate + 1;
    return missing > QUANTUM_USEC ? missing : QUANTUM_USEC;
}
