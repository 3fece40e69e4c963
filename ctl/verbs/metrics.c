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

/* One figure a migration. Of a counter the samples' name ends in _total, as OpenMetrics wants it. */
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
    {"vmferry_migration_progress_ratio", "gauge", "ratio", "0 to 1; -1: not known.", "Progress", 1},
    {"vmferry_migration_started_seconds", "gauge", "seconds", "When it was made, since 1970.", "StartedUsec",
     1e-6},
    {"vmferry_migration_finished_seconds", "gauge", "seconds", "When it ended, since 1970; 0: not yet.",
     "FinishedUsec", 1e-6},
};

/* As OpenMetrics wants a label's value escaped. */
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

static void print_head(FILE *file, const char *name, const char *type, const char *unit, const char *help)
{
    fprintf(file, "# TYPE %s %s\n", name, type);
    if (unit)
        fprintf(file, "# UNIT %s %s\n", name, unit);
    fprintf(file, "# HELP %s %s\n", name, help);
}

static void print_metric(FILE *file, const struct metric *metric, json_object *list)
{
    print_head(file, metric->name, metric->type, metric->unit, metric->help);
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

/* What each is doing: its state, or what it came to. */
static void print_states(FILE *file, json_object *list)
{
    print_head(file, "vmferry_migration_state", "info", NULL, "The migration's state and result.");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *record = json_object_array_get_idx(list, i);

        fputs("vmferry_migration_state_info{", file);
        print_label(file, "id", record_text(record, "Id"), false);
        print_label(file, "role", record_text(record, "Role"), false);
        print_label(file, "vm", record_text(record, "Vm"), false);
        print_label(file, "security", record_text(record, "Security"), false);
        print_label(file, "state", record_text(record, "State"), false);
        print_label(file, "result", record_text(record, "Result"), true);
        fputs("} 1\n", file);
    }
}

static void print_all(FILE *file, json_object *broker, json_object *list)
{
    print_head(file, "vmferry_broker", "info", NULL, "The broker that answers.");
    fputs("vmferry_broker_info{", file);
    print_label(file, "version", record_text(broker, "Version"), true);
    fputs("} 1\n", file);
    print_head(file, "vmferry_migrations_active", "gauge", NULL, "Migrations that are not finished.");
    fprintf(file, "vmferry_migrations_active %" PRIu64 "\n", record_number(broker, "ActiveMigrations"));
    print_head(file, "vmferry_migrations_max", "gauge", NULL, "How many may run at once.");
    fprintf(file, "vmferry_migrations_max %" PRIu64 "\n", record_number(broker, "MaxMigrations"));
    print_states(file, list);
    for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++)
        print_metric(file, &metrics[i], list);
    fputs("# EOF\n", file);
}

/* A reader sees the old file or the new one, never half of it. */
static int write_file(const char *name, json_object *broker, json_object *list, struct trouble *trouble)
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
    print_all(file, broker, list);
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
        return write_file(ctl->arguments.output, broker, list, trouble) < 0 ? -1 : STATUS_DONE;
    print_all(stdout, broker, list);
    return STATUS_DONE;
}
