/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "log.h"

enum {
    HELPER_FD = 3,           /* as systemd hands over an accepted connection */
    START_TIMEOUT = 5000000, /* µs */
    EXIT_TIMEOUT = 3000000,  /* µs from the end of its socket to SIGKILL */
};

struct helper_link {
    TAILQ_ENTRY(helper_link) entry;
    struct helper_links *links; /* borrowed */
    int fd;                     /* owned; −1 at its end */
    pid_t pid;
    unsigned phase; /* in which it is; what it may say hangs on that */
    unsigned role;  /* the phase after READY */
    bool ready;
    bool exited;
    bool draining; /* its last messages are being read */
    bool freed;    /* nobody is interested any more; waits for the exit */
    char why[128];
    sd_event_source *io, *child, *timer;
    helper_message_t on_message;
    helper_gone_t on_gone;
    void *userdata;
};

static void destroy(struct helper_link *link)
{
    sd_event_source_disable_unref(link->io);
    sd_event_source_disable_unref(link->child);
    sd_event_source_disable_unref(link->timer);
    fd_closep(&link->fd);
    TAILQ_REMOVE(&link->links->links, link, entry);
    free(link);
}

void helper_links_clear(struct helper_links *links)
{
    while (!TAILQ_EMPTY(&links->links))
        destroy(TAILQ_FIRST(&links->links));
}

/* Both its socket and its process have ended. */
static void gone(struct helper_link *link)
{
    if (link->freed)
        destroy(link);
    else
        link->on_gone(link, link->why, link->userdata);
}

static void kill_process(struct helper_link *link)
{
    if (!link->exited)
        sd_event_source_send_child_signal(link->child, SIGKILL, NULL, 0);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct helper_link *link = userdata;

    (void)source;
    (void)usec;
    if (link->fd >= 0 && link->ready)
        return 0;
    if (link->fd >= 0)
        snprintf(link->why, sizeof(link->why), "did not start within %d s", START_TIMEOUT / 1000000);
    kill_process(link);
    return 0;
}

static void arm_timer(struct helper_link *link, uint64_t usec)
{
    sd_event_source_set_time_relative(link->timer, usec);
    sd_event_source_set_enabled(link->timer, SD_EVENT_ONESHOT);
}

static void close_socket(struct helper_link *link)
{
    link->io = sd_event_source_disable_unref(link->io);
    fd_closep(&link->fd);
    if (!link->exited)
        arm_timer(link, EXIT_TIMEOUT);
}

void helper_link_kill(struct helper_link *link, const char *why)
{
    if (link->why[0] == '\0')
        snprintf(link->why, sizeof(link->why), "%s", why);
    kill_process(link);
    close_socket(link);
}

/* One message; false when there is none now, or never will be. */
static bool read_one(struct helper_link *link)
{
    union message m;
    int fd, r;

    if (link->fd < 0 || link->freed)
        return false;
    r = message_recv(link->fd, TO_BROKER, link->phase, &m, &fd);
    if (r == -ECONNRESET) /* it has gone with messages of ours unread; what it said before is still there */
        r = message_recv(link->fd, TO_BROKER, link->phase, &m, &fd);
    if (r == -EAGAIN)
        return false;
    if (r == -ECONNRESET)
        r = 0; /* its exit says why */
    if (r <= 0) {
        if (r < 0) {
            snprintf(link->why, sizeof(link->why), "sent a message that is not permitted (%s)",
                     message_name(m.header.type));
            kill_process(link);
        }
        close_socket(link);
        return false;
    }
    if (m.header.type == MESSAGE_READY) {
        link->ready = true;
        link->phase = link->role;
        return true;
    }
    if (m.header.type == MESSAGE_RESULT)
        link->phase = PHASE_ENDED;
    link->on_message(link, &m, fd, link->userdata);
    return true;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct helper_link *link = userdata;

    (void)source;
    (void)fd;
    (void)revents;
    read_one(link);
    return 0;
}

static void describe_exit(struct helper_link *link, const siginfo_t *si)
{
    if (link->why[0] != '\0')
        return;
    if (si->si_code == CLD_EXITED)
        snprintf(link->why, sizeof(link->why), "ended with exit status %d", si->si_status);
    else
        snprintf(link->why, sizeof(link->why), "was killed by SIG%s%s", sigabbrev_np(si->si_status),
                 si->si_status == SIGSYS ? ": it tried a system call that its sandbox forbids" : "");
}

static int on_exit_of_child(sd_event_source *source, const siginfo_t *si, void *userdata)
{
    struct helper_link *link = userdata;

    (void)source;
    link->exited = link->draining = true;
    describe_exit(link, si);
    /* What it had said before is still to be heard: its result, above all. */
    while (read_one(link))
        ;
    link->draining = false;
    if (link->fd >= 0)
        close_socket(link);
    gone(link);
    return 0;
}

static int spawn(const char *path, int fd, pid_t *ret)
{
    char *argv[] = {strdupa("vmferry-helper"), NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    r = posix_spawn_file_actions_init(&actions);
    if (r != 0)
        return -r;
    r = posix_spawnattr_init(&attr);
    if (r == 0) {
        /* dup2 onto itself clears close-on-exec too, posix_spawn_file_actions_adddup2(3p). */
        r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (r == 0)
            r = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        if (r == 0)
            r = posix_spawn_file_actions_adddup2(&actions, fd, HELPER_FD);
        if (r == 0)
            r = posix_spawnattr_setsigmask(&attr, &none);
        if (r == 0)
            r = posix_spawnattr_setsigdefault(&attr, &all);
        if (r == 0)
            r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        if (r == 0)
            r = posix_spawn(ret, path, &actions, &attr, argv, environ);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

static int add_sources(struct helper_link *link)
{
    int r = sd_event_add_child(link->links->event, &link->child, link->pid, WEXITED, on_exit_of_child, link);

    if (r >= 0)
        r = sd_event_add_io(link->links->event, &link->io, link->fd, EPOLLIN, on_io, link);
    if (r >= 0)
        r = sd_event_add_time_relative(link->links->event, &link->timer, CLOCK_MONOTONIC, START_TIMEOUT, 0,
                                       on_timer, link);
    return r;
}

int helper_link_fork(struct helper_links *links, helper_message_t on_message, helper_gone_t on_gone,
                     void *userdata, struct helper_link **ret)
{
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -errno;
    _cleanup_fd_ int ours = pair[0], theirs = pair[1];
    struct helper_link *link = calloc(1, sizeof(*link));

    if (!link)
        return -ENOMEM;
    link->phase = PHASE_NEW;
    link->on_message = on_message;
    link->on_gone = on_gone;
    link->userdata = userdata;
    link->links = links;
    TAILQ_INSERT_TAIL(&links->links, link, entry);
    link->fd = fd_steal(&ours);
    r = spawn(links->path, theirs, &link->pid);
    if (r >= 0) {
        r = add_sources(link);
        if (r < 0) {
            kill(link->pid, SIGKILL);
            waitpid(link->pid, NULL, 0);
        }
    }
    if (r < 0) {
        destroy(link);
        return r;
    }
    *ret = link;
    return 0;
}

struct helper_link *helper_link_free(struct helper_link *link)
{
    if (!link)
        return NULL;
    link->freed = true;
    if (link->exited && !link->draining)
        destroy(link);
    else
        close_socket(link); /* its exit destroys the rest */
    return NULL;
}

int helper_link_send(struct helper_link *link, enum message_type type, union message *m, int fd)
{
    int r = link->fd >= 0 ? message_send(link->fd, type, m, fd) : -ENOTCONN;

    if (r >= 0 && type == MESSAGE_START_RELAY)
        link->role = PHASE_RELAY;
    else if (r >= 0 && type == MESSAGE_START_GATE)
        link->role = PHASE_GATE;
    return r;
}
