/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/record.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "broker/migration/report.h"
#include "common/error.h"

enum { HEADER_SIZE = 16, FIELD_HEAD = 4, CHANNEL_SIZE = 28 };

static const uint8_t magic[8] = {'v', 'm', 'f', 's', 't', 'a', 't', 'e'};

enum kind {
    NUMBER, /* of the member's width */
    TEXT,   /* without its NUL */
    CHANNEL,
};

/* Each is there at most once; one with a count up to so many times, in order. */
struct field {
    uint16_t tag;
    enum kind kind;
    size_t offset;
    size_t size; /* of the member, or of one of them */
    size_t max;
    size_t count; /* offset of the u32 that counts them; 0: there is one */
};

#define SIZE_OF(member) sizeof(((struct record *)NULL)->member)
#define ONE(tag_, kind_, member)                                            \
    {                                                                       \
        tag_, kind_, offsetof(struct record, member), SIZE_OF(member), 1, 0 \
    }
#define MANY(tag_, kind_, member)                                                     \
    {                                                                                 \
        tag_, kind_, offsetof(struct record, member), SIZE_OF(member[0]),             \
            SIZE_OF(member) / SIZE_OF(member[0]), offsetof(struct record, n_##member) \
    }

/* The numbers are for ever. */
static const struct field fields[] = {
    ONE(1, NUMBER, id),
    ONE(2, NUMBER, role),
    ONE(3, NUMBER, security),
    ONE(4, NUMBER, state),
    ONE(5, NUMBER, result),
    ONE(6, NUMBER, error),
    ONE(7, NUMBER, uid),
    ONE(8, NUMBER, owner_uid),
    ONE(9, NUMBER, owner_gid),
    ONE(10, NUMBER, owner_group),
    ONE(11, NUMBER, expects_peers),
    ONE(12, NUMBER, farewell),
    ONE(13, NUMBER, ending),
    ONE(14, NUMBER, started),
    ONE(15, NUMBER, finished),
    ONE(16, NUMBER, deadline),
    ONE(17, NUMBER, expire),
    ONE(18, NUMBER, resume_timeout),
    ONE(19, NUMBER, bandwidth_limit),
    ONE(20, NUMBER, expected_bytes),
    ONE(21, TEXT, vm),
    ONE(22, TEXT, message),
    ONE(23, TEXT, peer),
    ONE(24, TEXT, ending_text),
    ONE(25, TEXT, directory),
    ONE(26, TEXT, client_id),
    ONE(27, TEXT, tied_to),
    ONE(28, TEXT, unit),
    ONE(29, TEXT, ticket),
    MANY(30, TEXT, streams),
    MANY(31, TEXT, paths),
    MANY(32, TEXT, endpoints),
    ONE(33, NUMBER, sent),
    ONE(34, NUMBER, received),
    ONE(35, NUMBER, round_trip),
    ONE(36, NUMBER, reconnects),
    MANY(37, CHANNEL, channels),
    ONE(38, NUMBER, own_paths),
    ONE(39, TEXT, ticket_digest),
    ONE(40, TEXT, layout),
    ONE(41, NUMBER, phase),
    ONE(42, NUMBER, pass),
    ONE(43, NUMBER, memory_total),
    ONE(44, NUMBER, memory_remaining),
    ONE(45, NUMBER, dirty_rate),
    ONE(46, NUMBER, expected_downtime),
    ONE(47, NUMBER, fraction),
    ONE(48, NUMBER, rate),
    ONE(49, NUMBER, remaining),
    ONE(50, NUMBER, outcome),
    ONE(51, NUMBER, told_by),
    ONE(52, NUMBER, downtime),
    ONE(53, NUMBER, total),
    ONE(54, TEXT, host),
    ONE(55, TEXT, run_state),
    ONE(56, TEXT, reason),
    ONE(57, NUMBER, added),
    ONE(58, NUMBER, interrupted),
    ONE(59, NUMBER, interrupted_since),
    ONE(60, NUMBER, gives_up),
    ONE(61, NUMBER, disk_total),
    ONE(62, NUMBER, disk_remaining),
};

enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]) };

static void put(uint8_t *p, uint64_t v, size_t size)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, size_t size)
{
    uint64_t v = 0;

    for (size_t i = size; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* ---- struct → bytes ---- */

static uint64_t number_of(const uint8_t *member, size_t size)
{
    uint32_t small;
    uint64_t large;

    if (size == sizeof(small)) {
        memcpy(&small, member, sizeof(small));
        return small;
    }
    memcpy(&large, member, sizeof(large));
    return large;
}

static size_t encode_value(const struct field *field, const uint8_t *member, uint8_t *p)
{
    struct stats_channel channel;
    size_t n;

    switch (field->kind) {
    case NUMBER:
        put(p, number_of(member, field->size), field->size);
        return field->size;
    case TEXT:
        n = strnlen((const char *)member, field->size - 1);
        memcpy(p, member, n);
        return n;
    default:
        memcpy(&channel, member, sizeof(channel));
        put(p, channel.number, 4);
        put(p + 4, channel.stream, 4);
        put(p + 8, channel.state, 4);
        put(p + 12, channel.sent, 8);
        put(p + 20, channel.received, 8);
        return CHANNEL_SIZE;
    }
}

static uint32_t count_of(const struct field *field, const struct record *record)
{
    uint32_t n = 1;

    if (field->count > 0)
        memcpy(&n, (const uint8_t *)record + field->count, sizeof(n));
    return n <= field->max ? n : (uint32_t)field->max;
}

size_t record_encode(const struct record *record, uint8_t ret[static RECORD_SIZE_MAX])
{
    size_t n = HEADER_SIZE;

    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct field *field = &fields[i];

        for (uint32_t j = 0; j < count_of(field, record); j++) {
            const uint8_t *member = (const uint8_t *)record + field->offset + j * field->size;
            size_t size = encode_value(field, member, ret + n + FIELD_HEAD);

            if (size == 0 && field->count == 0)
                continue; /* empty is what is missing */
            put(ret + n, field->tag, 2);
            put(ret + n + 2, size, 2);
            n += FIELD_HEAD + size;
        }
    }
    memcpy(ret, magic, sizeof(magic));
    put(ret + 8, RECORD_VERSION, 2);
    put(ret + 10, RECORD_VERSION, 2); /* the lowest version that can read it */
    put(ret + 12, n, 4);
    return n;
}

/* ---- bytes → struct ---- */

static const char *decode_value(const struct field *field, const uint8_t *p, size_t size, uint8_t *member)
{
    struct stats_channel channel;
    uint32_t small;
    uint64_t large;

    switch (field->kind) {
    case NUMBER:
        if (size != field->size)
            return "a number has another width";
        large = get(p, size);
        small = (uint32_t)large;
        memcpy(member, size == sizeof(small) ? (const void *)&small : (const void *)&large, size);
        return NULL;
    case TEXT:
        if (size >= field->size)
            return "a text is too long";
        if (memchr(p, 0, size))
            return "a text has a NUL in it";
        memcpy(member, p, size); /* the rest is zero */
        return message_text_ok((const char *)member, field->size) ? NULL : "a text cannot be printed";
    default:
        if (size != CHANNEL_SIZE || get(p + 4, 4) > UINT16_MAX || get(p + 8, 4) > STATS_CHANNEL_LOST)
            return "a channel is invalid";
        channel = (struct stats_channel){
            .number = (uint32_t)get(p, 4),
            .stream = (uint16_t)get(p + 4, 4),
            .state = (uint16_t)get(p + 8, 4),
            .sent = get(p + 12, 8),
            .received = get(p + 20, 8),
        };
        memcpy(member, &channel, sizeof(channel));
        return NULL;
    }
}

static const struct field *field_find(uint64_t tag)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].tag == tag)
            return &fields[i];
    return NULL;
}

static const char *decode_fields(const uint8_t *p, size_t left, struct record *ret)
{
    uint32_t seen[N_FIELDS] = {0};

    while (left > 0) {
        const struct field *field;
        const char *why;
        size_t size;
        uint32_t *n;

        if (left < FIELD_HEAD || left - FIELD_HEAD < get(p + 2, 2))
            return "it is cut off";
        field = field_find(get(p, 2));
        size = (size_t)get(p + 2, 2);
        p += FIELD_HEAD;
        left -= FIELD_HEAD;
        if (field) {
            n = &seen[field - fields];
            if (*n == field->max)
                return "a field is there too often";
            why = decode_value(field, p, size, (uint8_t *)ret + field->offset + *n * field->size);
            if (why)
                return why;
            ++*n;
            if (field->count > 0)
                memcpy((uint8_t *)ret + field->count, n, sizeof(*n));
        }
        p += size;
        left -= size;
    }
    return NULL;
}

static bool is_bool(uint32_t v)
{
    return v <= 1;
}

/* Whether there can be such a migration. */
static const char *check(const struct record *record)
{
    bool finished = record->state == STATE_FINISHED;

    if (record->id == 0 || record->role > ROLE_OUTGOING || record->security > SECURITY_PLAIN)
        return "its identity is invalid";
    if (record->state >= STATE_MAX_ || record->error >= VF_ERROR_MAX_ || record->ending >= VF_ERROR_MAX_)
        return "its state is invalid";
    if (record->result != (finished ? (uint32_t)vf_error_to_result(record->error) : VF_RESULT_NONE))
        return "its result is not that of its state";
    if (!is_bool(record->owner_group) || !is_bool(record->expects_peers) || !is_bool(record->farewell) ||
        !is_bool(record->added))
        return "a boolean is out of range";
    if (record->vm[0] == '\0')
        return "it has no VM";
    if (!report_phase_text(record->phase) || !vf_outcome_to_string(record->outcome) ||
        !report_by_text(record->told_by) ||
        (record->outcome == VF_OUTCOME_NONE) != (record->told_by == REPORT_BY_NOBODY))
        return "its outcome is invalid";
    if (record->n_streams == 0 || record->n_paths != record->n_streams)
        return "its streams have no paths";
    for (uint32_t i = 0; i < record->n_streams; i++) {
        if (!stream_name_ok(record->streams[i]))
            return "a stream's name is invalid";
        if (record->paths[i][0] != '/' && record->paths[i][0] != '\0')
            return "a path is not absolute";
    }
    if (record->directory[0] != '/' && record->directory[0] != '\0')
        return "a path is not absolute";
    return NULL;
}

enum record_verdict record_decode(const uint8_t *data, size_t size, struct record *ret, const char **ret_why)
{
    memset(ret, 0, sizeof(*ret));
    *ret_why = "it is no record of a migration";
    if (size < HEADER_SIZE || memcmp(data, magic, sizeof(magic)) != 0)
        return RECORD_BAD;
    *ret_why = "it is of a newer version";
    if (get(data + 10, 2) > RECORD_VERSION)
        return RECORD_TOO_NEW;
    *ret_why = "its length is another";
    if (get(data + 12, 4) != size || size > RECORD_SIZE_MAX)
        return RECORD_BAD;
    *ret_why = decode_fields(data + HEADER_SIZE, size - HEADER_SIZE, ret);
    if (!*ret_why)
        *ret_why = check(ret);
    return *ret_why ? RECORD_BAD : RECORD_OK;
}

void record_draft_freep(struct record_draft **draft)
{
    if (*draft)
        explicit_bzero(*draft, sizeof(**draft));
    free(*draft);
}
