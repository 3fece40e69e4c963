/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/qmp-parser.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WORD_MAX 64 /* bytes of a number or a word of JSON; longer ones are none that are needed */

struct qmp_parser {
    json_tokener *tokener;
    size_t taken; /* of the message that is not whole yet */
    bool text, escape;
    char word[WORD_MAX]; /* outside of texts, while it is not whole */
    size_t word_size;    /* as it came; its rest is dropped where it is longer than WORD_MAX */
};

/* Not strict within texts: json-c 0.17 and 0.18 take bytes from 0x80 on for control characters then. */
static void set_flags(struct qmp_parser *parser)
{
    json_tokener_set_flags(parser->tokener,
                           JSON_TOKENER_ALLOW_TRAILING_CHARS | (parser->text ? 0 : JSON_TOKENER_STRICT));
}

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
    set_flags(parser);
    return parser;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '+' || c == '-';
}

/* NUL-terminated: a number that is none, as printf(3) writes it. */
static bool is_no_number(const char *word)
{
    static const char *const names[] = {"nan", "inf", "infinity"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(word + (word[0] == '-'), names[i]) == 0)
            return true;
    return false;
}

/* NUL-terminated: a number that neither 64 bits nor a double hold. Versions of json-c differ over those. */
static bool is_out_of_range(const char *word)
{
    bool negative = word[0] == '-';
    char *end;

    if (!isdigit((unsigned char)word[negative]))
        return false;
    errno = 0;
    if (word[strspn(word, "-0123456789")] != '\0')
        return isinf(strtod(word, &end)) && *end == '\0';
    if (negative)
        strtoll(word, &end, 10);
    else
        strtoull(word, &end, 10);
    return errno == ERANGE && *end == '\0';
}

/* Hands bytes of one message to json-c; *n becomes how many it took. */
static enum qmp_verdict parse(struct qmp_parser *parser, const char *data, size_t *n, json_object **ret)
{
    json_object *object = json_tokener_parse_ex(parser->tokener, data, (int)*n);
    enum json_tokener_error error = json_tokener_get_error(parser->tokener);

    if (error == json_tokener_continue)
        return QMP_MORE;
    if (error != json_tokener_success || !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        return QMP_BAD;
    }
    *n = json_tokener_get_parse_end(parser->tokener);
    json_tokener_reset(parser->tokener);
    *ret = object;
    return QMP_MESSAGE;
}

/* The word is whole. A number that cannot be had is null, which reads as one that is missing. */
static enum qmp_verdict parse_word(struct qmp_parser *parser)
{
    size_t n = parser->word_size;
    json_object *none = NULL;

    parser->word_size = 0;
    if (n == 0)
        return QMP_MORE;
    if (n >= WORD_MAX) {
        parser->word[WORD_MAX - 1] = '\0';
        if (parser->word[strspn(parser->word, "-+.eE0123456789")] != '\0')
            return QMP_BAD;
    } else {
        parser->word[n] = '\0';
        if (!is_no_number(parser->word) && !is_out_of_range(parser->word))
            return parse(parser, parser->word, &n, &none);
    }
    n = strlen("null");
    return parse(parser, "null", &n, &none);
}

/* How many bytes there are before the next word outside of texts, or up to where a text begins or ends, which
 * it notes. */
static size_t span(struct qmp_parser *parser, const char *data, size_t size)
{
    size_t n = 0;

    for (; n < size && (parser->text || !is_word(data[n])); n++) {
        if (parser->escape)
            parser->escape = false;
        else if (parser->text && data[n] == '\\')
            parser->escape = true;
        else if (data[n] == '"') {
            parser->text = !parser->text;
            return n + 1;
        } else if (data[n] == '}' && !parser->text)
            return n + 1; /* the message may end here */
    }
    return n;
}

/* The next word, or what there is of it, or the bytes up to it. */
static enum qmp_verdict feed(struct qmp_parser *parser, const char *data, size_t *n, json_object **ret)
{
    enum qmp_verdict verdict;

    if (!parser->text && is_word(data[0])) {
        if (parser->word_size < WORD_MAX)
            parser->word[parser->word_size] = data[0];
        parser->word_size++;
        *n = 1;
        return QMP_MORE;
    }
    verdict = parse_word(parser);
    if (verdict != QMP_MORE)
        return QMP_BAD;
    set_flags(parser);
    *n = span(parser, data, *n);
    return parse(parser, data, n, ret);
}

enum qmp_verdict qmp_parser_feed(struct qmp_parser *parser, const char *data, size_t size, size_t *at,
                                 json_object **ret)
{
    while (*at < size) {
        size_t left = size - *at, room = QMP_MESSAGE_MAX - parser->taken, n = left < room ? left : room;
        enum qmp_verdict verdict;

        /* What is outside of objects is no JSON of QMP's, but for blanks; a number alone would never end. */
        if (parser->taken == 0) {
            if (data[*at] == ' ' || data[*at] == '\t' || data[*at] == '\r' || data[*at] == '\n') {
                ++*at;
                continue;
            }
            if (data[*at] != '{')
                return QMP_BAD;
        }
        verdict = feed(parser, data + *at, &n, ret);
        if (verdict == QMP_BAD)
            return QMP_BAD;
        *at += n;
        parser->taken += n;
        if (verdict == QMP_MESSAGE) {
            parser->taken = 0;
            return QMP_MESSAGE;
        }
        if (parser->taken == QMP_MESSAGE_MAX)
            return QMP_LONG;
    }
    return QMP_MORE;
}

void qmp_parser_free(struct qmp_parser *parser)
{
    if (!parser)
        return;
    json_tokener_free(parser->tokener);
    free(parser);
}
