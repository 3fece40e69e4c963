/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/helpers/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/release.h"
#include "common/cleanup.h"
#include "common/message.h"
#include "log.h"

#define SYSTEMD         "org.freedesktop.systemd1"
#define SYSTEMD_PATH    "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER "org.freedesktop.systemd1.Manager"
#define UNIT_PREFIX     "vmferry-helper@"

enum { HELPER_FD = 3 /* as systemd hands over an accepted connection */, LINES_MAX = 100 };

/* ---- A child ---- */

/* A line of its own words, which are anything. */
static void log_line(struct helper_process *process)
{
    char text[HELPER_LINE_MAX];

    process->line[process->n_line] = '\0';
    process->n_line = 0;
    message_text_set(text, sizeof(text), process->line);
    if (text[0] == '\0')
        return;
    process->n_lines++;
    log_event(LOG_WARNING, NULL, NULL, "A helper wrote: %s%s", text,
              process->n_lines == LINES_MAX ? " (No more is taken from it.)" : "");
}

/* Reads what is there; false at the end, and where it is too much: the next write fails then. */
static bool read_errors(struct helper_process *process, int fd)
{
    char buf[512];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0)
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != '\n' && buf[i] != '\0')
                process->line[process->n_line++] = buf[i];
            if (buf[i] == '\n' || process->n_line == sizeof(process->line) - 1)
                log_line(process);
            if (process->n_lines == LINES_MAX)
                return false;
        }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static int on_errors(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct helper_process *process = userdata;

    if (!read_errors(process, fd))
        process->errors = sd_event_source_disable_unref(process->errors);
    return 0;
}

/* The last words of one that has ended. */
static void end_errors(struct helper_process *process)
{
    if (!process->errors)
        return;
    read_errors(process, sd_event_source_get_io_fd(process->errors));
    if (process->n_line > 0)
        log_line(process);
    process->errors = sd_event_source_disable_unref(process->errors);
}

/* The end that is the child's to write to, without ever waiting for us; the caller's. Or a negative errno. */
static int make_errors(struct helper_process *process)
{
    int pair[2], r;

    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    r = sd_event_add_io(process->event, &process->errors, pair[0], EPOLLIN, on_errors, process);
    if (r >= 0)
        r = sd_event_source_set_io_fd_own(process->errors, true);
    if (r < 0) {
        process->errors = sd_event_source_disable_unref(process->errors);
        close(pair[0]);
        close(pair[1]);
        return r;
    }
    return pair[1];
}

static int spawn(const char *path, int fd, int errors, pid_t *ret)
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
            r = posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
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

static int on_child(sd_event_source *source, const siginfo_t *si, void *userdata)
{
    struct helper_process *process = userdata;

    process->exited = true;
    end_errors(process);
    if (si->si_code == CLD_EXITED)
        snprintf(process->why, sizeof(process->why), "ended with exit status %d", si->si_status);
    else
        snprintf(process->why, sizeof(process->why), "was killed by SIG%s%s", sigabbrev_np(si->si_status),
                 si->si_status == SIGSYS ? ": it tried a system call that its sandbox forbids" : "");
    process->on_exit(process->userdata);
    return 0;
}

int helper_process_fork(struct helper_process *process, const char *path, int fd)
{
    _cleanup_own_fd_ int errors = make_errors(process);
    pid_t pid;
    int r = errors < 0 ? errors : spawn(path, fd, errors, &pid);

    if (r < 0) {
        process->errors = sd_event_source_disable_unref(process->errors);
        return r;
    }
    /* SIGCHLD is blocked, as sd_event_add_child(3) wants it (manager.c): a child that has ended is found,
     * too. */
    process->child = true;
    r = sd_event_add_child(process->event, &process->exit, pid, WEXITED, on_child, process);
    if (r < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        process->errors = sd_event_source_disable_unref(process->errors);
    }
    return r;
}

/* ---- Started by systemd ---- */

static int on_unit_path(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    _cleanup_free_ char *unit = NULL;
    struct helper_process *process = userdata;
    const char *path;

    process->slot = sd_bus_slot_unref(process->slot);
    if (sd_bus_message_is_method_error(reply, NULL) || sd_bus_message_read(reply, "o", &path) < 0 ||
        sd_bus_path_decode(path, SYSTEMD_PATH "/unit", &unit) <= 0 || !unit ||
        strncmp(unit, UNIT_PREFIX, strlen(UNIT_PREFIX)) != 0 || strlen(unit) >= sizeof(process->unit))
        return 0;
    strcpy(process->unit, unit);
    process->on_unit(process->userdata);
    return 0;
}

static int on_pidfd(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct helper_process *process = userdata;

    process->exit = sd_event_source_disable_unref(process->exit);
    process->exited = true;
    process->on_exit(process->userdata);
    return 0;
}

/* The pid of the sender of what waits first. A negative errno. */
static pid_t first_sender(int fd)
{
    union {
        char buf[CMSG_SPACE(sizeof(struct ucred))]; /* FDs that came along find no room, and are not opened */
        struct cmsghdr align;
    } control;
    struct msghdr mh = {.msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    const struct cmsghdr *cmsg;
    struct ucred ucred;

    if (recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
        return -errno;
    cmsg = CMSG_FIRSTHDR(&mh);
    if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_CREDENTIALS)
        return -ESRCH;
    memcpy(&ucred, CMSG_DATA(cmsg), sizeof(ucred));
    return ucred.pid > 0 ? ucred.pid : -ESRCH;
}

void helper_process_identify(struct helper_process *process, int fd)
{
    static const int off = 0;
    pid_t pid = first_sender(fd);
    int pidfd;

    if (pid == -EAGAIN)
        return;
    pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
    /* What is received from now on brings FDs alone. */
    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
    if (pidfd < 0)
        return;
    if (sd_event_add_io(process->event, &process->exit, pidfd, EPOLLIN, on_pidfd, process) < 0) {
        close(pidfd);
        return;
    }
    sd_event_source_set_io_fd_own(process->exit, true);
    if (process->bus)
        sd_bus_call_method_async(process->bus, &process->slot, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                 "GetUnitByPID", on_unit_path, process, "u", (uint32_t)pid);
}

/* ---- Both ---- */

void helper_process_kill(struct helper_process *process)
{
    if (process->exited)
        return;
    if (process->child)
        sd_event_source_send_child_signal(process->exit, SIGKILL, NULL, 0);
    else if (process->bus && process->unit[0] != '\0')
        /* Not by its pid: its uid is not ours, and we have no capability for that. */
        sd_bus_call_method_async(process->bus, NULL, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "KillUnit", NULL,
                                 NULL, "ssi", process->unit, "all", (int32_t)SIGKILL);
}

void helper_process_clear(struct helper_process *process)
{
    end_errors(process);
    process->exit = sd_event_source_disable_unref(process->exit);
    process->slot = sd_bus_slot_unref(process->slot);
}
