/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Reads XML as libvirt writes it, tag by tag: well-formed, without a DTD, attributes in quotes. Pure:
 * anything else ends the reading, and nothing of it is taken for more than it is.
 */

#include <stdbool.h>
#include <stddef.h>

#define XML_DEPTH_MAX 12
#define XML_PATH_MAX  256

struct xml {
    const char *text, *end; /* what is left */
    const char *tag;        /* where the tag begins: at its '<' */
    const char *attributes; /* of this tag; not terminated */
    size_t attributes_size;
    char path[XML_PATH_MAX]; /* "domain/devices/disk": with this tag's own name */
    bool opens, closes;      /* <a> opens, </a> closes, <a/> does both */
    bool leave;              /* the last one has closed: it goes from the path with the next tag */
    unsigned depth;
};

void xml_begin(struct xml *xml, const char *text);

/* The next tag; false at the end, and where it is no such XML. */
bool xml_next(struct xml *xml);

/* Whether the tag is at this path. */
bool xml_at(const struct xml *xml, const char *path);

/* An attribute of the tag, its entities resolved; "" where there is none or it does not fit: false. */
bool xml_attribute(const struct xml *xml, const char *name, char *ret, size_t size);

/* The text that follows the tag, up to the next one; the same. */
bool xml_text(const struct xml *xml, char *ret, size_t size);
