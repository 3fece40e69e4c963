/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the migration is, when it ends, and what a loss means. All of it is the first thread's.
 *
 *     session.c    makes the objects and wires them
 *     messages.c   what the broker says
 *     frames.c     what the peer says of the migration as a whole; the control connection begins
 *     tick.c       once a second
 *     failure.c    a connection that the source made has failed
 *     outcome.c    what became of the VM
 *     resume.c     a lost connection: cleaning up, dialling again, giving up
 *     end.c        the state, and the one end
 */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/message.h"
#include "common/stream-names.h"
#include "helper/channel/channels.h"
#include "helper/control/control.h"
#include "helper/counters.h"
#include "helper/kept.h"
#include "helper/limits.h"
#include "helper/link.h"
#include "helper/peer/peers.h"
#include "helper/requests.h"

/* Of the control connection, and so of all to the peer. */
enum connection {
    CONNECTION_AWAITED,  /* there has been none */
    CONNECTION_GREETING, /* it has proved itself; the peer's HELLO is still to come */
    CONNECTION_UP,
    CONNECTION_BROKEN, /* it is lost; session_clean_up() will act upon that from the event loop */
    CONNECTION_DOWN,   /* it was lost */
};

/* After a loss. The timer is that of what is awaited. */
enum recovery {
    RECOVERY_NONE,
    RECOVERY_AWAITS_NETWORK, /* the channels go on when it is back */
    RECOVERY_AWAITS_QEMU,    /* they were given up: new ones of QEMU's have to come */
};

enum ending {
    ENDING_NONE,
    ENDING_FAREWELL, /* source, cut off: it ends when it has told the peer */
    ENDING_OVER,     /* the result stands; only the last frame may still be on its way */
};

struct session {
    sd_event *event;   /* borrowed */
    struct link *link; /* borrowed */
    uint64_t id;
    enum message_role role;
    enum message_security security;
    uint32_t max_channels;
    uint32_t features;           /* enum message_offers: what the broker offers, as far as it is known here */
    struct stream_names streams; /* ours */
    struct stream_names peer_streams; /* the source's, in its order */
    struct ring_pool pool;
    struct counters counters;
    struct requests *requests; /* owned, as all that follow */
    struct kept *kept;
    struct control *control;
    struct channels *channels;
    struct peers *peers;

    enum message_state state;   /* session_set_state() */
    enum connection connection; /* session_set_connection() */
    unsigned connections;       /* that there have been: the number of the current one, or of the last */
    unsigned said_close; /* source: the number of the one on which CLOSE of the whole was sent; 0: none */
    enum recovery recovery;
    enum ending ending;
    enum vf_error farewell_error;
    bool halted; /* it is over or broken: nothing is read, sent or waited for. Lent to all objects */
    char why[MESSAGE_TEXT_MAX]; /* the connection was lost */
    bool brought;               /* the control connection: by a caller, who may have no other one */
    unsigned n_dials;           /* source: of the first control connection, after the first one */
    uint32_t peer_features;     /* enum frame_features */
    struct outcome outcome;     /* what became of the VM, as the source's owner says */
    unsigned said_outcome;      /* source: the number of the connection on which; 0: it was not */
    uint32_t n_outcomes;        /* destination: that the peer has told */
    bool broker_takes_outcome, outcome_told; /* destination: the broker was told */
    uint64_t held_until;                     /* source: µs; all is carried, and the end waits */
    uint64_t cancel_until; /* source: µs; QEMU has closed a connection early, for which the end waits, too */
    uint32_t n_rejections; /* of the connections that were to follow, in a row */
    uint64_t redial;       /* µs until the next try; 0: at once */
    uint64_t resume_timeout; /* µs; 0: a loss is for good */
    sd_event_source *tick, *linger, *cleanup, *redial_timer, *recovery_timer, *hold, *cancel;
};

static inline bool session_is_over(const struct session *session)
{
    return session->ending == ENDING_OVER;
}
