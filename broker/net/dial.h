/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Dials a peer by all its endpoints: a new one every 100 ms, or at once when one fails, and the first that
 * connects wins (RFC 8305, 5: the least "connection attempt delay" that it recommends). Never blocks.
 */

#include <systemd/sd-event.h>

#include "broker/config/config.h"

#define DIAL_WHY_MAX 200 /* bytes, the NUL included */

struct dial;

/* The outcome, once: fd is the caller's, by the endpoint at this place; or −1 and a text that says why not,
 * of the first endpoints that fit (DIAL_WHY_MAX). The dial may be freed in it. */
typedef void (*dial_done_t)(struct dial *dial, int fd, size_t which, const char *why, void *userdata);

/*
 * Endpoints as texts, copied; those that cannot be parsed count as failed. timeout in µs for the whole. For
 * this uid: of UNIX sockets only those that it may name are dialled. 0 or a negative errno; done() is never
 * called before this returns.
 */
int dial_new(sd_event *event, const char (*endpoints)[ADDRESS_TEXT_MAX], size_t n, uint64_t timeout,
             const struct config *config, uid_t uid, dial_done_t done, void *userdata, struct dial **ret);

/* Closes what is open; done() is not called any more. */
struct dial *dial_free(struct dial *dial);
