/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/relay/pacer.h"

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
    pthread_mutex_lock(&pacer->lock);
    __atomic_store_n(&pacer->rate, rate, __ATOMIC_RELAXED);
    pacer->at = now;
    pacer->tokens = 0;
    pacer->fraction = 0;
    pacer->round++; /* what a flow had of the old rate is void */
    pacer->share = UINT64_MAX;
    pthread_mutex_unlock(&pacer->lock);
}

/* Most migrations have no limit: then no thread waits for another one here. */
static bool is_unlimited(const struct pacer *pacer)
{
    return __atomic_load_n(&pacer->rate, __ATOMIC_RELAXED) == 0;
}

static size_t allows(struct pacer *pacer, uint64_t now)
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

static bool is_open(const struct pacer *pacer)
{
    return pacer->rate == 0 || pacer->tokens > 0;
}

static uint64_t left_of(const struct pacer *pacer, const struct pacer_share *share)
{
    return share->round == pacer->round ? share->left : pacer->share;
}

void pacer_next_round(struct pacer *pacer, uint64_t now, uint32_t n_flows)
{
    size_t all;

    pthread_mutex_lock(&pacer->lock);
    all = allows(pacer, now);
    pacer->round++;
    pacer->share = n_flows > 1 ? all / n_flows + 1 : all;
    pthread_mutex_unlock(&pacer->lock);
}

size_t pacer_allows(struct pacer *pacer, const struct pacer_share *share, uint64_t now)
{
    size_t n;

    if (is_unlimited(pacer))
        return SIZE_MAX;
    pthread_mutex_lock(&pacer->lock);
    n = allows(pacer, now);
    if (pacer->rate != 0 && left_of(pacer, share) < n)
        n = (size_t)left_of(pacer, share);
    pthread_mutex_unlock(&pacer->lock);
    return n;
}

void pacer_take(struct pacer *pacer, struct pacer_share *share, size_t n)
{
    uint64_t left;

    if (is_unlimited(pacer))
        return;
    pthread_mutex_lock(&pacer->lock);
    pacer->tokens -= (int64_t)n;
    left = left_of(pacer, share);
    *share = (struct pacer_share){.round = pacer->round, .left = left - (n < left ? n : left)};
    pthread_mutex_unlock(&pacer->lock);
}

bool pacer_holds_back(struct pacer *pacer, const struct pacer_share *share)
{
    bool r;

    if (is_unlimited(pacer))
        return false;
    pthread_mutex_lock(&pacer->lock);
    r = pacer->rate != 0 && (!is_open(pacer) || left_of(pacer, share) == 0);
    pthread_mutex_unlock(&pacer->lock);
    return r;
}

uint64_t pacer_wait_usec(struct pacer *pacer)
{
    uint64_t missing = 0;

    pthread_mutex_lock(&pacer->lock);
    if (!is_open(pacer)) {
        /* Not for each byte anew: a quantum's worth at a time, at least a byte's. */
        missing = (uint64_t)(1 - pacer->tokens) * SECOND_USEC / pacer->rate + 1;
        if (missing < QUANTUM_USEC)
            missing = QUANTUM_USEC;
    }
    pthread_mutex_unlock(&pacer->lock);
    return missing;
}
