/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/admit.h"

#include <inttypes.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/log.h"

enum {
    STORED_BESIDES = 4 /* descriptors of a migration besides its listeners: link, page, and two records */
};

static bool few_are_kept(void *userdata)
{
    const struct registry *registry = userdata;

    return registry->n_finished < FINISHED_MAX;
}

int admit_new(struct registry *registry, const struct config *config, enum message_role role, const char *vm,
              uid_t uid, sd_bus_error *error)
{
    const struct identity *namesake = NULL;
    const struct entry *entry;
    uint32_t of_user = 0;

    TAILQ_FOREACH(entry, &registry->entries, next)
    {
        const struct identity *identity = &entry->identity;

        if (identity->state == STATE_FINISHED)
            continue;
        bool same = identity->role == role && strcmp(identity->vm, vm) == 0;

        if (identity->uid != uid) {
            namesake = same ? identity : namesake;
            continue;
        }
        of_user++;
        if (same)
            return error_set(
                error, VF_ERROR_VM_BUSY,
                "VM '%s' of uid %u has an %s migration already: %s, which is %s. Wait for it, or cancel it.",
                vm, uid, role_text(role), identity->id_text, state_text(identity->state));
    }
    if (registry->n_running >= config->max_migrations)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32
                         " migrations run already, which is the limit (MaxMigrations=, "
                         "--max-migrations=).",
                         registry->n_running);
    if (uid != 0 && of_user >= config->max_per_user)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32
                         " migrations of uid %u run already, which is the limit of a user "
                         "(MaxMigrationsPerUser=, --max-migrations-per-user=).",
                         of_user, uid);
    registry_forget_until(registry, few_are_kept, registry);
    if (namesake) /* no hindrance: names are no user's */
        log_event(LOG_NOTICE, NULL, NULL,
                  "uid %u makes an %s migration of VM '%s'; uid %u has one of that name, %s.", uid,
                  role_text(role), vm, namesake->uid, namesake->key);
    return 0;
}

struct migration *admit_find_client_id(const struct registry *registry, enum message_role role,
                                       const char *client_id, uid_t uid)
{
    struct entry *entry;

    if (!client_id)
        return NULL;
    TAILQ_FOREACH(entry, &registry->entries, next)
    if (entry->identity.role == role && entry->identity.uid == uid && entry->client_id &&
        strcmp(entry->client_id, client_id) == 0)
        return entry->migration;
    return NULL;
}

struct room {
    const struct store *store;
    size_t n;
};

static bool has_room(void *userdata)
{
    const struct room *room = userdata;

    return store_has_room(room->store, room->n);
}

int admit_make_room(struct registry *registry, struct store *store, uint32_t n_streams, sd_bus_error *error)
{
    /* One for the next record of each that runs. */
    struct room room = {store, STORED_BESIDES + n_streams + registry->n_running};

    registry_forget_until(registry, has_room, &room);
    if (has_room(&room))
        return 0;
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                     "The FD store is full, so that this migration would not outlive a restart of vmferryd "
                     "(FileDescriptorStoreMax= of vmferryd.service). Wait for others to end.");
}
