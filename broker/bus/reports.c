/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/reports.h"

#include <stddef.h>
#include <string.h>

#include "broker/errors.h"
#include "common/message.h"

/* A key is of type "t", "u" or "s"; of a text size says how long it may be. */
struct key {
    const char *name, *type;
    size_t offset, size;
};

#define KEY(name_, type_, of, member)                                                  \
    {                                                                                  \
        name_, type_, offsetof(struct of, member), sizeof(((struct of *)NULL)->member) \
    }

/* The phase is a word on the bus, and a number in the struct. */
static const struct key progress_keys[] = {
    KEY("phase", "s", progress, phase),
    KEY("pass", "u", progress, pass),
    KEY("memory-total", "t", progress, memory_total),
    KEY("memory-remaining", "t", progress, memory_remaining),
    KEY("dirty-rate", "t", progress, dirty_rate),
    KEY("expected-downtime-usec", "t", progress, expected_downtime),
    KEY("disk-total", "t", progress, disk_total),
    KEY("disk-remaining", "t", progress, disk_remaining),
};

static const struct key outcome_keys[] = {
    KEY("downtime-usec", "t", outcome, downtime),
    KEY("total-usec", "t", outcome, total),
    KEY("host", "s", outcome, host),
    KEY("run-state", "s", outcome, run_state),
    KEY("reason", "s", outcome, reason),
};

enum {
    N_PROGRESS = sizeof(progress_keys) / sizeof(progress_keys[0]),
    N_OUTCOME = sizeof(outcome_keys) / sizeof(outcome_keys[0]),
};

static bool is_phase(const struct key *key)
{
    return key == &progress_keys[0];
}

/* ---- Reading ---- */

static int read_text(const struct key *key, const char *text, uint8_t *member, sd_bus_error *error)
{
    uint32_t phase;

    if (!is_phase(key)) {
        /* The end of a long reason is not worth an error. */
        message_text_set((char *)member, key->size, text);
        return 0;
    }
    phase = report_phase_of(text);
    if (phase == REPORT_PHASE_NONE)
        return error_invalid(
            error,
            "The phase is '%.40s'; it can be 'setup', 'disks', 'pre-copy', 'switchover', 'post-copy', "
            "'paused', 'recovering' or 'finishing'.",
            text);
    memcpy(member, &phase, sizeof(phase));
    return 0;
}

static int read_value(sd_bus_message *m, const struct key *key, uint8_t *member, sd_bus_error *error)
{
    union {
        const char *s;
        uint32_t u;
        uint64_t t;
    } value;
    int r = sd_bus_message_enter_container(m, 'v', key->type);

    if (r >= 0)
        r = sd_bus_message_read_basic(m, key->type[0], &value);
    if (r < 0)
        return r;
    if (key->type[0] == 's')
        r = read_text(key, value.s, member, error);
    else
        memcpy(member, &value, key->size);
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

static const struct key *find(const struct key *keys, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static int read_entry(sd_bus_message *m, const struct key *keys, size_t n, unsigned *seen, uint8_t *into,
                      sd_bus_error *error)
{
    const char *name, *type;
    const struct key *key;
    int r = sd_bus_message_read(m, "s", &name);

    if (r < 0)
        return r;
    key = find(keys, n, name);
    if (!key)
        return error_invalid(
            error, "There is no key '%.40s'. Those of this method stand in org.vmferry.Broker1(5).", name);
    if (*seen & (1U << (key - keys)))
        return error_invalid(error, "The key '%s' is given twice.", name);
    *seen |= 1U << (key - keys);
    r = sd_bus_message_peek_type(m, NULL, &type);
    if (r < 0)
        return r;
    if (strcmp(type, key->type) != 0)
        return error_invalid(error, "The key '%s' is of type '%s', but must be of type '%s'.", name, type,
                             key->type);
    return read_value(m, key, into + key->offset, error);
}

static int read_all(sd_bus_message *m, const struct key *keys, size_t n, void *into, sd_bus_error *error)
{
    unsigned seen = 0;
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");

    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = read_entry(m, keys, n, &seen, into, error);
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

int reports_read_progress(sd_bus_message *m, struct progress *ret, sd_bus_error *error)
{
    *ret = (struct progress){0};
    return read_all(m, progress_keys, N_PROGRESS, ret, error);
}

int reports_read_outcome(sd_bus_message *m, struct outcome *ret, sd_bus_error *error)
{
    const char *text;
    int r = sd_bus_message_read(m, "s", &text);

    *ret = (struct outcome){0};
    if (r < 0)
        return r;
    ret->outcome = vf_outcome_from_string(text);
    if (ret->outcome == VF_OUTCOME_NONE)
        return error_invalid(
            error, "The outcome is '%.40s'; it can be 'moved', 'not-moved', 'lost' or 'unknown'.", text);
    return read_all(m, outcome_keys, N_OUTCOME, ret, error);
}

/* ---- Appending ---- */

static int append_key(sd_bus_message *m, const struct key *key, const uint8_t *member)
{
    uint32_t small;
    uint64_t large;

    switch (key->type[0]) {
    case 'u':
        memcpy(&small, member, sizeof(small));
        return small > 0 ? sd_bus_message_append(m, "{sv}", key->name, "u", small) : 0;
    case 't':
        memcpy(&large, member, sizeof(large));
        return large > 0 ? sd_bus_message_append(m, "{sv}", key->name, "t", large) : 0;
    default:
        return member[0] != '\0' ? sd_bus_message_append(m, "{sv}", key->name, "s", (const char *)member) : 0;
    }
}

int reports_append_details(sd_bus_message *m, const struct report *report)
{
    int r = sd_bus_message_open_container(m, 'a', "{sv}");

    for (size_t i = 1; r >= 0 && i < N_PROGRESS; i++) /* the phase is a property of its own */
        r = append_key(m, &progress_keys[i], (const uint8_t *)&report->progress + progress_keys[i].offset);
    if (r >= 0 && report->rate > 0)
        r = sd_bus_message_append(m, "{sv}", "rate", "t", report->rate);
    for (size_t i = 0; r >= 0 && i < N_OUTCOME; i++)
        r = append_key(m, &outcome_keys[i], (const uint8_t *)&report->outcome + outcome_keys[i].offset);
    if (r >= 0 && report->by != REPORT_BY_NOBODY)
        r = sd_bus_message_append(m, "{sv}", "told-by", "s", report_by_text(report->by));
    return r < 0 ? r : sd_bus_message_close_container(m);
}
