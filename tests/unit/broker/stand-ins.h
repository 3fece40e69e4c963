/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What stands around the broker's objects in their tests: helpers, which connect to nothing but a socket of
 * the test, and a service manager, which keeps what is put into the FD store. Both are this process, so each
 * turn of the loop is all that there is to wait for.
 */

#include "test-util.h"

#include "broker/store.h"
#include "common/cleanup.h"
#include "common/message.h"

#include <sys/un.h>
#include <systemd/sd-event.h>

enum { STAND_IN_HELPERS = 16, STAND_IN_STORED = 32, STAND_IN_FDS = 200 /* lower ones are the store's */ };

struct stand_ins {
    char directory[32];
    int listener; /* in place of vmferry-helper.socket */
    char helper_path[64];
    int helpers[STAND_IN_HELPERS]; /* in the order in which they were started */
    size_t n_helpers;
    int notify; /* in place of systemd; −1: there is none */
    struct {
        char name[STORE_NAME_MAX];
        int fd;
    } stored[STAND_IN_STORED];
    size_t n_stored;
    size_t n_barriers; /* BARRIER=1 that came with a descriptor */
};

/* Out of the way of those that the store takes over. */
static inline int stand_in_fd(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, STAND_IN_FDS);

    assert_true(high >= 0);
    close(fd);
    return high;
}

static inline int stand_in_socket(const char *path, int type)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = stand_in_fd(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

    strcpy(un.sun_path, path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    return fd;
}

static inline void stand_ins_open(struct stand_ins *stand_ins, bool with_store)
{
    *stand_ins = (struct stand_ins){.directory = "/tmp/vmf-unit-XXXXXX", .notify = -1};
    assert_non_null(mkdtemp(stand_ins->directory));
    snprintf(stand_ins->helper_path, sizeof(stand_ins->helper_path), "%s/helper", stand_ins->directory);
    stand_ins->listener = stand_in_socket(stand_ins->helper_path, SOCK_SEQPACKET);
    assert_int_equal(listen(stand_ins->listener, 16), 0);
    unsetenv("NOTIFY_SOCKET");
    if (with_store) {
        char path[64];

        snprintf(path, sizeof(path), "%s/notify", stand_ins->directory);
        stand_ins->notify = stand_in_socket(path, SOCK_DGRAM);
        setenv("NOTIFY_SOCKET", path, 1);
    }
}

static inline void stand_ins_close(struct stand_ins *stand_ins)
{
    char command[64];

    close(stand_ins->listener);
    while (stand_ins->n_helpers > 0)
        fd_closep(&stand_ins->helpers[--stand_ins->n_helpers]);
    while (stand_ins->n_stored > 0)
        close(stand_ins->stored[--stand_ins->n_stored].fd);
    fd_closep(&stand_ins->notify);
    unsetenv("NOTIFY_SOCKET");
    snprintf(command, sizeof(command), "rm -r %s", stand_ins->directory);
    assert_int_equal(system(command), 0);
}

/* ---- The service manager ---- */

static inline void stand_in_store(struct stand_ins *stand_ins, const char *text, int fd)
{
    const char *name = strstr(text, "FDNAME=");
    size_t n = name ? strcspn(name + 7, "\n") : 0;

    for (size_t i = 0; name && strstr(text, "FDSTOREREMOVE=1") && i < stand_ins->n_stored; i++) {
        if (strlen(stand_ins->stored[i].name) != n || strncmp(stand_ins->stored[i].name, name + 7, n) != 0)
            continue;
        close(stand_ins->stored[i].fd);
        memmove(&stand_ins->stored[i], &stand_ins->stored[i + 1],
                (--stand_ins->n_stored - i) * sizeof(stand_ins->stored[0]));
        return;
    }
    if (fd >= 0 && !name) {
        assert_non_null(strstr(text, "BARRIER=1"));
        stand_ins->n_barriers++;
        close(fd);
    }
    if (fd < 0 || !name)
        return;
    assert_true(stand_ins->n_stored < STAND_IN_STORED && n < STORE_NAME_MAX);
    snprintf(stand_ins->stored[stand_ins->n_stored].name, STORE_NAME_MAX, "%.*s", (int)n, name + 7);
    stand_ins->stored[stand_ins->n_stored++].fd = stand_in_fd(fd);
}

/* Reads what the store has said. */
static inline void stand_in_manage(struct stand_ins *stand_ins)
{
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char text[512];

    while (stand_ins->notify >= 0) {
        struct iovec iov = {text, sizeof(text) - 1};
        struct msghdr mh = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(stand_ins->notify, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        const struct cmsghdr *cmsg = n >= 0 ? CMSG_FIRSTHDR(&mh) : NULL;
        int fd = -1;

        if (n < 0)
            return;
        text[n] = '\0';
        if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
        stand_in_store(stand_ins, text, fd);
    }
}

static inline bool stand_in_has(struct stand_ins *stand_ins, const char *part)
{
    stand_in_manage(stand_ins);
    for (size_t i = 0; i < stand_ins->n_stored; i++)
        if (strstr(stand_ins->stored[i].name, part))
            return true;
    return false;
}

/* Hands all back to the broker that is started next, as sd_listen_fds(3) has it. */
static inline void stand_in_hand_back(struct stand_ins *stand_ins)
{
    char names[STAND_IN_STORED * STORE_NAME_MAX] = "", number[16];

    stand_in_manage(stand_ins);
    for (size_t i = 0; i < stand_ins->n_stored; i++) {
        assert_true(fcntl(3 + (int)i, F_GETFD) < 0);
        assert_int_equal(dup2(stand_ins->stored[i].fd, 3 + (int)i), 3 + (int)i);
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i > 0 ? ":" : "",
                 stand_ins->stored[i].name);
    }
    snprintf(number, sizeof(number), "%zu", stand_ins->n_stored);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    snprintf(number, sizeof(number), "%d", getpid());
    setenv("LISTEN_PID", number, 1);
}

/* ---- Helpers ---- */

static inline void stand_in_accept(struct stand_ins *stand_ins)
{
    int fd;

    while ((fd = accept4(stand_ins->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        union message m = {0};

        assert_true(stand_ins->n_helpers < STAND_IN_HELPERS);
        fd = stand_ins->helpers[stand_ins->n_helpers++] = stand_in_fd(fd);
        assert_true(message_send(fd, MESSAGE_READY, &m, -1) >= 0);
    }
}

/* All that can happen without time passing. */
static inline void stand_ins_turn(struct stand_ins *stand_ins, sd_event *event)
{
    for (int quiet = 0; quiet < 2;) {
        int r = sd_event_run(event, 0);

        assert_true(r >= 0);
        stand_in_accept(stand_ins);
        quiet = r == 0 ? quiet + 1 : 0;
    }
}

static inline void helper_says(int helper, enum message_type type, union message m)
{
    assert_true(message_send(helper, type, &m, -1) >= 0);
}

/* What it is offered with its start is no matter here. */
static inline void helper_passes_offer(int helper)
{
    uint32_t type;
    union message m;
    int fd;

    if (message_peek_type(helper, &type) > 0 && type == MESSAGE_OFFER)
        message_recv(helper, TO_HELPER, ~0U, &m, &fd);
}

/* What it hears next, which is this; the FD that comes with it is closed, or the caller's. */
static inline union message helper_hears(int helper, enum message_type type, int *ret_fd)
{
    union message m;
    int fd = -1, r = message_recv(helper, TO_HELPER, ~0U, &m, &fd);

    if (r <= 0)
        fail_msg("it hears nothing, but waits for %s", message_name(type));
    assert_string_equal(message_name(m.header.type), message_name(type));
    if (ret_fd)
        *ret_fd = fd;
    else
        fd_closep(&fd);
    helper_passes_offer(helper);
    return m;
}

/* Nothing waits to be heard. Pipes are no matter here. */
static inline void helper_hears_nothing(int helper)
{
    union message m;
    int fd = -1, r;

    do {
        r = message_recv(helper, TO_HELPER, ~0U, &m, &fd);
        fd_closep(&fd);
    } while (r > 0 && m.header.type == MESSAGE_PIPE);
    if (r > 0)
        fail_msg("it hears %s", message_name(m.header.type));
}

/* The broker has given it up, be it with something of its unread. */
static inline bool helper_is_dropped(int helper)
{
    char byte;
    ssize_t n = recv(helper, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}
