/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Sizes and times as people write and read them. Pure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNITS_TEXT_MAX 32 /* bytes, the NUL included; holds any of them */

/* "100M": digits, perhaps a fraction, perhaps K, M, G or T (1024, 1024², …); and what format_size() writes,
 * with
 * "/s" too. False where it is no such text. */
bool parse_size(const char *text, uint64_t *ret);

/* "90", "1.5s", "300ms", "2min", "1h": without a unit seconds; and what format_time() writes. In µs, at most
 * a day. */
bool parse_time(const char *text, uint64_t *ret_usec);
bool time_has_unit(const char *text);

/* A whole number from min to max. */
bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

/* "1.5 GiB": three digits or so, never rounded up to what was not reached. */
void format_size(uint64_t bytes, char ret[static UNITS_TEXT_MAX]);

/* "340 ms", "12.5 s", "3 min 20 s", "2 h 5 min". */
void format_time(uint64_t usec, char ret[static UNITS_TEXT_MAX]);

/* The time between two moments of the wall clock; "" where the clock was set back between them. */
void format_span(uint64_t from, uint64_t to, char ret[static UNITS_TEXT_MAX]);

/* "2026-11-22 06:40:40 UTC"; "-" for 0. */
void format_moment(uint64_t usec, char ret[static UNITS_TEXT_MAX]);
