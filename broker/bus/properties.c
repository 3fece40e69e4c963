/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/properties.h"

#include <stdio.h>
#include <string.h>

#include "broker/bus/internal.h"
#include "broker/bus/names.h"
#include "broker/bus/reports.h"

/* Of an object that is found: the vtable's callback has looked. */
static const struct migration *migration_of(const struct bus *bus, const char *path)
{
    return object_find(bus->registry, path)->migration;
}

int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
             sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = migration_of(userdata, path);
    const struct identity *identity = migration_identity(migration);
    const struct migration_status *status = migration_status(migration);
    char name[64] = "";
    const char *value;

    if (strcmp(property, "Id") == 0)
        value = identity->id_text;
    else if (strcmp(property, "Vm") == 0)
        value = identity->vm;
    else if (strcmp(property, "Role") == 0)
        value = role_text(identity->role);
    else if (strcmp(property, "Security") == 0)
        value = migration_options(migration)->security == SECURITY_PLAIN ? "plain" : "tls";
    else if (strcmp(property, "State") == 0)
        value = state_text(identity->state);
    else if (strcmp(property, "Result") == 0)
        value = vf_result_to_string(status->result);
    else if (strcmp(property, "ErrorMessage") == 0)
        value = status->message ? status->message : "";
    else if (strcmp(property, "Peer") == 0)
        value = status->peer;
    else if (strcmp(property, "HelperUnit") == 0)
        value = identity->unit;
    else if (strcmp(property, "Outcome") == 0)
        value = vf_outcome_to_string(status->report.outcome.outcome);
    else if (strcmp(property, "Phase") == 0)
        value = report_phase_text(status->report.progress.phase);
    else {
        if (identity->error != VF_ERROR_NONE)
            snprintf(name, sizeof(name), ERROR_PREFIX "%s", vf_error_to_string(identity->error));
        value = name;
    }
    return sd_bus_message_append(reply, "s", value);
}

int get_sockets(sd_bus *bus, const char *path, const char *interface, const char *property,
                sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = migration_of(userdata, path);
    const struct options *options = migration_options(migration);
    int r = sd_bus_message_open_container(reply, 'a', "{ss}");

    for (uint32_t i = 0; r >= 0 && i < options->n_streams; i++)
        r = sd_bus_message_append(reply, "{ss}", options->streams[i], migration_socket_path(migration, i));
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
               sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = migration_of(userdata, path);
    const struct stats *stats = migration_page(migration)->stats;
    uint64_t value = 0;

    if (strcmp(property, "StartedUsec") == 0)
        value = migration_identity(migration)->started;
    else if (strcmp(property, "FinishedUsec") == 0)
        value = migration_status(migration)->finished;
    else if (strcmp(property, "GivesUpUsec") == 0)
        value = migration_status(migration)->gives_up;
    else if (strcmp(property, "BandwidthLimit") == 0)
        value = migration_options(migration)->bandwidth_limit;
    else if (strcmp(property, "RemainingUsec") == 0)
        value = migration_identity(migration)->state == STATE_FINISHED
                    ? 0
                    : migration_status(migration)->report.remaining;
    else if (!stats)
        value = 0; /* no memory for the copy */
    else if (strcmp(property, "BytesSent") == 0)
        value = STATS_READ(stats->sent);
    else if (strcmp(property, "BytesReceived") == 0)
        value = STATS_READ(stats->received);
    else if (strcmp(property, "Rate") == 0)
        value = stats_page_rate(migration_page(migration));
    else if (strcmp(property, "RoundTripUsec") == 0)
        value = STATS_READ(stats->round_trip_usec);
    return sd_bus_message_append(reply, "t", value);
}

int get_uint32(sd_bus *bus, const char *path, const char *interface, const char *property,
               sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = migration_of(userdata, path);
    const struct stats *stats = migration_page(migration)->stats;
    uint32_t value;

    if (strcmp(property, "OwnerUid") == 0)
        value = migration_identity(migration)->uid;
    else
        value = stats ? STATS_READ(stats->reconnects) : 0;
    return sd_bus_message_append(reply, "u", value);
}

int get_channels(sd_bus *bus, const char *path, const char *interface, const char *property,
                 sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    static const char *const states[] = {"", "opening", "open", "closed", "lost"};
    const struct migration *migration = migration_of(userdata, path);
    const struct stats *stats = migration_page(migration)->stats;
    const struct options *options = migration_options(migration);
    uint32_t n = stats ? STATS_READ(stats->n_channels) : 0;
    int r = sd_bus_message_open_container(reply, 'a', "(sutts)");

    for (uint32_t i = 0; r >= 0 && i < n && i < STATS_CHANNELS_MAX; i++) {
        const struct stats_channel *channel = &stats->channels[i];
        uint16_t state = STATS_READ(channel->state), stream = STATS_READ(channel->stream);

        /* The page is the helper's: nothing in it is taken for more than a number. */
        if (state == STATS_CHANNEL_UNUSED || state > STATS_CHANNEL_LOST || stream >= options->n_streams)
            continue;
        r = sd_bus_message_append(reply, "(sutts)", options->streams[stream], STATS_READ(channel->number),
                                  STATS_READ(channel->sent), STATS_READ(channel->received), states[state]);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

int get_details(sd_bus *bus, const char *path, const char *interface, const char *property,
                sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    return reports_append_details(reply, &migration_status(migration_of(userdata, path))->report);
}

int get_progress(sd_bus *bus, const char *path, const char *interface, const char *property,
                 sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = migration_of(userdata, path);
    const struct stats *stats = migration_page(migration)->stats;
    uint64_t moved, expected = migration_options(migration)->expected_bytes;
    const struct report *report = &migration_status(migration)->report;
    double value = report_fraction(report);

    if (value >= 0 || report->by != REPORT_BY_NOBODY)
        return sd_bus_message_append(reply, "d", value);
    if (migration_status(migration)->result == VF_RESULT_DONE) {
        value = 1; /* the broker does not ask QEMU: it only knows that all was carried */
    } else if (expected > 0 && stats) {
        moved = migration_identity(migration)->role == ROLE_OUTGOING ? STATS_READ(stats->sent)
                                                                     : STATS_READ(stats->received);
        value = (double)moved / (double)expected;
        if (value > 0.99)
            value = 0.99; /* not done before it is done */
    }
    return sd_bus_message_append(reply, "d", value);
}
