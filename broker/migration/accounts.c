/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/accounts.h"

#include "broker/helpers/stats-page.h"
#include "common/clock.h"

/* Those that are over, and the one that is going on. */
static uint64_t interrupted_until(const struct account *account, uint64_t now)
{
    return account->interrupted_since > 0 && now > account->interrupted_since
               ? account->interrupted + now - account->interrupted_since
               : account->interrupted;
}

void accounts_set_state(const struct migration_services *services, struct entry *entry,
                        enum message_state state)
{
    struct account *account = &entry->account;
    const uint64_t now = turn_now(services->event);

    if (account->interrupted_since > 0 && state != STATE_INTERRUPTED) {
        account->interrupted = interrupted_until(account, now);
        account->interrupted_since = 0;
    } else if (account->interrupted_since == 0 && state == STATE_INTERRUPTED) {
        account->interrupted_since = now;
    }
}

/* What moves while it runs. */
static struct tally tally_of(const struct entry *entry, uint64_t now)
{
    const struct stats *stats = entry->page->stats;
    struct tally tally = {.id = entry->identity.id,
                          .started = entry->identity.started,
                          .role = entry->identity.role,
                          .interrupted = interrupted_until(&entry->account, now)};

    if (!stats)
        return tally;
    tally.sent = STATS_READ(stats->sent);
    tally.received = STATS_READ(stats->received);
    tally.reconnects = STATS_READ(stats->reconnects);
    return tally;
}

void accounts_add(const struct migration_services *services, struct entry *entry,
                  const struct migration_status *status)
{
    struct tally tally;

    if (entry->account.timed)
        return;
    tally = tally_of(entry, turn_now(services->event));
    tally.outcome = status->report.outcome.outcome;
    tally.downtime = tally.outcome == VF_OUTCOME_MOVED ? status->report.outcome.downtime : 0;
    tally.result = status->result;
    if (!entry->account.added)
        totals_add(services->totals, &tally);
    else if (tally.downtime > 0)
        totals_add_downtime(services->totals, &tally);
    entry->account.added = true;
    entry->account.timed = tally.outcome != VF_OUTCOME_MOVED || tally.downtime > 0;
}

void accounts_sum(const struct migration_services *services, struct totals_sums *ret)
{
    const uint64_t now = turn_now(services->event);
    const struct entry *entry;

    *ret = services->totals->sums;
    for (entry = registry_next(services->registry, NULL); entry;
         entry = registry_next(services->registry, entry)) {
        const struct tally tally = tally_of(entry, now);

        if (entry->account.added)
            continue;
        ret->sent += tally.sent;
        ret->received += tally.received;
        ret->reconnects += tally.reconnects;
        ret->interrupted += tally.interrupted;
    }
}
