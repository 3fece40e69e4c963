/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp-parser.h"

#include <stdlib.h>

struct qmp_parser {
    json_tokener *tokener;
    size_t taken; /* of the message that is not whole yet */
};

struct qmp_parser *qmp_parser_new(void)
{
    struct qmp_parser *parser = calloc(1, sizeof(*parser));

    if (!parser)
        return NULL;
    parser->tokener = json_tokener_new_ex(QMP_DEPTH_MAX);
    if (!parser->tokener) {
        free(parser);
        return NULL;
    }
    /* Not JSON_TOKENER_VALIDATE_UTF8: it takes a character that comes in two pieces for a bad one. */
    json_tokener_set_flags(parser->tokener, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
    return parser;
}

enum qmp_verdict qmp_parser_feed(struct qmp_parser *parser, const char *data, size_t size, size_t *at,
                                 json_object **ret)
{
    size_t left = size - *at, room = QMP_MESSAGE_MAX - parser->taken;
    size_t n = left < room ? left : room;
    json_object *object;
    enum json_tokener_error error;

    if (left == 0)
        return QMP_MORE;
    /* What is outside of objects is no JSON of QMP's, but for blanks; a number alone would never end. */
    if (parser->taken == 0) {
        while (*at < size &&
               (data[*at] == ' ' || data[*at] == '\t' || data[*at] == '\r' || data[*at] == '\n'))
            ++*at;
        if (*at == size)
            return QMP_MORE;
        if (data[*at] != '{')
            return QMP_BAD;
        left = size - *at;
        n = left < room ? left : room;
    }
    object = json_tokener_parse_ex(parser->tokener, data + *at, (int)n);
    error = json_tokener_get_error(parser->tokener);
    if (error == json_tokener_continue) {
        parser->taken += n;
        *at += n;
        return parser->taken == QMP_MESSAGE_MAX ? QMP_LONG : QMP_MORE;
    }
    if (error != json_tokener_success || !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        return QMP_BAD;
    }
    *at += json_tokener_get_parse_end(parser->tokener);
    parser->taken = 0;
    json_tokener_reset(parser->tokener);
    *ret = object;
    return QMP_MESSAGE;
}

void qmp_parser_free(struct qmp_parser *parser)
{
    if (!parser)
        return;
    json_tokener_free(parser->tokener);
    free(parser);
}
