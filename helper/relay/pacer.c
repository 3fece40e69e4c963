/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/relay/pacer.h"

enum { BURST_USEC = 50000, QUANTUM_USEC = 5000, SECOND_USEC = 1000000 };

/* Far more than a read takes, far less than overflows; and a size_t. */
#define TOKENS_MAX (SIZE_MAX > UINT32_MAX ? (int64_t)1 << 40 : (int64_t)1 << 31)

/* No rate overflows: it is taken in two parts, and usec is below a second. */
static int64_t worth(const struct pacer *pacer, uint64_t usec, uint32_t *fraction)
{
    uint64_t millionths = pacer->rate % SECOND_USEC * usec + *fraction;
    uint64_t bytes = pacer->rate / SECOND_USEC * usec + millionths / SECOND_USEC;

    *fraction = (uint32_t)(millionths % SECOND_USEC);
    return bytes < (uint64_t)TOKENS_MAX ? (int64_t)bytes : TOKENS_MAX;
}

/* The most that it holds, a byte at least. */
static int64_t burst(const struct pacer *pacer)
{
    uint32_t fraction = 0;
    int64_t bytes = worth(pacer, BURST_USEC, &fraction);

    return bytes > 1 ? bytes : 1;
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

/* Without a limit, as most migrations are, nobody waits for anybody. */
static bool is_unlimited(const struct pacer *pacer)
{
    return __atomic_load_n(&pacer->rate, __ATOMIC_RELAXED) == 0;
}

static size_t allows(struct pacer *pacer, uint64_t now)
{
    int64_t most = burst(pacer);

    if (pacer->rate == 0)
        return SIZE_MAX;
    if (now > pacer->at) {
        uint64_t past = now - pacer->at;

        /* Whole bytes are granted and the fraction is kept: none is lost, however often it is asked. */
        if (past >= SECOND_USEC)
            pacer->tokens = most;
        else
            pacer->tokens += worth(pacer, past, &pacer->fraction);
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
