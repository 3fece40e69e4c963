/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The names in the FD store of what belongs to a migration: "in-KEY-WHAT" or "out-KEY-WHAT", with its key.
 * WHAT is "link", its helper's socket; "page", the counters; "listen.STREAM", a listener;
 * "dial.STREAM.CHANNEL", a connection to QEMU that is being made; "state.N", the record; and "sock.STREAM.N",
 * "ours.STREAM.N" and "peer.N", sockets that were supplied, which only older brokers have stored. The record
 * comes last and goes first: where it is, the migration is. A new record is stored before the old one is
 * removed; the one with the highest N counts.
 */

#include <stdbool.h>
#include <stddef.h>

#include "broker/migration/identity.h"
#include "broker/store.h"

void stored_name(const struct identity *identity, char ret[static STORE_NAME_MAX], const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A name, read. */
struct stored_name {
    char text[STORE_NAME_MAX];
    enum message_role role;
    uint64_t id;
    uint32_t of_id; /* which one of that id */
    bool record;
    uint32_t number; /* of a record */
    size_t at;       /* its position in the store, which is the order of insertion */
};

/* All names of one migration: its records, the newest first, then the others as they were put. */
struct stored_group {
    const struct stored_name *names; /* borrowed, of the sorted ones */
    size_t n;
};

/*
 * The names of migrations that were not taken yet, sorted by their migrations; and the groups of those that
 * have a record, in the order of that. NULL where there are none, or no memory; the caller's, free(3).
 */
struct stored_name *stored_names_sort(const struct store *store, size_t *ret_n);
struct stored_group *stored_names_group(const struct stored_name *names, size_t n, size_t *ret_n);
