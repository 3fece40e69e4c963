/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker's end of its socket to one helper, and the helper's process where the broker forked it. Whatever
 * the helper says that the table of common/message.h does not permit ends it.
 */

#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "common/message.h"

struct helper_link;

/* All helpers of a broker, those too that nobody is interested in any more but that have yet to end. */
struct helper_links {
    sd_event *event;  /* borrowed */
    const char *path; /* borrowed; of vmferry-helper, absolute */
    TAILQ_HEAD(, helper_link) links;
};

/* For a broker that ends, when all others are freed: those with open channels go on by themselves, the rest
 * end. */
void helper_links_clear(struct helper_links *links);

/* fd is the callee's; only messages that the table gives an FD come with one. */
typedef void (*helper_message_t)(struct helper_link *link, const union message *m, int fd, void *userdata);

/* Once, when the helper is gone and all that it said was read; why is a sentence's end ("was killed by
 * SIGSYS"). */
typedef void (*helper_gone_t)(struct helper_link *link, const char *why, void *userdata);

/*
 * Forks a helper. It has 5 s to get ready; what is sent before waits for it. 0 or a
 * negative errno: then nothing is left.
 */
int helper_link_fork(struct helper_links *links, helper_message_t on_message, helper_gone_t on_gone,
                     void *userdata, struct helper_link **ret);

/*
 * Ends the connection; nothing is called any more. A helper that has not ended within 3 s is killed; it is
 * reaped in any case.
 */
struct helper_link *helper_link_free(struct helper_link *link);

/* Borrows fd (−1 for none). A negative errno where it cannot be sent. */
int helper_link_send(struct helper_link *link, enum message_type type, union message *m, int fd);

/* SIGKILL, for a helper that is not to be trusted any more: nothing that it said is read. on_gone() follows
 * with why. */
void helper_link_kill(struct helper_link *link, const char *why);
