/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/manager.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/bus/connection.h"
#include "broker/bus/events.h"
#include "broker/bus/names.h"
#include "broker/config/settings.h"
#include "broker/errors.h"
#include "broker/helpers/ready.h"
#include "broker/log.h"
#include "broker/migration/arrivals.h"
#include "broker/migration/migration.h"
#include "broker/migration/restore.h"
#include "broker/net/port.h"
#include "broker/release.h"
#include "broker/runtime-dir.h"
#include "broker/sockets/give.h"
#include "broker/store.h"
#include "broker/totals.h"
#include "common/cleanup.h"

struct manager {
    struct config *config;             /* borrowed; replaced by reload() */
    const struct arguments *arguments; /* borrowed */
    sd_event *event;                   /* owned */
    struct port *port;                 /* owned */
    struct store *store;               /* owned */
    int lock;                          /* owned: held for as long as the runtime directory is ours */
    struct helper_links helpers;
    struct give give;
    struct registry registry;
    struct totals totals;
    struct arrivals arrivals;
    struct migration_services services;
    struct bus *bus; /* owned */
    struct lifecycle lifecycle;
};

static const struct migration_timing timing = {
    .stop = 3000000, .idle = CONNECTED_IDLE, .kept = FINISHED_KEPT};

/* Before each turn of the loop: what is closed from now on is charged to no caller, until a call says whose
 * it is.
 */
static int on_turn(sd_event_source *source, void *userdata)
{
    release_charge(RELEASE_NOBODY);
    return 0;
}

static int set_up_event(struct manager *manager)
{
    sd_event_source *term; /* the event loop's */
    sigset_t signals;
    int r = sd_event_new(&manager->event);

    if (r < 0)
        return r;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return -errno;
    r = sd_event_add_signal(manager->event, &term, SIGTERM, NULL, NULL);
    if (r >= 0)
        r = sd_event_source_set_floating(term, true);
    if (r >= 0) {
        r = sd_event_source_set_prepare(term, on_turn);
        sd_event_source_unref(term);
    }
    if (r >= 0)
        r = sd_event_add_signal(manager->event, NULL, SIGINT, NULL, NULL);
    return r < 0 ? r : release_start();
}

/* What needs neither the bus nor the runtime directory. */
static int set_up(struct manager *manager)
{
    const struct config *config = manager->config;
    int r = set_up_event(manager);

    if (r >= 0)
        r = store_new(&manager->store);
    helper_links_init(&manager->helpers, manager->event, config->helper, config->helper_socket);
    if (r >= 0)
        r = port_new(config, manager->event, manager->store, &manager->helpers, &arrivals_events,
                     &manager->arrivals, &manager->port);
    manager->services = (struct migration_services){
        .config = config,
        .event = manager->event,
        .store = manager->store,
        .helpers = &manager->helpers,
        .give = &manager->give,
        .port = manager->port,
        .registry = &manager->registry,
        .totals = &manager->totals,
        .bus_fd = -1,
        .timing = &timing,
        .events = &bus_events,
    };
    if (r < 0)
        log_start_failed("Cannot set up the event loop: %s.", strerror(-r));
    return r;
}

/*
 * The totals say which migration they have, and so are there first. The port's sockets are taken before the
 * migrations, which hold the port; once they do it is clear what of it is of no use any more. Only then can
 * it be told which directories are left over. The name comes last: a client that finds the broker finds
 * everything.
 */
static int take_over(struct manager *manager)
{
    totals_open(&manager->totals, manager->config->runtime_dir);
    port_restore(manager->port);
    migration_restore_all(&manager->services);
    port_settle(manager->port);
    runtime_dir_clean(manager->config, &manager->registry);
    return bus_take_name(manager->bus);
}

/* ---- The configuration, once more ---- */

/* Appends a setting's name; false: there is no room for it. */
static bool append_name(char *text, size_t size, const char *key)
{
    const size_t n = strlen(text);
    const int r = snprintf(text + n, size - n, "%s%s=", n > 0 ? ", " : "", key);

    if (r >= 0 && (size_t)r < size - n)
        return true;
    text[n] = '\0';
    return false;
}

/* Says which settings have changed; a port that is open keeps those that it was opened with. */
static void log_changes(const struct manager *manager, const struct config *old)
{
    const struct config *new = manager->config;
    bool of_port = new->max_gate != old->max_gate;
    const struct setting *setting;
    char names[700] = "", more[40] = "";
    size_t n_more = 0;

    for (size_t i = 0; (setting = setting_at(i)); i++) {
        if (setting_is_equal(setting, old, new))
            continue;
        of_port = of_port || setting->kind == SETTING_ENDPOINTS;
        n_more += n_more > 0 || !append_name(names, sizeof(names), setting->key);
    }
    if (n_more > 0)
        snprintf(more, sizeof(more), " and %zu more", n_more);
    log_event(LOG_INFO, NULL, NULL, "The configuration was read again: %s%s%s.%s",
              names[0] ? "changed are " : "", names[0] ? names : "nothing has changed", more,
              of_port && port_is_open(manager->port)
                  ? " The peer port is open, and stays as it is until no migration needs it."
                  : "");
}

static int reload(void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct config_mistakes mistakes = {0};
    struct config old = *manager->config, new;
    int r = arguments_load_again(manager->arguments, &old, &new, &mistakes);

    if (r < 0) {
        log_event(LOG_ERR, NULL, NULL,
                  "The configuration stays as it was: what was read again has mistakes.");
        return error_named(error, "org.freedesktop.DBus.Error.InvalidFileContent",
                           "%s. Nothing has changed: the configuration stays as it was.",
                           mistakes.n > 0 ? mistakes.first : strerror(-r));
    }
    *manager->config = new;
    log_changes(manager, &old);
    config_clear(&old);
    helper_links_keep_spares(&manager->helpers, new.max_spares);
    return lifecycle_set_idle_timeout(&manager->lifecycle, new.idle_timeout);
}

static const struct bus_ops bus_ops = {.reload = reload};

/* ---- Its begin and end ---- */

int manager_new(struct config *config, const struct arguments *arguments, struct manager **ret)
{
    struct manager *manager = calloc(1, sizeof(*manager));
    int r;

    if (!manager)
        return -ENOMEM;
    manager->config = config;
    manager->arguments = arguments;
    manager->lock = -1;
    give_init(&manager->give, config->giver_socket);
    helper_links_init(&manager->helpers, NULL, NULL, NULL);
    manager->arrivals.registry = &manager->registry;
    registry_init(&manager->registry, migration_forget);
    r = set_up(manager);
    if (r >= 0)
        r = manager->lock = runtime_dir_take(config->runtime_dir);
    if (r >= 0)
        r = bus_new(&manager->services, &bus_ops, manager, &manager->bus);
    if (r >= 0) {
        manager->services.userdata = manager->bus;
        manager->services.bus_fd = sd_bus_get_fd(bus_connection(manager->bus));
        helper_links_set_bus(&manager->helpers, bus_connection(manager->bus));
        r = take_over(manager);
    }
    if (r < 0) {
        manager_free(manager);
        return r;
    }
    *ret = manager;
    return 0;
}

struct manager *manager_free(struct manager *manager)
{
    if (!manager)
        return NULL;
    /* Calls first, which look into the registry. Then the store is frozen and the links left alone, before
     * any migration is freed: else each would remove its stored FDs, unlink its sockets and shut its helper's
     * socket down, and the next broker would find nothing. The port goes after the migrations, which hold it;
     * the lock last, since another broker may take the runtime directory from then on. */
    if (manager->bus)
        bus_drop_calls(manager->bus);
    if (manager->store)
        store_freeze(manager->store);
    if (manager->store && store_frozen(manager->store))
        helper_links_leave(&manager->helpers);
    while (registry_count(&manager->registry) > 0)
        migration_free(registry_next(&manager->registry, NULL)->migration);
    port_free(manager->port);
    helper_links_clear(&manager->helpers);
    give_end(&manager->give);
    bus_free(manager->bus);
    sd_event_unref(manager->event);
    store_free(manager->store);
    fd_closep(&manager->lock);
    free(manager);
    return NULL;
}

/* ---- What its lifecycle asks ---- */

static bool is_needed(void *userdata)
{
    const struct manager *manager = userdata;

    return registry_count(&manager->registry) > 0 || bus_is_answering(manager->bus);
}

static bool is_answering(void *userdata)
{
    const struct manager *manager = userdata;

    return bus_is_answering(manager->bus);
}

static bool is_running(void *userdata)
{
    const struct manager *manager = userdata;

    return registry_count_running(&manager->registry) > 0;
}

static void say_status(void *userdata, char *text, size_t size)
{
    const struct manager *manager = userdata;
    uint32_t running[2] = {0};
    const struct entry *entry;
    uint64_t rate = 0;

    for (entry = registry_next(&manager->registry, NULL); entry;
         entry = registry_next(&manager->registry, entry)) {
        if (entry->identity.state == STATE_FINISHED)
            continue;
        running[entry->identity.role]++;
        rate += stats_page_rate(entry->page);
    }
    if (running[ROLE_INCOMING] + running[ROLE_OUTGOING] > 0)
        snprintf(text, size,
                 "Migrations: %" PRIu32 " incoming, %" PRIu32 " outgoing; %" PRIu64 ".%" PRIu64 " MB/s.",
                 running[ROLE_INCOMING], running[ROLE_OUTGOING], rate / 1000000, rate / 100000 % 10);
    else
        snprintf(text, size, "No migration; %" PRIu32 " finished.", registry_count(&manager->registry));
}

static const struct lifecycle_ops lifecycle_ops = {
    .needed = is_needed, .answering = is_answering, .running = is_running, .status = say_status};

int manager_run(struct manager *manager)
{
    int r;

    helper_links_keep_spares(&manager->helpers, manager->config->max_spares);
    give_begin(&manager->give);
    manager->lifecycle = (struct lifecycle){.event = manager->event,
                                            .bus = bus_connection(manager->bus),
                                            .name = BUS_NAME,
                                            .ops = &lifecycle_ops,
                                            .userdata = manager};
    r = lifecycle_start(&manager->lifecycle, manager->config->idle_timeout);
    if (r >= 0) {
        log_event(LOG_INFO, NULL, NULL, "Ready as %s.", BUS_NAME);
        r = sd_event_loop(manager->event);
    }
    bus_close(manager->bus); /* what follows is no news of a migration's */
    lifecycle_stop(&manager->lifecycle);
    return r;
}
