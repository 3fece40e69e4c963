/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Bytes of a QMP connection in, JSON objects out. Pure, and bounded: what comes from QEMU is not trusted. A
 * number that QEMU prints and JSON does not know (nan, inf), or that no type of C holds, is null.
 */

#include <json-c/json.h>
#include <stddef.h>

#define QMP_MESSAGE_MAX ((size_t)256 * 1024) /* bytes of one message */
#define QMP_DEPTH_MAX   32                   /* objects in objects */

enum qmp_verdict {
    QMP_MORE,    /* all bytes are taken; no message is whole */
    QMP_MESSAGE, /* one is; there may be more in the rest */
    QMP_BAD,     /* that is no JSON object; nothing more can be read */
    QMP_LONG,    /* it is longer than QMP_MESSAGE_MAX */
};

struct qmp_parser;

struct qmp_parser *qmp_parser_new(void);

/* Takes bytes from data[*at…size) and advances *at. With QMP_MESSAGE *ret is the caller's. */
enum qmp_verdict qmp_parser_feed(struct qmp_parser *parser, const char *data, size_t size, size_t *at,
                                 json_object **ret);

void qmp_parser_free(struct qmp_parser *parser);
