/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ssh/master.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/private-directory.h"
#include "ctl/shell.h"

/* ssh binds the path with ".XXXXXXXXXXXXXXXX" behind it at first, and that has to fit sun_path (108). */
enum { PATH_SIZE = PRIVATE_DIRECTORY_MAX + sizeof("/ssh") };

struct master {
    struct master *next;
    char *host;
    struct ssh *ssh; /* NULL: the caller's that leads, which ends by itself */
    bool left;       /* it carries what outlives this program */
    struct private_directory directory;
    char path[PATH_SIZE];
};

static void master_free(struct master *master)
{
    if (!master)
        return;
    if (master->left && master->ssh)
        ssh_leave(master->ssh); /* what goes through it already needs the socket no more */
    else
        ssh_free(master->ssh); /* removes its socket */
    private_directory_remove(&master->directory);
    free(master->host);
    free(master);
}

static void master_freep(struct master **master)
{
    master_free(*master);
}

/* ssh would take '%', '$', '"' and blanks of a path for more than themselves. */
static bool is_plain(const char *path)
{
    return path[0] == '/' && path[strspn(path,
                                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789/_.-")] == '\0';
}

static int make_directory(struct master *master)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    const char *bases[] = {runtime && is_plain(runtime) ? runtime : "/tmp", "/tmp"};
    int r = -1;

    for (size_t i = 0; i < 2 && r < 0; i++)
        r = private_directory_make(bases[i], "ssh", &master->directory);
    if (r >= 0)
        snprintf(master->path, PATH_SIZE, "%s/ssh", master->directory.path);
    return r;
}

static int on_created(sd_event_source *source, const struct inotify_event *event, void *userdata)
{
    return 0; /* the loop has turned, and its caller looks */
}

/* It makes its socket once it has proved who the user is. */
static int wait_connected(struct ctl *ctl, struct master *master, struct trouble *trouble)
{
    _cleanup_(sd_event_source_disable_unrefp) sd_event_source *created = NULL;
    char quoted[SHELL_COMMAND_MAX];
    uint64_t end = ctl_now() + ssh_patience(ctl);
    int r = sd_event_add_inotify(ctl->event, &created, master->directory.path, IN_CREATE | IN_MOVED_TO,
                                 on_created, NULL);

    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "%s cannot be watched: %s.", master->directory.path,
                           strerror(-r));
    while (access(master->path, F_OK) < 0) {
        uint64_t now = ctl_now();

        if (ssh_ended(master->ssh))
            return ssh_failed(master->ssh, trouble);
        if (ctl->interrupts > 0)
            return trouble_set(trouble, STATUS_CANCELLED, "Interrupted while ssh was connecting to %s.",
                               master->host);
        if (now >= end)
            return trouble_set(trouble, STATUS_TIMED_OUT,
                               "ssh to %s did not get through in time. Does 'ssh %s true' work?",
                               master->host, shell_word(master->host, quoted));
        if (ctl_turn(ctl, end - now, trouble) < 0)
            return -1;
    }
    return 0;
}

static struct master **find(struct ctl *ctl, const char *host)
{
    struct master **at = &ctl->masters;

    while (*at && strcmp((*at)->host, host) != 0)
        at = &(*at)->next;
    return at;
}

/* One that has no ssh yet. NULL, and no trouble, where no directory can be made. */
static int make(const char *host, struct master **ret, struct trouble *trouble)
{
    _cleanup_(master_freep) struct master *master = calloc(1, sizeof(*master));

    *ret = NULL;
    if (!master)
        return trouble_no_memory(trouble);
    master->host = strdup(host);
    if (!master->host)
        return trouble_no_memory(trouble);
    if (make_directory(master) < 0)
        return 0;
    *ret = master;
    master = NULL;
    return 0;
}

int master_get(struct ctl *ctl, const char *host, const char **ret, struct trouble *trouble)
{
    struct master **at = find(ctl, host);
    _cleanup_(master_freep) struct master *master = NULL;
    struct ssh_use use = {.way = SSH_MASTER, .stays = true, .command = "cat"};

    *ret = NULL;
    if (*at && (*at)->ssh && ssh_ended((*at)->ssh)) {
        struct master *old = *at;

        *at = old->next;
        master_free(old);
        at = find(ctl, host);
    }
    if (*at && (*at)->ssh) {
        *ret = (*at)->path;
        return 0;
    }
    if (*at || !ssh_may_ask(ctl))
        return 0;
    if (ctl_catch_signals(ctl, trouble) < 0) /* or a Ctrl-C at ssh's question would leave the directory */
        return -1;
    if (make(host, &master, trouble) < 0)
        return -1;
    if (!master)
        return 0;
    use.control = master->path;
    if (ssh_start(ctl, host, &use, &master->ssh, trouble) < 0 || wait_connected(ctl, master, trouble) < 0)
        return -1;
    *ret = master->path;
    *at = master;
    master = NULL;
    return 0;
}

int master_lead(struct ctl *ctl, const char *host, struct ssh_use *use, struct trouble *trouble)
{
    struct master **at = find(ctl, host);

    if (!ctl->one_login)
        return 0;
    if (*at) {
        /* It is there while the one that leads is, and can be asked. */
        if (access((*at)->path, F_OK) == 0)
            *use = (struct ssh_use){.way = SSH_SHARED, .control = (*at)->path, .command = use->command};
        return 0;
    }
    if (ctl_catch_signals(ctl, trouble) < 0 || make(host, at, trouble) < 0)
        return -1;
    if (*at)
        *use = (struct ssh_use){.way = SSH_MASTER, .control = (*at)->path, .command = use->command};
    return 0;
}

const char *master_reason(struct ctl *ctl, const char *host)
{
    struct master *master = *find(ctl, host);

    return master && master->ssh && ssh_ended(master->ssh) ? ssh_reason(master->ssh) : "";
}

void master_leave(struct ctl *ctl, const char *host)
{
    struct master *master = *find(ctl, host);

    if (master)
        master->left = true;
}

void master_free_all(struct ctl *ctl)
{
    while (ctl->masters) {
        struct master *master = ctl->masters;

        ctl->masters = master->next;
        master_free(master);
    }
}
