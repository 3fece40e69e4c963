/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker's end of its socket to one helper, and the helper's process: the broker's child, or under
 * systemd one that vmferry-helper.socket has started for the connection. Whatever the helper says that the
 * table of common/message.h does not permit ends it.
 */

#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "broker/helpers/spares.h"
#include "broker/log-sample.h"
#include "common/message.h"

struct helper_link;

/* All helpers of a broker, those too that have no owner any more but have yet to end. */
struct helper_links {
    sd_event *event;      /* borrowed */
    sd_bus *bus;          /* borrowed; where systemd is asked for units; NULL: nowhere */
    const char *path;     /* borrowed; of vmferry-helper, absolute: forks */
    const char *socket;   /* borrowed; of vmferry-helper.socket, absolute: connects there instead; or NULL */
    struct spares spares; /* how many of those that systemd starts are kept ready: a start takes its time */
    unsigned n_spares;    /* that there are */
    unsigned to_make;     /* that may be made until a helper is needed again */
    sd_event_source *spare_timer; /* makes the next one, or gives some up; NULL: none are kept yet */
    bool leaving; /* the broker goes, and another one will take the helpers over: they hear nothing of it */
    struct log_sample starved; /* connections that came when no descriptor was left */
    TAILQ_HEAD(, helper_link) links;
};

/* None yet. path and socket: as above; socket may be NULL. Borrows all. */
void helper_links_init(struct helper_links *links, sd_event *event, const char *path, const char *socket);

/* From now on systemd is asked by this bus for units; borrows it. */
void helper_links_set_bus(struct helper_links *links, sd_bus *bus);

/* The broker goes, and another one will take the helpers over. */
void helper_links_leave(struct helper_links *links);

/* For a broker that ends, when all others are freed: those with open channels go on by themselves, the rest
 * end. */
void helper_links_clear(struct helper_links *links);

/* What the owner of a link is told. */
struct helper_handlers {
    /*
     * fd is the callee's; only messages that the table gives an FD come with one. STATE and RESULT are taken
     * from the socket after this returns, so that a broker that dies in it finds them there when it comes
     * back.
     */
    void (*message)(struct helper_link *link, const union message *m, int fd, void *userdata);
    /* Once, when the helper is gone and all that it said was read; why is a sentence's end ("was killed by
     * SIGSYS"). */
    void (*gone)(struct helper_link *link, const char *why, void *userdata);
    /* Its unit is known now; NULL: the owner does not ask. */
    void (*unit)(struct helper_link *link, void *userdata);
};

/*
 * A new helper; ready.h has ones that wait already. It has 5 s to get ready (20 s under systemd); what is
 * sent before waits for it. handlers must outlive it. 0, and *ret is the caller's, who ends it with
 * helper_link_free(); or a negative errno: then nothing is left.
 */
int helper_link_start(struct helper_links *links, const struct helper_handlers *handlers, void *userdata,
                      struct helper_link **ret);

/*
 * A helper of the broker before this one, in this phase, in this unit ("": not known); takes its socket, on
 * failure too. What it said meanwhile is read first. 0 or a negative errno, and *ret as above.
 */
int helper_link_adopt(struct helper_links *links, int fd, const char *unit, enum message_phase phase,
                      const struct helper_handlers *handlers, void *userdata, struct helper_link **ret);

/* Its socket, for the FD store, also when it has ended: borrowed. */
int helper_link_fd(const struct helper_link *link);

/*
 * Ends the connection; nothing is called any more. A helper that has not ended within 3 s is killed; a child
 * is reaped in any case. Safe on NULL. Returns NULL.
 */
struct helper_link *helper_link_free(struct helper_link *link);

/* Sets the header of m, and borrows fd (−1 for none). Never blocks. Negative where it cannot be sent: as
 * message_send(), or -ENOTCONN when the helper has ended. */
int helper_link_send(struct helper_link *link, enum message_type type, union message *m, int fd);

/* Whether the helper has read at least half of what its socket holds: the other half is for what it asks for.
 */
bool helper_link_has_room(const struct helper_link *link);

/* SIGKILL, for a helper that is not to be trusted any more: nothing that it said is read. gone() follows
 * with why. */
void helper_link_kill(struct helper_link *link, const char *why);

/* The systemd unit that it runs in; "" where it is not known (yet), or there is none. NULL has none. */
const char *helper_link_unit(const struct helper_link *link);

/* For error messages: what is started, or where it comes from, and how that is set. */
const char *helper_links_source(const struct helper_links *links);
const char *helper_links_option(const struct helper_links *links);
