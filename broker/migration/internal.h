/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A migration as a whole. Only its own story (migration.c), its making (setup.c), its record (persist.c,
 * restore.c) what is brought to it (supply.c) and what it tells
 * (news.c) see this; all others have its entry, or ask.
 */

#include "broker/migration/helper-side.h"
#include "broker/migration/options.h"
#include "broker/migration/peer-dial.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"
#include "broker/migration/status.h"
#include "broker/migration/stream.h"
#include "broker/migration/ticketing.h"
#include "broker/rate.h"
#include "broker/sockets/supplied.h"

/* That it was told to end. */
enum ending_stage {
    ENDING_NO,
    ENDING_TOLD,     /* by the error that is set; unless it is finished, its helper has yet to confirm */
    ENDING_FAREWELL, /* it is finished, but its helper goes on to tell the peer */
};

struct ending {
    enum ending_stage stage;
    enum vf_error error;
    char *text; /* owned */
};

/* What was not told yet: see news.h. */
struct news {
    const struct news_pace *pace;
    struct rate rate;
    sd_event_source *timer; /* owned; for what waits */
    unsigned changed;       /* enum migration_change: what waits */
};

/* See telling.h. */
struct telling {
    uint32_t features; /* enum helper_features */
    uint32_t n_peer;   /* outcomes that its peer told */
    struct rate reports, outcomes;
};

struct migration {
    const struct migration_services *services; /* borrowed */
    struct entry entry;                        /* in the registry */
    struct options options;                    /* owned; endpoints: what is announced, or dialled */
    struct migration_status status;
    struct streams streams;
    struct peer_dials dials;
    struct helper_side helper;
    struct supplied supplied;
    struct ending ending;
    char ticket_digest[TICKET_DIGEST_MAX]; /* outgoing: which ticket it is from; "": not known */
    bool expects_peers;                    /* holds the peer port */
    struct news news;
    struct news progress_news;
    struct telling telling;
    struct rate said; /* how often its helper said a state */
    struct log_sample interruptions;
    sd_event_source *timer; /* what bounds the state it is in */
    uint64_t deadline;      /* when that is; µs, CLOCK_MONOTONIC; 0: nothing does */
    bool stored;            /* it is in the FD store, and what changes is told there */
    uint32_t record_number; /* of its last record there */
};
