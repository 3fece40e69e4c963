/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/bus/record.h"
#include "ctl/bus/standing.h"

/* Where the text goes, and in which of the two formats: they differ in their heads alone. */
struct text {
    FILE *file;
    bool openmetrics;
};

/* One figure per migration. */
struct metric {
    const char *name, *type, *unit, *help, *property;
    double scale; /* 0: the property is a whole number, and stays it */
};

static const struct metric metrics[] = {
    {"vmferry_migration_sent_bytes", "counter", "bytes", "Bytes taken from the local QEMU.", "BytesSent", 0},
    {"vmferry_migration_received_bytes", "counter", "bytes", "Bytes delivered to the local QEMU.",
     "BytesReceived", 0},
    {"vmferry_migration_rate_bytes", "gauge", "bytes", "Bytes per second, both directions.", "Rate", 0},
    {"vmferry_migration_limit_bytes", "gauge", "bytes", "Bytes per second that may be taken, 0: no limit.",
     "BandwidthLimit", 0},
    {"vmferry_migration_round_trip_seconds", "gauge", "seconds", "Of the last ping between the helpers.",
     "RoundTripUsec", 1e-6},
    {"vmferry_migration_reconnects", "counter", NULL, "How often the helpers have connected again.",
     "Reconnects", 0},
    {"vmferry_migration_remaining_seconds", "gauge", "seconds", "As the owner reports; 0: not known.",
     "RemainingUsec", 1e-6},
    {"vmferry_migration_progress_ratio", "gauge", "ratio", "0 to 1; -1: not known.", "Progress", 1},
    {"vmferry_migration_started_seconds", "gauge", "seconds", "When it was made, since 1970.", "StartedUsec",
     1e-6},
    {"vmferry_migration_finished_seconds", "gauge", "seconds", "When it ended, since 1970; 0: not yet.",
     "FinishedUsec", 1e-6},
};

/* As both formats want a label's value escaped. */
static void print_label(FILE *file, const char *name, const char *value, bool last)
{
    fprintf(file, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            fputc('\\', file);
        fputc(*value == '\n' ? 'n' : *value, file);
    }
    fputs(last ? "\"" : "\",", file);
}

static void print_labels(FILE *file, json_object *record)
{
    fputc('{', file);
    print_label(file, "id", record_text(record, "Id"), false);
    print_label(file, "role", record_text(record, "Role"), false);
    print_label(file, "vm", record_text(record, "Vm"), true);
    fputs("} ", file);
}

/* Samples of a counter end in _total, those of an info in _info. OpenMetrics leaves that out of the head. */
static void print_head(const struct text *text, const char *name, const char *type, const char *unit,
                       const char *help)
{
    const bool info = strcmp(type, "info") == 0;
    const char *suffix = text->openmetrics              ? ""
                         : info                         ? "_info"
                         : strcmp(type, "counter") == 0 ? "_total"
                                                        : "";

    fprintf(text->file, "# HELP %s%s %s\n", name, suffix, help);
    fprintf(text->file, "# TYPE %s%s %s\n", name, suffix, info && !text->openmetrics ? "gauge" : type);
    if (unit && text->openmetrics)
        fprintf(text->file, "# UNIT %s %s\n", name, unit);
}

static void print_metric(const struct text *text, const struct metric *metric, json_object *list)
{
    FILE *file = text->file;

    print_head(text, metric->name, metric->type, metric->unit, metric->help);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *record = json_object_array_get_idx(list, i);

        fprintf(file, "%s%s", metric->name, strcmp(metric->type, "counter") == 0 ? "_total" : "");
        print_labels(file, record);
        if (metric->scale > 0)
            fprintf(file, "%.6f\n", record_real(record, metric->property) * metric->scale);
        else
            fprintf(file, "%" PRIu64 "\n", record_number(record, metric->property));
    }
}

/* What each is doing: its state, or what it has come to. */
static void print_states(const struct text *text, json_object *list)
{
    FILE *file = text->file;

    print_head(text, "vmferry_migration_state", "info", NULL,
               "The migration's state, what the tunnel proves and what became of the VM.");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *record = json_object_array_get_idx(list, i);

        fputs("vmferry_migration_state_info{", file);
        print_label(file, "id", record_text(record, "Id"), false);
        print_label(file, "role", record_text(record, "Role"), false);
        print_label(file, "vm", record_text(record, "Vm"), false);
        print_label(file, "security", record_text(record, "Security"), false);
        print_label(file, "state", record_text(record, "State"), false);
        print_label(file, "phase", record_text(record, "Phase"), false);
        print_label(file, "result",
                    strcmp(record_text(record, "Result"), "done") == 0 ? "carried"
                                                                       : record_text(record, "Result"),
                    false);
        print_label(file, "outcome", record_text(record, "Outcome"), true);
        fputs("} 1\n", file);
    }
}

/* How many of those that are not forgotten have come to what. */
static void print_outcomes(const struct text *text, json_object *list)
{
    static const char *const outcomes[] = {"moved",   "not-moved", "lost",      "unknown",
                                           "carried", "failed",    "cancelled", "timed-out"};

    print_head(text, "vmferry_migrations_finished", "gauge", NULL,
               "Finished migrations that are not forgotten, by outcome.");
    for (size_t k = 0; k < sizeof(outcomes) / sizeof(outcomes[0]); k++) {
        unsigned n = 0;

        for (size_t i = 0; i < json_object_array_length(list); i++)
            n += strcmp(standing_outcome(json_object_array_get_idx(list, i)), outcomes[k]) == 0;
        fprintf(text->file, "vmferry_migrations_finished{outcome=\"%s\"} %u\n", outcomes[k], n);
    }
}

/* ---- All that this host has had ---- */

static json_object *element(json_object *list, size_t i)
{
    return json_object_is_type(list, json_type_array) ? json_object_array_get_idx(list, i) : NULL;
}

static size_t count(json_object *list)
{
    return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

static void print_sums(const struct text *text, json_object *totals)
{
    static const struct metric sums[] = {
        {"vmferry_sent_bytes", "counter", "bytes", "Bytes taken from this host's QEMUs, of all migrations.",
         "sent-bytes", 0},
        {"vmferry_received_bytes", "counter", "bytes",
         "Bytes delivered to this host's QEMUs, of all migrations.", "received-bytes", 0},
        {"vmferry_reconnects", "counter", NULL, "How often helpers have connected again, of all migrations.",
         "reconnects", 0},
        {"vmferry_interrupted_seconds", "counter", "seconds",
         "For how long migrations had lost the other host.", "interrupted-usec", 1e-6},
    };

    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        const uint64_t value = record_number(totals, sums[i].property);

        print_head(text, sums[i].name, sums[i].type, sums[i].unit, sums[i].help);
        if (sums[i].scale > 0)
            fprintf(text->file, "%s_total %.6f\n", sums[i].name, (double)value * sums[i].scale);
        else
            fprintf(text->file, "%s_total %" PRIu64 "\n", sums[i].name, value);
    }
}

static void print_downtimes(const struct text *text, json_object *totals)
{
    json_object *bounds = record_list(totals, "downtimes");
    const uint64_t n = record_number(totals, "downtime-count");

    print_head(text, "vmferry_downtime_seconds", "histogram", "seconds",
               "For how long VMs that moved stood still, as the owners report.");
    for (size_t i = 0; i < count(bounds); i++) {
        json_object *bound = element(bounds, i);

        fprintf(text->file, "vmferry_downtime_seconds_bucket{le=\"%g\"} %" PRIu64 "\n",
                json_object_get_double(element(bound, 0)) * 1e-6, json_object_get_uint64(element(bound, 1)));
    }
    fprintf(text->file, "vmferry_downtime_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", n);
    fprintf(text->file, "vmferry_downtime_seconds_sum %.6f\nvmferry_downtime_seconds_count %" PRIu64 "\n",
            (double)record_number(totals, "downtime-usec") * 1e-6, n);
}

/* totals: NULL, of a broker that keeps none. */
static void print_totals(const struct text *text, json_object *totals)
{
    json_object *migrations = record_list(totals, "migrations");

    if (!migrations)
        return;
    print_head(text, "vmferry_migrations", "counter", NULL,
               "Migrations that have ended, the forgotten ones too, by what they have come to.");
    for (size_t i = 0; i < count(migrations); i++) {
        json_object *line = element(migrations, i);

        if (count(line) < 3)
            continue;
        fputs("vmferry_migrations_total{", text->file);
        print_label(text->file, "role", json_object_get_string(element(line, 0)), false);
        print_label(text->file, "outcome", json_object_get_string(element(line, 1)), true);
        fprintf(text->file, "} %" PRIu64 "\n", json_object_get_uint64(element(line, 2)));
    }
    print_sums(text, totals);
    print_downtimes(text, totals);
}

void metrics_print(FILE *file, bool openmetrics, json_object *broker, json_object *list)
{
    const struct text out = {.file = file, .openmetrics = openmetrics}, *text = &out;

    print_head(text, "vmferry_up", "gauge", NULL, "The broker answers.");
    fputs("vmferry_up 1\n", file);
    print_head(text, "vmferry_broker", "info", NULL, "The broker that answers.");
    fputs("vmferry_broker_info{", file);
    print_label(file, "version", record_text(broker, "Version"), true);
    fputs("} 1\n", file);
    print_head(text, "vmferry_migrations_active", "gauge", NULL, "Migrations that are not finished.");
    fprintf(file, "vmferry_migrations_active %" PRIu64 "\n", record_number(broker, "ActiveMigrations"));
    print_head(text, "vmferry_migrations_max", "gauge", NULL, "How many may run at once.");
    fprintf(file, "vmferry_migrations_max %" PRIu64 "\n", record_number(broker, "MaxMigrations"));
    print_totals(text, record_object(broker, "Totals"));
    print_states(text, list);
    print_outcomes(text, list);
    for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++)
        print_metric(text, &metrics[i], list);
    if (openmetrics)
        fputs("# EOF\n", file);
}

/* A reader sees the old file or the new one, never half of it. */
static int write_file(const char *name, bool openmetrics, json_object *broker, json_object *list,
                      struct trouble *trouble)
{
    _cleanup_free_ char *temporary = NULL;
    FILE *file;
    int fd, r;

    if (asprintf(&temporary, "%s.XXXXXX", name) < 0) {
        temporary = NULL;
        return trouble_no_memory(trouble);
    }
    fd = mkostemp(temporary, O_CLOEXEC);
    file = fd >= 0 && fchmod(fd, 0644) >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        r = trouble_set(trouble, STATUS_FAILED, "Cannot make a file beside %s: %s.", name, strerror(errno));
        if (fd >= 0) {
            close(fd);
            unlink(temporary);
        }
        return r;
    }
    metrics_print(file, openmetrics, broker, list);
    r = ferror(file);
    if (fclose(file) != 0 || r || rename(temporary, name) < 0) {
        r = errno;
        unlink(temporary);
        return trouble_set(trouble, STATUS_FAILED, "Cannot write %s: %s.", name, strerror(r));
    }
    return 0;
}

int verb_metrics(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_json_ json_object *broker = NULL, *list = json_object_new_array();
    _cleanup_free_ struct found *found = NULL;
    size_t n = 0;

    if (side_open(ctl, &side, trouble) < 0 ||
        record_read(&side, BROKER_PATH, BROKER_NAME, &broker, trouble) < 0 ||
        find_all(&side, &found, &n, trouble) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        json_object *record;

        /* One that was forgotten meanwhile is left out. */
        if (record_read(&side, found[i].path, MIGRATION_INTERFACE, &record, NULL) >= 0)
            json_object_array_add(list, record);
    }
    if (ctl->arguments.output)
        return write_file(ctl->arguments.output, ctl->arguments.openmetrics, broker, list, trouble) < 0
                   ? -1
                   : STATUS_DONE;
    metrics_print(stdout, ctl->arguments.openmetrics, broker, list);
    return STATUS_DONE;
}
