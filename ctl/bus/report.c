/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/report.h"

#include "common/cleanup.h"

static int append_number(sd_bus_message *m, const char *key, uint64_t value)
{
    return value > 0 ? sd_bus_message_append(m, "{sv}", key, "t", value) : 0;
}

static int append_text(sd_bus_message *m, const char *key, const char *value)
{
    return value[0] != '\0' ? sd_bus_message_append(m, "{sv}", key, "s", value) : 0;
}

static int append_progress(sd_bus_message *m, const struct report_progress *progress)
{
    int r = sd_bus_message_open_container(m, 'a', "{sv}");

    if (r >= 0)
        r = append_text(m, "phase", progress->phase);
    if (r >= 0 && progress->pass > 0)
        r = sd_bus_message_append(m, "{sv}", "pass", "u", progress->pass);
    if (r >= 0)
        r = append_number(m, "memory-total", progress->memory_total);
    if (r >= 0)
        r = append_number(m, "memory-remaining", progress->memory_remaining);
    if (r >= 0)
        r = append_number(m, "dirty-rate", progress->dirty_rate);
    if (r >= 0)
        r = append_number(m, "disk-total", progress->disk_total);
    if (r >= 0)
        r = append_number(m, "disk-remaining", progress->disk_remaining);
    return r < 0 ? r : sd_bus_message_close_container(m);
}

void report_progress(const struct tunnel *tunnel, const struct report_progress *progress)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    if (!tunnel->path ||
        side_message(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "ReportProgress", &m, NULL) < 0 ||
        append_progress(m, progress) < 0 || sd_bus_message_set_expect_reply(m, false) < 0)
        return;
    sd_bus_send(tunnel->side->bus, m, NULL);
}

void report_outcome(const struct tunnel *tunnel, const struct outcome *outcome)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    int r;

    if (!tunnel->path ||
        side_message(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "Report", &m, NULL) < 0)
        return;
    r = sd_bus_message_append(m, "s", vf_outcome_to_string(outcome->outcome));
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'a', "{sv}");
    if (r >= 0)
        r = append_number(m, "downtime-usec", outcome->downtime);
    if (r >= 0)
        r = append_number(m, "total-usec", outcome->total);
    if (r >= 0)
        r = append_text(m, "host", outcome->host);
    if (r >= 0)
        r = append_text(m, "run-state", outcome->run_state);
    if (r >= 0)
        r = append_text(m, "reason", outcome->reason);
    if (r >= 0)
        r = sd_bus_message_close_container(m);
    if (r >= 0)
        side_send(tunnel->side, m, 5 * SECOND, NULL, NULL, "");
}
