/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "helper/gate.h"
#include "helper/sandbox.h"
#include "helper/session/session.h"

struct helper {
    sd_event *event;
    sd_event_source *timer; /* never fires: it makes the loop's timerfd, which cannot be had in the sandbox */
    struct link link;
    struct workers workers;
    struct aead_choice aeads;
    struct session *session;
    struct gate *gate;
};

/* The threads end before the session that they work on is freed; their locks go after it, since
 * session_free() still takes them. */
static void helper_clear(struct helper *helper)
{
    workers_stop(&helper->workers);
    helper->session = session_free(helper->session);
    workers_clear(&helper->workers);
    helper->gate = gate_free(helper->gate);
    link_clear(&helper->link);
    sd_event_source_disable_unref(helper->timer);
    sd_event_unref(helper->event);
}

/* The first message says what this helper is to be. */
static void on_start(struct link *link, const union message *m, int fd, void *userdata)
{
    struct helper *helper = userdata;
    bool gate = m->header.type == MESSAGE_START_GATE;
    int r = sandbox_narrow(gate);

    if (r < 0)
        fd_closep(&fd);
    else if (gate)
        r = gate_new(helper->event, link, &m->start_gate, &helper->gate);
    else {
        enum aead_cipher cipher = helper->aeads.preferred;

        if (m->start_relay.security == SECURITY_TLS)
            link_log(link, LOG_DEBUG, "The cipher preferred here is %s, by %s: %u MB/s.",
                     aead_cipher_name(cipher), helper->aeads.fastest[cipher]->name,
                     helper->aeads.rate[cipher]);
        r = session_new(helper->event, link, &helper->workers, &helper->aeads, &m->start_relay, fd,
                        &helper->session);
    }
    if (r < 0)
        sd_event_exit(helper->event, r);
}

static void on_gone_early(struct link *link, const char *why, void *userdata)
{
    struct helper *helper = userdata;

    sd_event_exit(helper->event, 0);
}

/* Code and constants of an object: what is used again is mapped again, from the page cache. Nothing has
 * written there: code that position-independent objects share has no relocations. */
static int unmap_constants(struct dl_phdr_info *object, size_t size, void *unused)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        uintptr_t begin = (object->dlpi_addr + part->p_vaddr) & -page;
        uintptr_t end = (object->dlpi_addr + part->p_vaddr + part->p_memsz + page - 1) & -page;

        if (part->p_type == PT_LOAD && !(part->p_flags & PF_W))
            madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

/* All that has to exist before the sandbox. */
static int set_up(struct helper *helper, int fd)
{
    int r = sd_event_new(&helper->event);

    if (r >= 0)
        r = sd_event_add_time_relative(helper->event, &helper->timer, CLOCK_MONOTONIC, 3600000000, 0, NULL,
                                       NULL);
    /* The first timer that is armed makes sd-event read the boot id: one turn of the loop gets that over. */
    if (r >= 0)
        r = sd_event_run(helper->event, 0);
    if (r >= 0)
        r = sd_event_source_set_enabled(helper->timer, SD_EVENT_OFF);
    if (r >= 0)
        r = link_init(&helper->link, helper->event, fd);
    link_set_handlers(&helper->link, on_start, on_gone_early, helper);
    aead_choose(&helper->aeads);
    /* Start, self-tests and the slower libraries have used megabytes of code that is not used again. */
    dl_iterate_phdr(unmap_constants, NULL);
    workers_start(&helper->workers);
    return r;
}

static int check_socket(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return -errno;
    if (type != SOCK_SEQPACKET)
        return -EPROTOTYPE;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

int helper_run(int fd, void (*on_locked)(sd_event *event))
{
    _cleanup_(helper_clear) struct helper helper = {.link.fd = -1, .workers = WORKERS_NONE};
    union message ready = {0};
    int r;

    r = check_socket(fd);
    if (r < 0) {
        fprintf(stderr, "Descriptor %d is no socket to a broker (%s). vmferryd starts this program.\n", fd,
                strerror(-r));
        return EXIT_FAILURE;
    }
    r = sandbox_isolate(fd);
    if (r >= 0)
        r = set_up(&helper, fd);
    if (r >= 0)
        r = sandbox_lock();
    if (r < 0) {
        fprintf(stderr, "Failed to enter the sandbox: %s\n", strerror(-r));
        return EXIT_FAILURE;
    }
    if (on_locked)
        on_locked(helper.event);
    if (!link_send(&helper.link, MESSAGE_READY, &ready, -1))
        return EXIT_FAILURE;
    r = sd_event_loop(helper.event);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
