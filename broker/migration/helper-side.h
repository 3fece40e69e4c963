/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A migration's helper: its socket, its counters, and whether what it asks for is meant for this broker. */

#include "broker/helpers/link.h"
#include "broker/helpers/stats-page.h"
#include "broker/migration/identity.h"
#include "broker/migration/log.h"

/*
 * A helper that another broker started still says what that one has not read. So it is sent a SYNC with a
 * cookie: requests that come before its SYNCED are void, for it repeats them afterwards; and the state that
 * it says next is where it stands, whatever the stored one was.
 */
enum helper_voice {
    VOICE_OURS,    /* this broker knows all that the helper said */
    VOICE_SYNCING, /* SYNC is sent */
    VOICE_SYNCED,  /* SYNCED has come, its state not yet */
};

struct helper_side {
    const struct identity *identity; /* borrowed */
    struct helper_link *link;        /* owned; NULL: there is none (any more) */
    struct stats_page page;
    enum helper_voice voice;
    uint64_t cookie;   /* of our SYNC */
    uint32_t features; /* enum message_offers: what it has said that it knows */
    uint64_t kept;     /* the last number of a KEEP */
    struct helper_logs logs;
};

/* With no helper yet; borrows identity. helper_side_clear() frees the link and the page. */
void helper_side_init(struct helper_side *side, const struct identity *identity);
void helper_side_clear(struct helper_side *side);

/* As helper_link_send(); -ENOTCONN without a helper. */
int helper_side_send(struct helper_side *side, enum message_type type, union message *m, int fd);

/* False: the helper does not keep up, or there is none. Leave out what no process waits for. */
bool helper_side_has_room(const struct helper_side *side);

/* What the helper asked for; one that cannot take it would wait for ever, and is ended. Borrows fd. */
void helper_side_answer(struct helper_side *side, enum message_type type, union message *m, int fd);

/* What it said cannot be: it is ended, and its owner told that it is gone. */
void helper_side_kill(struct helper_side *side, const char *why);

/* Sends SYNC to a helper of the broker before this one. */
void helper_side_sync(struct helper_side *side);

/* Whether a message is for the migration: else it was void, or was the answer to SYNC. */
bool helper_side_hears(struct helper_side *side, const union message *m);

/* Tells a new helper what this broker knows. growth: MiB by which the windows of its channels may grow, all
 * together. As helper_side_send(). */
int helper_side_offer(struct helper_side *side, uint32_t growth);

bool helper_side_has(const struct helper_side *side, enum message_offers feature);

/* Hands over a socket that waits to be needed, for the helper outlives this broker; borrows fd. Returns its
 * number, 0 where the helper cannot keep it. */
uint64_t helper_side_keep(struct helper_side *side, enum kept_for what, uint32_t stream, bool shared, int fd);

/* It has said in which state it is. */
void helper_side_settled(struct helper_side *side);
