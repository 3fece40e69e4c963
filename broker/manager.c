/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/manager.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "broker/bus/caller.h"
#include "broker/log.h"
#include "broker/migration/migration.h"
#include "broker/net/port.h"
#include "broker/store.h"
#include "common/cleanup.h"

/* Runs --parents, so that a first start needs nothing to be there. */
static int make_runtime_dir(const char *path)
{
    char part[PATH_MAX];

    for (const char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        size_t n = slash ? (size_t)(slash - path) : strlen(path);

        if (n >= sizeof(part))
            return -ENAMETOOLONG;
        memcpy(part, path, n);
        part[n] = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        if (!slash)
            return 0;
    }
}

/* What a broker that was killed left behind, and nobody has taken over. The lock says that it has gone. */
static void remove_leftovers(struct manager *manager)
{
    static const char *const roles[] = {[ROLE_INCOMING] = "incoming", [ROLE_OUTGOING] = "outgoing"};
    const char *runtime_dir = manager->config->runtime_dir;

    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX];
        const struct dirent *entry;
        DIR *dir;

        snprintf(path, sizeof(path), "%s/%s", runtime_dir, roles[i]);
        dir = opendir(path);
        if (!dir)
            continue;
        while ((entry = readdir(dir))) {
            if (strlen(entry->d_name) != 16 || strspn(entry->d_name, "0123456789abcdef") != 16 ||
                manager_find(manager, (enum message_role)i, strtoull(entry->d_name, NULL, 16)))
                continue;
            snprintf(path, sizeof(path), "%s/%s/%s", runtime_dir, roles[i], entry->d_name);
            qemu_socket_remove_directory(path);
        }
        closedir(dir);
    }
}

/* What a broker that was just killed had forked, and had not become a helper yet, holds it a moment longer.
 */
static int lock_soon(int fd)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    int r = -EWOULDBLOCK;

    for (int i = 0; i < 100 && r == -EWOULDBLOCK; i++) {
        if (i > 0)
            nanosleep(&pause, NULL);
        r = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
    }
    return r;
}

static int take_runtime_dir(struct manager *manager)
{
    const char *runtime_dir = manager->config->runtime_dir;
    char path[PATH_MAX];
    int r = make_runtime_dir(runtime_dir);

    if (r >= 0) {
        snprintf(path, sizeof(path), "%s/lock", runtime_dir);
        manager->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = manager->lock < 0 ? -errno : lock_soon(manager->lock);
    }
    if (r < 0) {
        log_event(LOG_ERR, NULL, NULL, "Cannot take the runtime directory %s: %s. %s", runtime_dir,
                  strerror(-r),
                  r == -EWOULDBLOCK ? "Another vmferryd has it; see --runtime-dir=." : "See --runtime-dir=.");
        return r;
    }
    return 0;
}

/* Clients that go: one match for all, for sd_bus_track(3) would ask the bus and wait. */
static int on_name_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct migration *migration, *next;
    const char *name, *old, *new;

    (void)error;
    if (sd_bus_message_read(m, "sss", &name, &old, &new) < 0 || name[0] != ':' || new[0] != '\0')
        return 0;
    caller_gone(manager, name);
    for (migration = TAILQ_FIRST(&manager->migrations); migration; migration = next) {
        next = TAILQ_NEXT(migration, entry);
        migration_client_gone(migration, name);
    }
    return 0;
}

static int open_bus(struct manager *manager)
{
    const struct config *config = manager->config;
    int r;

    if (config->bus == BUS_SYSTEM)
        r = sd_bus_open_system(&manager->bus);
    else if (config->bus == BUS_USER)
        r = sd_bus_open_user(&manager->bus);
    else {
        r = sd_bus_new(&manager->bus);
        if (r >= 0)
            r = sd_bus_set_address(manager->bus, config->bus_address);
        if (r >= 0)
            r = sd_bus_set_bus_client(manager->bus, true);
        if (r >= 0)
            r = sd_bus_start(manager->bus);
    }
    if (r >= 0)
        r = sd_bus_set_exit_on_disconnect(manager->bus, true);
    if (r >= 0)
        r = sd_bus_attach_event(manager->bus, manager->event, SD_EVENT_PRIORITY_NORMAL);
    if (r >= 0)
        r = sd_bus_match_signal(manager->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                "org.freedesktop.DBus", "NameOwnerChanged", on_name_owner_changed, manager);
    if (r >= 0)
        r = manager_export(manager);
    if (r < 0) {
        log_event(LOG_ERR, NULL, NULL, "Cannot connect to the %s: %s.",
                  config->bus == BUS_SYSTEM ? "system bus"
                  : config->bus == BUS_USER ? "user's bus"
                                            : "bus",
                  strerror(-r));
        return r;
    }
    return 0;
}

/* From here on clients find us, and what we have taken over. */
static int take_name(struct manager *manager)
{
    int r = sd_bus_request_name(manager->bus, BUS_NAME, 0);
    if (r < 0)
        log_event(LOG_ERR, NULL, NULL, "Cannot have the name %s: %s%s.", BUS_NAME, strerror(-r),
                  r == -EEXIST ? " (another vmferryd has it)" : "");
    return r;
}

static int set_up_event(struct manager *manager)
{
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
    r = sd_event_add_signal(manager->event, NULL, SIGTERM, NULL, NULL);
    if (r >= 0)
        r = sd_event_add_signal(manager->event, NULL, SIGINT, NULL, NULL);
    return r;
}

int manager_new(const struct config *config, struct manager **ret)
{
    struct manager *manager = calloc(1, sizeof(*manager));
    int r;

    if (!manager)
        return -ENOMEM;
    manager->config = config;
    manager->lock = -1;
    manager->give = (struct give){.socket = config->giver_socket, .fd = -1};
    manager->arrivals.manager = manager;
    TAILQ_INIT(&manager->migrations);
    for (size_t i = 0; i < MANAGER_BUCKETS; i++)
        LIST_INIT(&manager->buckets[i]);
    TAILQ_INIT(&manager->calls);
    TAILQ_INIT(&manager->helpers.links);
    r = set_up_event(manager);
    if (r >= 0)
        r = store_new(&manager->store);
    manager->helpers.event = manager->event;
    manager->helpers.path = config->helper;
    manager->helpers.socket = config->helper_socket;
    if (r >= 0)
        r = port_new(config, manager->event, manager->store, &manager->helpers, &arrivals_events,
                     &manager->arrivals, &manager->port);
    if (r < 0)
        log_event(LOG_ERR, NULL, NULL, "Cannot set up the event loop: %s.", strerror(-r));
    else
        r = take_runtime_dir(manager);
    if (r >= 0)
        r = open_bus(manager);
    manager->helpers.bus = manager->bus;
    if (r >= 0) {
        port_restore(manager->port);
        migration_restore_all(manager);
        port_settle(manager->port);
        remove_leftovers(manager);
        r = take_name(manager);
    }
    if (r >= 0)
        migration_check_ties(manager);
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
    caller_drop_all(manager);
    if (manager->store)
        store_freeze(manager->store);
    manager->helpers.leaving = manager->store && store_frozen(manager->store);
    while (!TAILQ_EMPTY(&manager->migrations))
        migration_free(TAILQ_FIRST(&manager->migrations));
    port_free(manager->port);
    helper_links_clear(&manager->helpers);
    give_end(&manager->give);
    sd_bus_flush_close_unref(manager->bus);
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

    return !TAILQ_EMPTY(&manager->migrations) || manager->n_calls > 0;
}

static bool is_answering(void *userdata)
{
    const struct manager *manager = userdata;

    return manager->n_calls > 0;
}

static bool is_running(void *userdata)
{
    const struct manager *manager = userdata;

    return manager->n_running > 0;
}

static void say_status(void *userdata, char *text, size_t size)
{
    const struct manager *manager = userdata;
    uint32_t running[2] = {0};
    const struct migration *migration;
    uint64_t rate = 0;

    TAILQ_FOREACH(migration, &manager->migrations, entry)
    {
        if (migration->state == STATE_FINISHED)
            continue;
        running[migration->role]++;
        rate += stats_page_rate(&migration->page);
    }
    if (running[ROLE_INCOMING] + running[ROLE_OUTGOING] > 0)
        snprintf(text, size,
                 "Migrations: %" PRIu32 " incoming, %" PRIu32 " outgoing; %" PRIu64 ".%" PRIu64 " MB/s.",
                 running[ROLE_INCOMING], running[ROLE_OUTGOING], rate / 1000000, rate / 100000 % 10);
    else
        snprintf(text, size, "No migration; %" PRIu32 " finished.", manager->n_finished);
}

static const struct lifecycle_ops lifecycle_ops = {
    .needed = is_needed, .answering = is_answering, .running = is_running, .status = say_status};

int manager_run(struct manager *manager)
{
    int r;

    helper_links_keep_spare(&manager->helpers);
    give_begin(&manager->give);
    manager->lifecycle = (struct lifecycle){.event = manager->event,
                                            .bus = manager->bus,
                                            .name = BUS_NAME,
                                            .ops = &lifecycle_ops,
                                            .userdata = manager};
    r = lifecycle_start(&manager->lifecycle, manager->config->idle_timeout);
    if (r >= 0) {
        log_event(LOG_INFO, NULL, NULL, "Ready as %s.", BUS_NAME);
        r = sd_event_loop(manager->event);
    }
    lifecycle_stop(&manager->lifecycle);
    return r;
}

void manager_add(struct manager *manager, struct migration *migration)
{
    TAILQ_INSERT_TAIL(&manager->migrations, migration, entry);
    LIST_INSERT_HEAD(&manager->buckets[migration->id % MANAGER_BUCKETS], migration, same_bucket);
    manager->n_running++;
}

void manager_remove(struct manager *manager, struct migration *migration)
{
    TAILQ_REMOVE(&manager->migrations, migration, entry);
    LIST_REMOVE(migration, same_bucket);
    if (migration->state == STATE_FINISHED)
        manager->n_finished--;
    else
        manager->n_running--;
}

struct migration *manager_find(struct manager *manager, enum message_role role, uint64_t id)
{
    struct migration *migration;

    LIST_FOREACH(migration, &manager->buckets[id % MANAGER_BUCKETS], same_bucket)
    if (migration->id == id && migration->role == role)
        return migration;
    return NULL;
}

struct migration *manager_find_path(struct manager *manager, const char *path)
{
    const char *slash = strrchr(path, '/');
    uint64_t id = slash ? strtoull(slash + 1, NULL, 16) : 0; /* of whatever it is, the path decides */
    struct migration *migration;

    LIST_FOREACH(migration, &manager->buckets[id % MANAGER_BUCKETS], same_bucket)
    if (strcmp(migration->path, path) == 0)
        return migration;
    return NULL;
}

/* Of the finished ones only so many are kept: the oldest go. */
static void forget_oldest(struct manager *manager)
{
    struct migration *migration, *next;

    for (migration = TAILQ_FIRST(&manager->migrations); migration && manager->n_finished >= FINISHED_MAX;
         migration = next) {
        next = TAILQ_NEXT(migration, entry);
        if (migration->state == STATE_FINISHED)
            migration_forget(migration);
    }
}

int manager_admit(struct manager *manager, enum message_role role, const char *vm, uid_t uid,
                  sd_bus_error *error)
{
    const struct config *config = manager->config;
    struct migration *migration;
    uint32_t of_user = 0;

    TAILQ_FOREACH(migration, &manager->migrations, entry)
    {
        if (migration->state == STATE_FINISHED)
            continue;
        if (migration->uid == uid)
            of_user++;
        if (migration->role == role && strcmp(migration->vm, vm) == 0)
            return error_set(
                error, VF_ERROR_VM_BUSY,
                "VM '%s' has an %s migration already: %s, which is %s. Wait for it, or cancel it.", vm,
                migration_role_text(migration), migration->id_text, migration_state_text(migration));
    }
    if (manager->n_running >= config->max_migrations)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32
                         " migrations run already, which is the limit (MaxMigrations=, "
                         "--max-migrations=).",
                         manager->n_running);
    if (uid != 0 && of_user >= config->max_per_user)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32
                         " migrations of uid %u run already, which is the limit of a user "
                         "(MaxMigrationsPerUser=, --max-migrations-per-user=).",
                         of_user, uid);
    forget_oldest(manager);
    return 0;
}
