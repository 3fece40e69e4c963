/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/rates.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/release.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"
#include "common/clock.h"

/* One is the work for a small call, some 50 to 100 µs; so many users of such a kind take half of a CPU. */
static const struct rate_limit of_sender = {.per_second = 500, .burst = 500},
                               of_user = {.per_second = 1000, .burst = 1000},
                               of_unknown = {.per_second = 500, .burst = 1000};

enum {
    FREE_WORK = 40 /* of a connection, before its uid is known: some calls, or a list */
};

struct rates_sender {
    TAILQ_ENTRY(rates_sender) next;
    LIST_ENTRY(rates_sender) same_bucket;
    char *name; /* owned */
    bool known; /* whose it is */
    uid_t uid;
    uint32_t free; /* work that it had before */
    struct rate rate;
    struct rates *all;
    sd_bus_slot *slot; /* owned; of the question to the bus */
};

static size_t bucket_of(const char *name)
{
    uint32_t hash = 2166136261U; /* FNV-1a: the names are the bus's, which counts them up */

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619U;
    return hash % RATES_BUCKETS;
}

static struct rates_sender *find(const struct rates *rates, const char *name)
{
    struct rates_sender *sender;

    LIST_FOREACH(sender, &rates->buckets[bucket_of(name)], same_bucket)
    if (strcmp(sender->name, name) == 0)
        return sender;
    return NULL;
}

static void sender_free(struct rates_sender *sender)
{
    struct rates *rates = sender->all;

    TAILQ_REMOVE(&rates->senders, sender, next);
    LIST_REMOVE(sender, same_bucket);
    rates->n_senders--;
    sd_bus_slot_unref(sender->slot);
    free(sender->name);
    free(sender);
}

static void user_free(struct rates *rates, struct rates_user *user)
{
    TAILQ_REMOVE(&rates->users, user, next);
    rates->n_users--;
    free(user);
}

static int on_uid(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    struct rates_sender *sender = userdata;
    uint32_t uid;

    if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "u", &uid) >= 0)
        rates_know(sender->all, sender->name, uid);
    return 0;
}

static struct rates_sender *sender_new(struct rates *rates, const char *name)
{
    struct rates_sender *sender = calloc(1, sizeof(*sender));

    if (!sender)
        return NULL;
    sender->all = rates;
    sender->name = strdup(name);
    if (!sender->name) {
        free(sender);
        return NULL;
    }
    while (rates->n_senders >= RATES_SENDERS)
        sender_free(TAILQ_FIRST(&rates->senders));
    TAILQ_INSERT_TAIL(&rates->senders, sender, next);
    LIST_INSERT_HEAD(&rates->buckets[bucket_of(name)], sender, same_bucket);
    rates->n_senders++;
    if (rates->bus)
        sd_bus_call_method_async(rates->bus, &sender->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                 "org.freedesktop.DBus", "GetConnectionUnixUser", on_uid, sender, "s", name);
    return sender;
}

static struct rates_user *user_of(struct rates *rates, uid_t uid)
{
    struct rates_user *user;

    TAILQ_FOREACH(user, &rates->users, next)
    if (user->uid == uid)
        break;
    if (user) {
        TAILQ_REMOVE(&rates->users, user, next);
    } else {
        while (rates->n_users >= RATES_USERS)
            user_free(rates, TAILQ_FIRST(&rates->users));
        user = calloc(1, sizeof(*user));
        if (!user)
            return NULL;
        user->uid = uid;
        rates->n_users++;
    }
    TAILQ_INSERT_TAIL(&rates->users, user, next);
    return user;
}

void rates_know(struct rates *rates, const char *name, uid_t uid)
{
    struct rates_sender *sender = find(rates, name);

    if (!sender)
        return;
    sender->known = true;
    sender->uid = uid;
}

/* Of a user that is not root. */
static bool charge(struct rates *rates, struct rates_sender *sender, uint32_t work, uint64_t now)
{
    struct rates_user *user = user_of(rates, sender->uid);

    return user && rate_take(&sender->rate, &of_sender, work, now) &&
           rate_take(&user->rate, &of_user, work, now);
}

bool rates_admit(struct rates *rates, const char *name, uint32_t work, uint64_t now)
{
    struct rates_sender *sender = find(rates, name);

    if (sender) {
        TAILQ_REMOVE(&rates->senders, sender, next);
        TAILQ_INSERT_TAIL(&rates->senders, sender, next);
    } else {
        sender = sender_new(rates, name);
        if (!sender)
            return false;
    }
    if (sender->known)
        return !deputy_is_restricted(sender->uid) || charge(rates, sender, work, now);
    if (work <= FREE_WORK && sender->free + work <= FREE_WORK) {
        sender->free += work;
        return true;
    }
    return rate_take(&rates->unknown, &of_unknown, work, now);
}

static uint32_t work_of(const struct rates *rates, sd_bus_message *m)
{
    if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"))
        return 1 + registry_count(rates->registry);
    if (sd_bus_message_is_method_call(m, NULL, "ListMigrations") ||
        sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Introspectable", NULL))
        return 1 + registry_count(rates->registry) / 32;
    if (sd_bus_message_is_method_call(m, NULL, "List"))
        return 1 + registry_count(rates->registry) / 4;
    return 1;
}

/* Whose the descriptors are that the call has brought, whatever comes of it. */
static void charge_descriptors(const struct rates *rates, const char *name)
{
    const struct rates_sender *sender = find(rates, name);

    release_charge(sender && sender->known ? sender->uid : RELEASE_NOBODY);
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct rates *rates = userdata;
    const char *sender = sd_bus_message_get_sender(m);
    bool admitted;

    if (!sender || !sd_bus_message_is_method_call(m, NULL, NULL))
        return 0;
    admitted = rates_admit(rates, sender, work_of(rates, m), turn_now(rates->event));
    charge_descriptors(rates, sender);
    if (admitted)
        return 0;
    if (sd_bus_message_get_expect_reply(m) <= 0)
        return 1;
    return error_set(
        error, VF_ERROR_LIMIT_EXCEEDED,
        "There are too many calls of this user or connection: some hundred small ones a second are "
        "answered. Call less often, or wait for signals.");
}

int rates_init(struct rates *rates, sd_bus *bus, sd_event *event, const struct registry *registry)
{
    *rates = (struct rates){.bus = bus, .event = event, .registry = registry};
    TAILQ_INIT(&rates->senders);
    TAILQ_INIT(&rates->users);
    for (size_t i = 0; i < RATES_BUCKETS; i++)
        LIST_INIT(&rates->buckets[i]);
    return bus ? sd_bus_add_filter(bus, NULL, on_call, rates) : 0;
}

void rates_gone(struct rates *rates, const char *name)
{
    struct rates_sender *sender = find(rates, name);

    if (sender)
        sender_free(sender);
}

void rates_clear(struct rates *rates)
{
    while (rates->n_senders > 0)
        sender_free(TAILQ_FIRST(&rates->senders));
    while (rates->n_users > 0)
        user_free(rates, TAILQ_FIRST(&rates->users));
}
