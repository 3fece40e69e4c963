/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A migration as a whole. Only its own story (migration.c), its making (setup.c), its record (persist.c,
 * restore.c) and what is brought to it (supply.c) see this; all others have its entry, or ask.
 */

#include "broker/migration/bound.h"
#include "broker/migration/helper-side.h"
#include "broker/migration/news.h"
#include "broker/migration/options.h"
#include "broker/migration/peer-dial.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"
#include "broker/migration/status.h"
#include "broker/migration/stream.h"
#include "broker/migration/telling.h"
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
    struct bound bound;
    bool stored;            /* it is in the FD store, and what changes is told there */
    uint32_t record_number; /* of its last record there */
};
