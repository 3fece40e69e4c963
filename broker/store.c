/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/store.h"

#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/release.h"
#include "common/cleanup.h"

/* All names go into one variable at the next start, and one of more than 128 KiB makes execve(2) fail. */
enum { NAMES_MAX = 120 * 1024 };

struct stored {
    TAILQ_ENTRY(stored) entry;
    char name[STORE_NAME_MAX];
    int fd; /* owned; −1: taken, or put by ourselves */
};

struct store {
    bool active;
    bool frozen;
    size_t max, n, names; /* entries that may be, that are, and the bytes of their names */
    TAILQ_HEAD(, stored) entries;
    void *index; /* tsearch(3): them by name */
};

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct stored *)a)->name, ((const struct stored *)b)->name);
}

static bool notify(const char *verb, const char *name, const int *fd)
{
    char text[STORE_NAME_MAX + 64];
    int r;

    snprintf(text, sizeof(text), "%s=1\nFDNAME=%s%s", verb, name, fd ? "\nFDPOLL=0" : "");
    r = fd ? sd_pid_notify_with_fds(0, 0, text, fd, 1) : sd_notify(0, text);
    if (r < 0)
        log_event(
            LOG_WARNING, NULL, NULL,
            "The service manager did not take %s=1 of '%s': %s. What it belongs to does not outlive this "
            "vmferryd.",
            verb, name, strerror(-r));
    return r >= 0;
}

static struct stored *entry_new(struct store *store, const char *name, int fd)
{
    struct stored *entry = calloc(1, sizeof(*entry)), **found;

    if (!entry)
        return NULL;
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    found = tsearch(entry, &store->index, compare);
    if (!found || *found != entry) { /* no memory; or the name is there */
        free(entry);
        return NULL;
    }
    entry->fd = fd;
    TAILQ_INSERT_TAIL(&store->entries, entry, entry);
    store->n++;
    store->names += strlen(entry->name) + 1;
    return entry;
}

static void entry_free(struct store *store, struct stored *entry)
{
    TAILQ_REMOVE(&store->entries, entry, entry);
    tdelete(entry, &store->index, compare);
    store->n--;
    store->names -= strlen(entry->name) + 1;
    fd_closep(&entry->fd);
    free(entry);
}

static struct stored *find(const struct store *store, const char *name)
{
    struct stored key, **found;

    snprintf(key.name, sizeof(key.name), "%s", name);
    found = tfind(&key, &store->index, compare);
    return found ? *found : NULL;
}

/* What the manager hands back. A name that none of ours can be is removed as it is. */
static int receive(struct store *store)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names), r = n < 0 ? n : 0;

    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;

        if (r >= 0 && strlen(names[i]) < STORE_NAME_MAX && !find(store, names[i])) {
            r = entry_new(store, names[i], fd) ? 0 : -ENOMEM;
        } else {
            log_event(LOG_WARNING, NULL, NULL, "A stored descriptor of an unknown name was dropped: '%.64s'.",
                      names[i]);
            close(fd);
            if (store->active && strlen(names[i]) >= STORE_NAME_MAX) {
                _cleanup_free_ char *text = NULL;

                if (asprintf(&text, "FDSTOREREMOVE=1\nFDNAME=%s", names[i]) >= 0)
                    sd_notify(0, text);
                else
                    text = NULL;
            }
        }
    }
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return r;
}

int store_new(struct store **ret)
{
    struct store *store = calloc(1, sizeof(*store));
    const char *max = getenv("FDSTORE"); /* what systemd 254 and later say of FileDescriptorStoreMax= */
    int r;

    if (!store)
        return -ENOMEM;
    TAILQ_INIT(&store->entries);
    store->active = getenv("NOTIFY_SOCKET") != NULL;
    store->max = max ? strtoul(max, NULL, 10) : STORE_MAX;
    r = receive(store);
    if (r < 0) {
        store_free(store);
        return r;
    }
    *ret = store;
    return 0;
}

struct store *store_free(struct store *store)
{
    if (!store)
        return NULL;
    while (!TAILQ_EMPTY(&store->entries))
        entry_free(store, TAILQ_FIRST(&store->entries));
    free(store);
    return NULL;
}

bool store_active(const struct store *store)
{
    return store->active;
}

void store_freeze(struct store *store)
{
    store->frozen = true;
}

bool store_frozen(const struct store *store)
{
    return store->active && store->frozen;
}

bool store_has_room(const struct store *store, size_t n)
{
    return !store->active || (store->n + n <= store->max && store->names + n * STORE_NAME_MAX <= NAMES_MAX);
}

/* The entry before the message: of what the manager has, this process must know the name, or nothing would
 * ever remove it. `leave` keeps room for what is worth more than this. */
bool store_put(struct store *store, const char *name, int fd, size_t leave)
{
    struct stored *entry;

    if (!store->active || store->frozen || fd < 0)
        return false;
    entry = store_has_room(store, 1 + leave) ? entry_new(store, name, -1) : NULL;
    if (!entry) {
        log_event(LOG_WARNING, NULL, NULL,
                  "The FD store is full: '%s' does not outlive this vmferryd (FileDescriptorStoreMax=).",
                  name);
        return false;
    }
    if (!notify("FDSTORE", name, &fd)) {
        entry_free(store, entry);
        return false;
    }
    return true;
}

/* Closes held, which is taken, once the manager has closed its own: it has read all before BARRIER=1 when it
 * closes what came with that. */
static void release_after_manager(int held)
{
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0) {
        close(held);
        return;
    }
    sd_pid_notify_with_fds(0, 0, "BARRIER=1", &pair[1], 1);
    close(pair[1]);
    release_after(held, pair[0]);
}

void store_remove(struct store *store, const char *name, int fd)
{
    struct stored *entry = find(store, name);
    int held;

    if (!store->active || store->frozen || !entry)
        return;
    /* Memory of our own, which has seals, closes at once. */
    held = fd >= 0 && fcntl(fd, F_GET_SEALS) < 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    notify("FDSTOREREMOVE", name, NULL); /* first: the name may be the entry's own */
    entry_free(store, entry);
    if (held >= 0)
        release_after_manager(held);
}

/* The manager keeps its copy, and the entry stays, so that the name can be removed later. */
int store_take(struct store *store, const char *name)
{
    struct stored *entry = find(store, name);

    return entry ? fd_steal(&entry->fd) : -1;
}

const char *store_next(const struct store *store, const char *previous)
{
    struct stored *entry = previous ? TAILQ_NEXT(find(store, previous), entry) : TAILQ_FIRST(&store->entries);

    while (entry && entry->fd < 0)
        entry = TAILQ_NEXT(entry, entry);
    return entry ? entry->name : NULL;
}

void store_drop_rest(struct store *store)
{
    struct stored *entry, *next;

    for (entry = TAILQ_FIRST(&store->entries); entry; entry = next) {
        _cleanup_fd_ int fd = -1;

        next = TAILQ_NEXT(entry, entry);
        if (entry->fd < 0)
            continue;
        log_event(LOG_WARNING, NULL, NULL, "A stored descriptor was dropped: nothing is known of '%s'.",
                  entry->name);
        fd = fd_steal(&entry->fd);
        store_remove(store, entry->name, fd);
    }
}
