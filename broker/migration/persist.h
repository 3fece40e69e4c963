/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A migration as it stands in the FD store: it becomes a record, and a record becomes it again. */

#include "broker/migration/options.h"
#include "broker/migration/record.h"

struct migration;

/* It is made: from here on it outlives the broker. */
void migration_store(struct migration *migration);

/* Stores what it is now, in place of what was stored before; to be called before anything is told. */
void migration_save(struct migration *migration);

/* What is over goes from the store: the helper and its page, or all. Sockets go where they are closed. */
void migration_unstore_helper(struct migration *migration);
void migration_unstore(struct migration *migration);

/* The options with which it was made. options_clear() in any case. 0 or a negative errno. */
int persist_read_options(const struct record *record, struct options *ret);

/* All else of a record, for a migration that was made from those; number: the record's. */
void persist_read(struct migration *migration, const struct record *record, uint32_t number);
