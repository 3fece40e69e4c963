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
 *     resume.c     a lost connection: cleaning up, giving up
 *     redial.c     dialling again
 *     end.c        the states, and the one end
 *     complete.c   when all is carried
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

/* After a loss. */
enum recovery_stage {
    RECOVERY_NONE,
    RECOVERY_AWAITS_NETWORK, /* the channels go on when it is back */
    RECOVERY_AWAITS_QEMU,    /* they were given up: new ones of QEMU's have to come */
};

struct recovery {
    enum recovery_stage stage; /* session_set_recovery() */
    uint64_t timeout;          /* µs that the network may be away; 0: a loss is for good */
    sd_event_source *timer;    /* of what is awaited */
};

enum ending_stage {
    ENDING_NONE,
    ENDING_FAREWELL, /* source, cut off: it ends when it has told the peer */
    ENDING_OVER,     /* the result stands; only the last frame may still be on its way */
};

struct ending {
    enum ending_stage stage; /* session_set_ending() */
    enum vf_error farewell;  /* what the peer is to be told */
    sd_event_source *linger;
};

/* Source: dialling once more. redial.c's alone, as what follows is of the file that is named. */
struct redial {
    unsigned n_first;      /* dials of the first control connection, after the first one */
    uint32_t n_rejections; /* of the connections that were to follow, in a row */
    uint64_t wait;         /* µs until the next try; 0: at once */
    sd_event_source *timer;
};

/* Source: what the end waits for when all is carried (complete.c). */
struct hold {
    uint64_t until;        /* µs: the owner will say more until then */
    uint64_t cancel_until; /* µs; 0: QEMU has closed no connection early */
    sd_event_source *timer, *cancel_timer;
};

enum listener {
    LISTENER_NONE, /* the broker takes no PEER_OUTCOME, as far as it is known */
    LISTENER_WAITS,
    LISTENER_TOLD, /* it knows the last one */
};

/* What became of the VM, as the source's owner says (outcome.c). */
struct known_outcome {
    struct outcome is;
    unsigned said;        /* source: the number of the connection on which; 0: it was not */
    uint32_t n_heard;     /* destination: from the peer */
    enum listener broker; /* destination */
};

struct session {
    sd_event *event;   /* borrowed */
    struct link *link; /* borrowed */
    uint64_t id;
    enum message_role role;
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
    struct recovery recovery;
    struct ending ending;
    bool halted; /* it is over or broken: nothing is read, sent or waited for. Lent to all objects */
    char why[MESSAGE_TEXT_MAX]; /* the connection was lost */
    bool brought;               /* the control connection: by a caller, who may have no other one */
    uint32_t peer_features;     /* enum frame_features */
    struct redial redial;
    struct hold hold;
    struct known_outcome outcome;
    sd_event_source *tick, *cleanup;
};

static inline bool session_is_over(const struct session *session)
{
    return session->ending.stage == ENDING_OVER;
}
