/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One migration as the broker sees it. setup.c makes it, or restore.c makes it again; migration.c tells its
 * story from then on, in the order of its states; supply.c takes what managers bring to it.
 */

#include "broker/helpers/link.h"
#include "broker/helpers/stats-page.h"
#include "broker/migration/identity.h"
#include "broker/migration/options.h"
#include "broker/migration/status.h"

struct migration;
struct telling;

/* ---- How it stands: borrowed, to be read ---- */

const struct identity *migration_identity(const struct migration *migration);
const struct options *migration_options(const struct migration *migration);
const struct migration_status *migration_status(const struct migration *migration);
const struct stats_page *migration_page(const struct migration *migration);
/* Of one of its streams, below n_streams; "": that has no path. */
const char *migration_socket_path(const struct migration *migration, uint32_t stream);

/* Where its owner reports to. */
struct telling *migration_telling(struct migration *migration);

/* ---- Its story ---- */

/* The gate has a peer connection for it, with this mark (NULL: none); borrows fd. */
void migration_peer_arrived(struct migration *migration, enum peer_kind kind, const struct message_mark *mark,
                            int fd);

/* Ends it by this error, through its helper; the state is finished when that has confirmed. */
void migration_stop(struct migration *migration, enum vf_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 0: no limit. Stored, sent to the helper and signalled. */
void migration_set_limit(struct migration *migration, uint64_t bytes_per_second);

/* A finished one is forgotten: the object is gone. */
void migration_forget(struct migration *migration);

/* Gives up all that is the broker's, without an event: for one that could not be made, and at the end. */
void migration_free(struct migration *migration);

/* ---- For setup.c and restore.c ---- */

/* Stores it, and tells that this has changed: enum migration_change. */
void migration_tell(struct migration *migration, unsigned changed);

/* What bounds its state is over; userdata: the migration. */
int migration_on_deadline(sd_event_source *source, uint64_t usec, void *userdata);

/* The end of one that can have no helper any more. */
void migration_lost(struct migration *migration, const char *why);

/* Bounds the time until its peer comes. */
void migration_await_peer(struct migration *migration);

/* What its helper says, and that it is gone; userdata: the migration. */
extern const struct helper_handlers migration_helper_handlers;
