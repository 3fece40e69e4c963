/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What comes from QEMU's monitor. The first byte says where the rest is split: in two pieces it must give the
 * same messages, and the same verdict, as in one.
 */

#include "ctl/qemu/qmp-parser.h"
#include "fuzz.h"

/* A number that the messages so far amount to. */
struct seen {
    size_t n;
    uint64_t sum;
    enum qmp_verdict verdict;
};

static void feed(struct qmp_parser *parser, const uint8_t *data, size_t size, struct seen *seen)
{
    uint8_t *copy = fuzz_copy(data, size);
    size_t at = 0;

    while (seen->verdict == QMP_MORE || seen->verdict == QMP_MESSAGE) {
        json_object *message = NULL;

        seen->verdict = qmp_parser_feed(parser, (const char *)copy, size, &at, &message);
        MUST(at <= size);
        if (seen->verdict != QMP_MESSAGE)
            break;
        MUST(json_object_is_type(message, json_type_object));
        seen->n++;
        for (const char *c = json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN); *c; c++)
            seen->sum = seen->sum * 31 + (uint8_t)*c;
        json_object_put(message);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole = {.verdict = QMP_MORE}, split = {.verdict = QMP_MORE};
    struct qmp_parser *one = qmp_parser_new(), *two = qmp_parser_new();
    size_t at = size > 1 ? data[0] % (size - 1) : 0;

    MUST(one && two);
    if (size > 0) {
        feed(one, data + 1, size - 1, &whole);
        feed(two, data + 1, at, &split);
        feed(two, data + 1 + at, size - 1 - at, &split);
        MUST(whole.n == split.n && whole.sum == split.sum && whole.verdict == split.verdict);
    }
    qmp_parser_free(one);
    qmp_parser_free(two);
    return 0;
}
