/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/totals-property.h"

#include "broker/migration/accounts.h"
#include "broker/migration/identity.h"

/* An entry of a dictionary whose value is an array of structs; type: that struct's. */
static int open_list(sd_bus_message *m, const char *key, const char *list_type, const char *type)
{
    int r = sd_bus_message_open_container(m, 'e', "sv");

    if (r >= 0)
        r = sd_bus_message_append(m, "s", key);
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'v', list_type);
    return r < 0 ? r : sd_bus_message_open_container(m, 'a', type);
}

static int close_list(sd_bus_message *m)
{
    int r = 0;

    for (int i = 0; r >= 0 && i < 3; i++)
        r = sd_bus_message_close_container(m);
    return r;
}

static int append_migrations(sd_bus_message *m, const struct totals_sums *sums)
{
    int r = open_list(m, "migrations", "a(sst)", "(sst)");

    for (uint32_t role = 0; role < TOTALS_ROLES; role++)
        for (uint32_t i = 0; r >= 0 && i < TOTALS_WORDS; i++)
            r = sd_bus_message_append(m, "(sst)", role_text(role), totals_word(i), sums->migrations[role][i]);
    return r < 0 ? r : close_list(m);
}

static int append_downtimes(sd_bus_message *m, const struct totals_sums *sums)
{
    int r = open_list(m, "downtimes", "a(tt)", "(tt)");

    for (uint32_t i = 0; r >= 0 && i < TOTALS_BOUNDS; i++)
        r = sd_bus_message_append(m, "(tt)", totals_bounds[i], sums->downtimes[i]);
    return r < 0 ? r : close_list(m);
}

int totals_property_append(sd_bus_message *reply, const struct migration_services *services)
{
    struct totals_sums sums;
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    accounts_sum(services, &sums);
    if (r >= 0)
        r = append_migrations(reply, &sums);
    if (r >= 0)
        r = append_downtimes(reply, &sums);
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}{sv}{sv}", "since-usec", "t", sums.since,
                                  "sent-bytes", "t", sums.sent, "received-bytes", "t", sums.received,
                                  "reconnects", "t", sums.reconnects, "interrupted-usec", "t",
                                  sums.interrupted, "downtime-usec", "t", sums.downtime, "downtime-count",
                                  "t", sums.downtimes[TOTALS_BOUNDS]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}
