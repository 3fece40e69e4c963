/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/registry.h"

#include <stdlib.h>

#include "broker/migration/log.h"
#include "common/cleanup.h"

void registry_init(struct registry *registry, void (*forget)(struct migration *migration))
{
    *registry = (struct registry){.forget = forget};
    TAILQ_INIT(&registry->entries);
    for (size_t i = 0; i < REGISTRY_BUCKETS; i++)
        LIST_INIT(&registry->buckets[i]);
}

void registry_add(struct registry *registry, struct entry *entry)
{
    TAILQ_INSERT_TAIL(&registry->entries, entry, next);
    LIST_INSERT_HEAD(&registry->buckets[entry->identity.id % REGISTRY_BUCKETS], entry, same_bucket);
    registry->n_running++;
}

void registry_remove(struct registry *registry, struct entry *entry)
{
    TAILQ_REMOVE(&registry->entries, entry, next);
    LIST_REMOVE(entry, same_bucket);
    if (entry->identity.state == STATE_FINISHED)
        registry->n_finished--;
    else
        registry->n_running--;
}

struct entry *registry_next(const struct registry *registry, const struct entry *previous)
{
    return previous ? TAILQ_NEXT(previous, next) : TAILQ_FIRST(&registry->entries);
}

uint32_t registry_count(const struct registry *registry)
{
    return registry->n_running + registry->n_finished;
}

uint32_t registry_count_running(const struct registry *registry)
{
    return registry->n_running;
}

struct entry *registry_next_of_id(const struct registry *registry, enum message_role role, uint64_t id,
                                  const struct entry *previous)
{
    struct entry *entry =
        previous ? LIST_NEXT(previous, same_bucket) : LIST_FIRST(&registry->buckets[id % REGISTRY_BUCKETS]);

    while (entry && (entry->identity.id != id || entry->identity.role != role))
        entry = LIST_NEXT(entry, same_bucket);
    return entry;
}

struct entry *registry_find(const struct registry *registry, enum message_role role, uint64_t id,
                            uint32_t number)
{
    struct entry *entry = NULL;

    while ((entry = registry_next_of_id(registry, role, id, entry)) && entry->identity.number != number)
        ;
    return entry;
}

uint32_t registry_free_number(const struct registry *registry, enum message_role role, uint64_t id)
{
    uint32_t number = 0;

    while (registry_find(registry, role, id, number))
        number++;
    return number;
}

bool registry_set_state(struct registry *registry, struct entry *entry, enum message_state state)
{
    struct identity *identity = &entry->identity;

    if (identity->state == state)
        return true;
    if (identity->state == STATE_FINISHED || state == STATE_WAITING || state >= STATE_MAX_) {
        migration_log(identity, LOG_ERR, NULL, "%s cannot become %s.", state_text(identity->state),
                      state < STATE_MAX_ ? state_text(state) : "what there is not");
        return false;
    }
    migration_log(identity, LOG_DEBUG, NULL, "%s → %s", state_text(identity->state), state_text(state));
    identity->state = state;
    if (state == STATE_FINISHED) {
        registry->n_running--;
        registry->n_finished++;
    }
    return true;
}

struct share {
    uid_t uid;
    uint32_t n;
    struct entry *oldest;
};

/* The oldest finished one of the user that has the most; NULL: there is none. */
static struct entry *least_missed(const struct registry *registry)
{
    _cleanup_free_ struct share *shares = calloc(registry->n_finished + 1, sizeof(*shares));
    struct share most = {0};
    struct entry *entry;
    size_t n = 0, i;

    TAILQ_FOREACH(entry, &registry->entries, next)
    {
        if (entry->identity.state != STATE_FINISHED)
            continue;
        if (!shares)
            return entry;
        for (i = 0; i < n && shares[i].uid != entry->identity.uid; i++)
            ;
        if (i == n)
            shares[n++] = (struct share){.uid = entry->identity.uid, .oldest = entry};
        shares[i].n++;
    }
    for (i = 0; i < n; i++)
        if (shares[i].n > most.n)
            most = shares[i];
    return most.oldest;
}

void registry_forget_until(struct registry *registry, bool (*enough)(void *userdata), void *userdata)
{
    struct entry *entry;

    while (!enough(userdata) && (entry = least_missed(registry)))
        registry->forget(entry->migration);
}
