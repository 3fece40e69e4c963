/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a broker tells of itself or of a migration: its properties, as a JSON object with their D-Bus names,
 * so that what a newer broker tells is there too. Channels is a list of objects, Sockets an object.
 *
 * The broker may be another host's, and hostile: every text that comes in here is made printable, numbers are
 * finite, and what reads a record gets the type that it asks for or nothing. So printers need not look.
 */

#include <json-c/json.h>

#include "ctl/bus/side.h"

/* Takes all properties of the object. What it returns is a JSON object. */
int record_read(struct side *side, const char *path, const char *interface, json_object **ret,
                struct trouble *trouble);

/* The D-Bus value that comes next, as JSON. */
int record_of_message(sd_bus_message *m, json_object **ret);

/* A text from outside, printable: on the heap, and as JSON. NULL where there is no memory. */
char *record_clean(const char *text);
json_object *record_string(const char *text);

/* "", 0 and NULL where it is not there, or of another type. What they return lives as long as the record. */
const char *record_text(json_object *record, const char *name);
uint64_t record_number(json_object *record, const char *name);
double record_real(json_object *record, const char *name);
json_object *record_list(json_object *record, const char *name);
json_object *record_object(json_object *record, const char *name);

/* The path of a stream's socket; "" where there is none. */
const char *record_socket(json_object *record, const char *stream);

/* Prints JSON on stdout, as --json says. */
void record_print_json(const struct ctl *ctl, json_object *object);

static inline void json_putp(json_object **object)
{
    json_object_put(*object);
}

#define _cleanup_json_ _cleanup_(json_putp)
