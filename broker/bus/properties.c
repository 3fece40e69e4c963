/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/properties.h"

#include <stdio.h>
#include <string.h>

#include "broker/migration/migration.h"

int migration_get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = userdata;
    char name[64] = "";
    const char *value;

    (void)bus;
    (void)path;
    (void)interface;
    (void)error;
    if (strcmp(property, "Id") == 0)
        value = migration->id_text;
    else if (strcmp(property, "Vm") == 0)
        value = migration->vm;
    else if (strcmp(property, "Role") == 0)
        value = migration_role_text(migration);
    else if (strcmp(property, "Security") == 0)
        value = migration->security == SECURITY_PLAIN ? "plain" : "tls";
    else if (strcmp(property, "State") == 0)
        value = migration_state_text(migration);
    else if (strcmp(property, "Result") == 0)
        value = vf_result_to_string(migration->result);
    else if (strcmp(property, "ErrorMessage") == 0)
        value = migration->message ? migration->message : "";
    else if (strcmp(property, "Peer") == 0)
        value = migration->peer;
    else if (strcmp(property, "HelperUnit") == 0)
        value = migration->helper_unit;
    else {
        if (migration->error != VF_ERROR_NONE)
            snprintf(name, sizeof(name), ERROR_PREFIX "%s", vf_error_to_string(migration->error));
        value = name;
    }
    return sd_bus_message_append(reply, "s", value);
}

int migration_get_sockets(sd_bus *bus, const char *path, const char *interface, const char *property,
                          sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = userdata;
    int r = sd_bus_message_open_container(reply, 'a', "{ss}");

    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)error;
    for (uint32_t i = 0; r >= 0 && i < migration->options.n_streams; i++)
        r = sd_bus_message_append(reply, "{ss}", migration->options.streams[i], migration->streams[i].path);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

int migration_get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = userdata;
    const struct stats *stats = migration->page.stats;
    uint64_t value = 0;

    (void)bus;
    (void)path;
    (void)interface;
    (void)error;
    if (strcmp(property, "StartedUsec") == 0)
        value = migration->started;
    else if (strcmp(property, "FinishedUsec") == 0)
        value = migration->finished;
    else if (strcmp(property, "BandwidthLimit") == 0)
        value = migration->options.bandwidth_limit;
    else if (!stats)
        value = 0; /* no memory for the copy */
    else if (strcmp(property, "BytesSent") == 0)
        value = STATS_READ(stats->sent);
    else if (strcmp(property, "BytesReceived") == 0)
        value = STATS_READ(stats->received);
    else if (strcmp(property, "Rate") == 0)
        value = stats_page_rate(&migration->page);
    else if (strcmp(property, "RoundTripUsec") == 0)
        value = STATS_READ(stats->round_trip_usec);
    return sd_bus_message_append(reply, "t", value);
}

int migration_get_uint32(sd_bus *bus, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = userdata;
    uint32_t value;

    (void)bus;
    (void)path;
    (void)interface;
    (void)error;
    if (strcmp(property, "OwnerUid") == 0)
        value = migration->uid;
    else
        value = migration->page.stats ? STATS_READ(migration->page.stats->reconnects) : 0;
    return sd_bus_message_append(reply, "u", value);
}

int migration_get_channels(sd_bus *bus, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    static const char *const states[] = {"", "opening", "open", "closed", "lost"};
    const struct migration *migration = userdata;
    const struct stats *stats = migration->page.stats;
    uint32_t n = stats ? STATS_READ(stats->n_channels) : 0;
    int r = sd_bus_message_open_container(reply, 'a', "(sutts)");

    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)error;
    for (uint32_t i = 0; r >= 0 && i < n && i < STATS_CHANNELS_MAX; i++) {
        const struct stats_channel *channel = &stats->channels[i];
        uint16_t state = STATS_READ(channel->state), stream = STATS_READ(channel->stream);

        /* The page is the helper's: nothing in it is taken for more than a number. */
        if (state == STATS_CHANNEL_UNUSED || state > STATS_CHANNEL_LOST ||
            stream >= migration->options.n_streams)
            continue;
        r = sd_bus_message_append(reply, "(sutts)", migration->options.streams[stream],
                                  STATS_READ(channel->number), STATS_READ(channel->sent),
                                  STATS_READ(channel->received), states[state]);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

int migration_get_progress(sd_bus *bus, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct migration *migration = userdata;
    double value = -1;
    uint64_t moved;

    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)error;
    if (migration->result == VF_RESULT_DONE) {
        value = 1;
    } else if (migration->options.expected_bytes > 0 && migration->page.stats) {
        moved = migration->role == ROLE_OUTGOING ? STATS_READ(migration->page.stats->sent)
                                                 : STATS_READ(migration->page.stats->received);
        value = (double)moved / (double)migration->options.expected_bytes;
        if (value > 0.99)
            value = 0.99; /* not done before it is done */
    }
    return sd_bus_message_append(reply, "d", value);
}
