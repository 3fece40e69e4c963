/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The table of migrations, which list prints once and watch again and again. */

#include "ctl/bus/record.h"

enum { TABLE_COLUMNS = 12 };

struct table_columns {
    int cells[TABLE_COLUMNS]; /* which, in their order */
    size_t n;
};

/* Reads --columns=; NULL: those that are shown unless told. */
int table_read_columns(const char *text, struct table_columns *ret, struct trouble *trouble);

/*
 * The running ones, then (all) the finished ones; each in the order in which they began. colour: with the
 * finished ones dimmed. A line for each, and a heading, without the last newline;
 * the caller frees it. *ret_n: how many they are.
 */
int table_make(const struct side *side, const struct table_columns *columns, json_object *list, bool all,
               bool colour, char **ret, size_t *ret_n, struct trouble *trouble);
