/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/bus/record.h"
#include "ctl/bus/standing.h"
#include "ctl/spelling.h"
#include "ctl/terminal/pager.h"
#include "ctl/units.h"

/* ---- show ---- */

/* A value as one word or more: lists and objects go flat. */
static void print_flat(json_object *value)
{
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            fputs(i > 0 ? " " : "", stdout);
            print_flat(json_object_array_get_idx(value, i));
        }
    } else if (json_object_is_type(value, json_type_object)) {
        const char *between = "";

        json_object_object_foreach(value, name, inner)
        {
            printf("%s%s=", between, name);
            print_flat(inner);
            between = ",";
        }
    } else if (value) {
        fputs(json_object_get_string(value), stdout);
    }
}

static int check_properties(const struct ctl *ctl, json_object *record, struct trouble *trouble)
{
    const struct text_list *wanted = &ctl->arguments.properties;

    for (unsigned i = 0; i < wanted->n; i++) {
        unsigned least = SPELLING_FAR + 1;
        const char *near = NULL;

        if (json_object_object_get_ex(record, wanted->texts[i], NULL))
            continue;
        json_object_object_foreach(record, name, value)
        {
            unsigned distance = spelling_distance(wanted->texts[i], strlen(wanted->texts[i]), name);

            (void)value;
            if (distance < least) {
                least = distance;
                near = name;
            }
        }
        return trouble_set(trouble, STATUS_USAGE,
                           "There is no property '%s'.%s%s%s 'vmferryctl show' without -p shows "
                           "those that there are.",
                           wanted->texts[i], near ? " Did you mean '" : "", near ? near : "",
                           near ? "'?" : "");
    }
    return 0;
}

/* What -p names of a record, as an object; the record itself without -p. The caller's. */
static json_object *pick(const struct ctl *ctl, json_object *record)
{
    const struct text_list *wanted = &ctl->arguments.properties;
    json_object *picked, *value;

    if (wanted->n == 0)
        return json_object_get(record);
    picked = json_object_new_object();
    for (unsigned i = 0; i < wanted->n; i++) {
        json_object_object_get_ex(record, wanted->texts[i], &value);
        json_object_object_add(picked, wanted->texts[i], json_object_get(value));
    }
    return picked;
}

static int show_record(const struct ctl *ctl, json_object *record, struct trouble *trouble)
{
    const struct text_list *wanted = &ctl->arguments.properties;
    json_object *value;

    if (check_properties(ctl, record, trouble) < 0)
        return -1;
    for (unsigned i = 0; i < wanted->n; i++) {
        json_object_object_get_ex(record, wanted->texts[i], &value);
        if (!ctl->arguments.value)
            printf("%s=", wanted->texts[i]);
        print_flat(value);
        putchar('\n');
    }
    if (wanted->n > 0)
        return 0;
    json_object_object_foreach(record, name, each)
    {
        if (!ctl->arguments.value)
            printf("%s=", name);
        print_flat(each);
        putchar('\n');
    }
    return 0;
}

/* ---- status ---- */

static void line(const char *name, const char *value)
{
    if (value[0])
        printf("%12s: %s\n", name, value);
}

static void line_size(const char *name, uint64_t bytes, const char *unit)
{
    char text[UNITS_TEXT_MAX];

    format_size(bytes, text);
    printf("%12s: %s%s\n", name, text, unit);
}

static void line_moment(const char *name, uint64_t usec)
{
    char text[UNITS_TEXT_MAX];

    format_moment(usec, text);
    if (usec > 0)
        line(name, text);
}

static void status_channels(json_object *record)
{
    json_object *channels = record_list(record, "Channels");
    char sent[UNITS_TEXT_MAX], received[UNITS_TEXT_MAX];

    for (size_t i = 0; channels && i < json_object_array_length(channels); i++) {
        json_object *channel = json_object_array_get_idx(channels, i);

        format_size(record_number(channel, "Sent"), sent);
        format_size(record_number(channel, "Received"), received);
        printf("%12s: %s %" PRIu64 " %s, sent %s, received %s\n", i == 0 ? "Channels" : "",
               record_text(channel, "Stream"), record_number(channel, "Number"),
               record_text(channel, "State"), sent, received);
    }
}

/* The line that the driver shows, too, without the VM; or what became of it. */
static void status_standing(json_object *record)
{
    json_object *details = record_object(record, "Details");
    const char *reason = record_text(details, "reason"), *by = record_text(details, "told-by");
    bool finished = standing_is_finished(record);
    char text[PROGRESS_LINE_MAX + 32], progress_line[PROGRESS_LINE_MAX];
    struct progress progress;

    snprintf(text, sizeof(text), "%s%s%s", record_text(record, "State"), finished ? ": " : "",
             standing_outcome(record));
    line("State", text);
    if (record_text(record, "Outcome")[0] != '\0') {
        snprintf(text, sizeof(text), "%s, told by the %s%s%s", record_text(record, "Outcome"),
                 strcmp(by, "peer") == 0 ? "source's owner" : "owner", reason[0] ? ": " : "", reason);
        line("Outcome", text);
        snprintf(text, sizeof(text), "%s%s%s", record_text(details, "host"),
                 record_text(details, "run-state")[0] ? " " : "", record_text(details, "run-state"));
        line("Where", text + strspn(text, " "));
    }
    if (record_number(details, "downtime-usec") > 0) {
        format_time(record_number(details, "downtime-usec"), text);
        line("Stood still", text);
    }
    line("Error", record_text(record, "ErrorMessage"));
    standing_progress(record, &progress);
    progress.vm = "";
    if (!finished) {
        progress_format(&progress, 0, false, progress_line);
        line("Progress", progress_line);
    }
    if (!finished && record_number(record, "RemainingUsec") > 0) {
        format_time(record_number(record, "RemainingUsec"), text);
        line("Left", text);
    }
}

static void status_record(json_object *record)
{
    json_object *sockets = record_object(record, "Sockets");
    char text[UNITS_TEXT_MAX + 8];

    printf("%s %s %s\n", record_text(record, "Vm"), record_text(record, "Role"), record_text(record, "Id"));
    status_standing(record);
    line_moment("Started", record_number(record, "StartedUsec"));
    line_moment("Finished", record_number(record, "FinishedUsec"));
    snprintf(text, sizeof(text), "%" PRIu64, record_number(record, "OwnerUid"));
    line("Owner", text);
    line("Security", record_text(record, "Security"));
    line("Peer", record_text(record, "Peer"));
    line("Helper", record_text(record, "HelperUnit"));
    if (sockets) {
        json_object_object_foreach(sockets, stream, path)
        {
            printf("%12s: %s ", "Socket", stream);
            print_flat(path);
            putchar('\n');
        }
    }
    line_size("Sent", record_number(record, "BytesSent"), "");
    line_size("Received", record_number(record, "BytesReceived"), "");
    line_size("Rate", record_number(record, "Rate"), "/s");
    if (record_number(record, "BandwidthLimit") > 0)
        line_size("Limit", record_number(record, "BandwidthLimit"), "/s");
    else
        line("Limit", "none");
    status_channels(record);
    if (record_number(record, "RoundTripUsec") > 0) {
        format_time(record_number(record, "RoundTripUsec"), text);
        line("Round trip", text);
    }
    snprintf(text, sizeof(text), "%" PRIu64, record_number(record, "Reconnects"));
    line("Reconnects", text);
}

static void status_broker(json_object *record, const struct side *side)
{
    static const char *const lists[] = {"Features", "Endpoints"};

    printf("vmferryd %s%s\n", record_text(record, "Version"), side->where);
    for (unsigned i = 0; i < 2; i++) {
        json_object *list;

        if (!json_object_object_get_ex(record, lists[i], &list))
            continue;
        printf("%12s: ", lists[i]);
        print_flat(list);
        putchar('\n');
    }
    printf("%12s: %" PRIu64 " running, of %" PRIu64 " at most\n", "Migrations",
           record_number(record, "ActiveMigrations"), record_number(record, "MaxMigrations"));
}

/* ---- Both ---- */

static int print_record(struct ctl *ctl, json_object *record, const struct side *side, bool broker,
                        struct trouble *trouble)
{
    if (ctl->arguments.verb == VERB_SHOW)
        return show_record(ctl, record, trouble);
    if (broker)
        status_broker(record, side);
    else
        status_record(record);
    return 0;
}

/* The records of all that the operands name; of the broker, where there is none. */
static int collect(struct ctl *ctl, struct side *side, json_object *list, struct trouble *trouble)
{
    json_object *record;

    if (ctl->arguments.n_operands == 0) {
        if (record_read(side, BROKER_PATH, BROKER_NAME, &record, trouble) < 0)
            return -1;
        json_object_array_add(list, record);
        return 0;
    }
    for (int i = 0; i < ctl->arguments.n_operands; i++) {
        _cleanup_free_ struct found *found = NULL;
        size_t n = 0;

        if (find_named(side, ctl->arguments.operands[i], &found, &n, trouble) < 0)
            return -1;
        for (size_t k = 0; k < n; k++) {
            if (record_read(side, found[k].path, MIGRATION_INTERFACE, &record, trouble) < 0)
                return -1;
            json_object_array_add(list, record);
        }
    }
    return 0;
}

int verb_show(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_json_ json_object *list = json_object_new_array();
    bool broker = ctl->arguments.n_operands == 0;
    int r = 0;

    if (side_open(ctl, &side, trouble) < 0 || collect(ctl, &side, list, trouble) < 0)
        return -1;
    if (ctl->arguments.json != JSON_OFF) {
        _cleanup_json_ json_object *picked = json_object_new_array();

        for (size_t i = 0; i < json_object_array_length(list); i++) {
            if (check_properties(ctl, json_object_array_get_idx(list, i), trouble) < 0)
                return -1;
            json_object_array_add(picked, pick(ctl, json_object_array_get_idx(list, i)));
        }
        /* One is an object, so that scripts need not unpack it; more are a list. */
        record_print_json(ctl, json_object_array_length(picked) == 1 ? json_object_array_get_idx(picked, 0)
                                                                     : picked);
        return STATUS_DONE;
    }
    pager_open(ctl);
    for (size_t i = 0; r >= 0 && i < json_object_array_length(list); i++) {
        if (i > 0)
            putchar('\n');
        r = print_record(ctl, json_object_array_get_idx(list, i), &side, broker, trouble);
    }
    pager_close();
    return r < 0 ? -1 : STATUS_DONE;
}

int verb_status(struct ctl *ctl, struct trouble *trouble)
{
    return verb_show(ctl, trouble);
}
