/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker's end of its socket to one helper, and the helper's process where the broker forked it. Whatever
 * the helper says that the table of common/message.h does not permit ends it.
 */

#include <systemd/sd-event.h>

#include "common/message.h"

struct helper_link;

/* fd is the callee's; only messages that the table gives an FD come with one. */
typedef void (*helper_message_t)(struct helper_link *link, const union message *m, int fd, void *userdata);

/* Once, when the helper is gone and all that it said was read; why is a sentence's end ("was killed by
 * SIGSYS"). */
typedef void (*helper_gone_t)(struct helper_link *link, const char *why, void *userdata);

/*
 * Forks a helper; path must be absolute. It has 5 s to get ready; what is sent before waits for it. 0 or a
 * negative errno: then nothing is left.
 */
int helper_link_fork(sd_event *event, const char *path, helper_message_t on_message, helper_gone_t on_gone,
                     void *userdata, struct helper_link **ret);

/*
 * Ends the connection; nothing is called any more. A helper that has not ended within 3 s is killed, and
 * reaped in any case; one with open channels is given the time that they need (see orphan).
 */
struct helper_link *helper_link_free(struct helper_link *link);

/* Like helper_link_free(), but lets the helper go on by itself: for a broker that ends. */
struct helper_link *helper_link_orphan(struct helper_link *link);

/* Borrows fd (−1 for none). A negative errno where it cannot be sent. */
int helper_link_send(struct helper_link *link, enum message_type type, union message *m, int fd);

/* SIGKILL: for a helper that does not do what it was told. on_gone() follows. */
void helper_link_kill(struct helper_link *link);
