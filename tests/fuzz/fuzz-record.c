/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a broker, which may be hostile, tells of itself and of a migration: as JSON, which reads back as the
 * same, and as metrics, each line of which is one of OpenMetrics.
 */

#include <ctype.h>
#include <stdio.h>

#include "common/message.h"
#include "ctl/bus/record.h"
#include "ctl/verbs/metrics.h"
#include "fuzz-bus.h"

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

static const char *const keys[] = {
    "Id",
    "Role",
    "Vm",
    "Security",
    "State",
    "Phase",
    "Result",
    "Outcome",
    "BytesSent",
    "BytesReceived",
    "Rate",
    "BandwidthLimit",
    "RoundTripUsec",
    "Reconnects",
    "RemainingUsec",
    "Progress",
    "StartedUsec",
    "FinishedUsec",
    "Version",
    "ActiveMigrations",
    "MaxMigrations",
    "Channels",
    "Sockets",
    "Totals",
};

static void check_json(json_object *record)
{
    const char *text = json_object_to_json_string_ext(record, JSON_C_TO_STRING_PLAIN);
    enum json_tokener_error error;
    json_object *again = json_tokener_parse_verbose(text, &error);

    MUST(text && again && error == json_tokener_success);
    MUST(strcmp(json_object_to_json_string_ext(again, JSON_C_TO_STRING_PLAIN), text) == 0);
    json_object_put(again);
}

/* {name="value",…}, where a value holds no quote that is not escaped; returns what is behind it. */
static const char *skip_labels(const char *at)
{
    if (*at != '{')
        return at;
    do {
        at++;
        MUST(islower((unsigned char)*at));
        at += strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        MUST(at[0] == '=' && at[1] == '"');
        for (at += 2; *at != '"'; at++) {
            MUST(*at != '\0');
            if (*at == '\\') {
                at++;
                MUST(*at == '\\' || *at == '"' || *at == 'n');
            }
        }
        at++;
    } while (*at == ',');
    MUST(*at == '}');
    return at + 1;
}

static void check_line(const char *line)
{
    char *end;

    MUST(message_text_ok(line, strlen(line) + 1));
    if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0 ||
        strncmp(line, "# UNIT ", 7) == 0 || strcmp(line, "# EOF") == 0)
        return;
    MUST(strncmp(line, "vmferry_", 8) == 0);
    line = skip_labels(line + strspn(line, "abcdefghijklmnopqrstuvwxyz_"));
    MUST(line[0] == ' ');
    MUST(line[1] == '-' || isdigit((unsigned char)line[1])); /* no NaN, no infinity */
    strtod(line + 1, &end);
    MUST(end > line + 1 && *end == '\0');
}

static void check_metrics(json_object *record, bool openmetrics)
{
    json_object *list = json_object_new_array();
    char *text = NULL, *line, *rest = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    MUST(file && list);
    json_object_array_add(list, json_object_get(record));
    metrics_print(file, openmetrics, record, list);
    MUST(fclose(file) == 0 && strlen(text) == size && size > 0 && text[size - 1] == '\n');
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        check_line(line);
    free(text);
    json_object_put(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    sd_bus_message *m = fuzz_message();
    json_object *record = NULL;

    append_dictionary(m, &input, keys, N_KEYS);
    MUST(sd_bus_message_seal(m, 1, 0) >= 0);
    MUST(record_of_message(m, &record) >= 0 && json_object_is_type(record, json_type_object));
    check_json(record);
    check_metrics(record, false);
    check_metrics(record, true);
    json_object_put(record);
    sd_bus_message_unref(m);
    return 0;
}
