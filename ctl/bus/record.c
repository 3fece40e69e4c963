/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/record.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"

char *record_clean(const char *text)
{
    size_t size = strlen(text) + 1;
    char *clean = malloc(size);

    if (clean)
        message_text_set(clean, size, text);
    return clean;
}

json_object *record_string(const char *text)
{
    _cleanup_free_ char *clean = record_clean(text);

    return clean ? json_object_new_string(clean) : NULL;
}

static int read_basic(sd_bus_message *m, char type, json_object **ret)
{
    union {
        const char *s;
        int b;
        uint8_t y;
        int16_t n;
        uint16_t q;
        int32_t i;
        uint32_t u;
        int64_t x;
        uint64_t t;
        double d;
    } v;
    int r = sd_bus_message_read_basic(m, type, &v);

    if (r < 0)
        return r;
    switch (type) {
    case 's':
    case 'o':
    case 'g':
        *ret = record_string(v.s);
        break;
    case 'b':
        *ret = json_object_new_boolean(v.b);
        break;
    case 'y':
        *ret = json_object_new_int64(v.y);
        break;
    case 'n':
        *ret = json_object_new_int64(v.n);
        break;
    case 'q':
        *ret = json_object_new_int64(v.q);
        break;
    case 'i':
        *ret = json_object_new_int64(v.i);
        break;
    case 'u':
        *ret = json_object_new_int64(v.u);
        break;
    case 'x':
        *ret = json_object_new_int64(v.x);
        break;
    case 't':
        *ret = json_object_new_uint64(v.t);
        break;
    case 'd':
        *ret = json_object_new_double(isfinite(v.d) ? v.d : -1); /* JSON has no other */
        break;
    default:
        return -ENOTSUP;
    }
    return *ret ? 0 : -ENOMEM;
}

/* An array of dictionary entries becomes an object, any other, and a struct, a list. */
static int read_container(sd_bus_message *m, char type, const char *contents, json_object **ret)
{
    _cleanup_json_ json_object *object =
        contents[0] == '{' ? json_object_new_object() : json_object_new_array();
    int r = sd_bus_message_enter_container(m, type, contents);

    while (r >= 0) {
        _cleanup_json_ json_object *value = NULL;
        _cleanup_free_ char *clean = NULL;
        const char *key;

        r = sd_bus_message_at_end(m, false);
        if (r != 0)
            break;
        if (contents[0] != '{') {
            r = record_of_message(m, &value);
            if (r >= 0)
                json_object_array_add(object, json_object_get(value));
            continue;
        }
        r = sd_bus_message_enter_container(m, 'e', NULL);
        if (r >= 0)
            r = sd_bus_message_read(m, "s", &key);
        if (r >= 0)
            r = record_of_message(m, &value);
        if (r >= 0 && !(clean = record_clean(key)))
            r = -ENOMEM;
        if (r >= 0)
            json_object_object_add(object, clean, json_object_get(value));
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    if (r >= 0)
        r = sd_bus_message_exit_container(m);
    if (r >= 0)
        *ret = json_object_get(object);
    return r;
}

int record_of_message(sd_bus_message *m, json_object **ret)
{
    const char *contents;
    char type;
    int r = sd_bus_message_peek_type(m, &type, &contents);

    if (r <= 0)
        return r < 0 ? r : -ENODATA;
    if (type == 'v') {
        r = sd_bus_message_enter_container(m, 'v', contents);
        if (r >= 0)
            r = record_of_message(m, ret);
        return r < 0 ? r : sd_bus_message_exit_container(m);
    }
    if (type == 'a' || type == 'r')
        return read_container(m, type, contents, ret);
    return read_basic(m, type, ret);
}

/* Channels: each of the tuples becomes an object that says what is what. */
static void name_channels(json_object *record)
{
    static const char *const names[] = {"Stream", "Number", "Sent", "Received", "State"};
    json_object *channels = record_list(record, "Channels"), *channel;

    for (size_t i = 0; channels && i < json_object_array_length(channels); i++) {
        json_object *tuple = json_object_array_get_idx(channels, i);

        if (!json_object_is_type(tuple, json_type_array) || json_object_array_length(tuple) != 5)
            continue;
        channel = json_object_new_object();
        for (size_t k = 0; k < 5; k++)
            json_object_object_add(channel, names[k], json_object_get(json_object_array_get_idx(tuple, k)));
        json_object_array_put_idx(channels, i, channel);
    }
}

/* Progress: 0 to 1, or -1 for all that a broker must not say. */
static void bound_progress(json_object *record)
{
    double progress = record_real(record, "Progress");

    if (json_object_object_get_ex(record, "Progress", NULL) && (progress < 0 || progress > 1))
        json_object_object_add(record, "Progress", json_object_new_double(-1));
}

int record_read(struct side *side, const char *path, const char *interface, json_object **ret,
                struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    _cleanup_json_ json_object *record = NULL;
    char doing[256];
    int r;

    snprintf(doing, sizeof(doing), "Cannot read the properties of %s%s", path, side->where);
    if (side_call(side, path, "org.freedesktop.DBus.Properties", "GetAll", &reply, trouble, doing, "s",
                  interface) < 0)
        return -1;
    r = record_of_message(reply, &record);
    if (r >= 0 && !json_object_is_type(record, json_type_object))
        r = -EBADMSG;
    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "%s: the answer cannot be understood (%s).", doing,
                           strerror(-r));
    name_channels(record);
    bound_progress(record);
    *ret = json_object_get(record);
    return 0;
}

/* The member of this name and type; NULL where there is none. */
static json_object *member(json_object *record, const char *name, json_type type)
{
    json_object *value;

    return json_object_object_get_ex(record, name, &value) && json_object_is_type(value, type) ? value : NULL;
}

const char *record_text(json_object *record, const char *name)
{
    json_object *value = member(record, name, json_type_string);

    return value ? json_object_get_string(value) : "";
}

uint64_t record_number(json_object *record, const char *name)
{
    json_object *value = member(record, name, json_type_int);

    return value ? json_object_get_uint64(value) : 0;
}

double record_real(json_object *record, const char *name)
{
    json_object *value = member(record, name, json_type_double);

    return value ? json_object_get_double(value) : (double)record_number(record, name);
}

json_object *record_list(json_object *record, const char *name)
{
    return member(record, name, json_type_array);
}

json_object *record_object(json_object *record, const char *name)
{
    return member(record, name, json_type_object);
}

const char *record_socket(json_object *record, const char *stream)
{
    return record_text(record_object(record, "Sockets"), stream);
}

void record_print_json(const struct ctl *ctl, json_object *object)
{
    int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
                (ctl->arguments.json == JSON_PRETTY ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
                                                    : JSON_C_TO_STRING_PLAIN);

    puts(json_object_to_json_string_ext(object, flags));
}
