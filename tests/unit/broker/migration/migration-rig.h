/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A broker's migrations without a bus: real ones on real services, with stand-ins for helpers and systemd;
 * what they tell upward is noted down. */

#include "../stand-ins.h"

#include "broker/config/settings.h"
#include "broker/helpers/link.h"
#include "broker/log.h"
#include "broker/migration/arrivals.h"
#include "broker/migration/migration.h"
#include "broker/migration/registry.h"
#include "broker/migration/restore.h"
#include "broker/migration/services.h"
#include "broker/migration/setup.h"
#include "broker/net/port.h"
#include "broker/net/ticket.h"
#include "broker/sockets/give.h"
#include "broker/totals.h"

struct rig {
    struct stand_ins stand_ins;
    struct config config;
    struct migration_timing timing;
    sd_event *event;
    struct store *store;
    struct helper_links helpers;
    struct give give;
    struct registry registry;
    struct totals totals;
    struct arrivals arrivals;
    struct port *port;
    struct migration_services services;
    /* What was told. */
    unsigned n_made, n_finished, n_removed;
    unsigned changed; /* since the last look */
};

static inline void rig_on_made(void *userdata, const struct migration *migration)
{
    ((struct rig *)userdata)->n_made++;
}

static inline void rig_on_changed(void *userdata, const struct migration *migration, unsigned what)
{
    ((struct rig *)userdata)->changed |= what;
}

static inline void rig_on_finished(void *userdata, struct migration *migration)
{
    struct rig *rig = userdata;

    assert_int_equal(migration_identity(migration)->state, STATE_FINISHED);
    assert_true(rig->changed & CHANGE_RESULT); /* first */
    rig->n_finished++;
}

static inline void rig_on_removed(void *userdata, const struct migration *migration)
{
    ((struct rig *)userdata)->n_removed++;
}

static const struct migration_events rig_events = {rig_on_made, rig_on_changed, rig_on_finished,
                                                   rig_on_removed};

static inline void rig_start_broker(struct rig *rig)
{
    assert_true(store_new(&rig->store) >= 0);
    assert_true(sd_event_new(&rig->event) >= 0);
    helper_links_init(&rig->helpers, rig->event, "/nonexistent", rig->stand_ins.helper_path);
    give_init(&rig->give, NULL);
    registry_init(&rig->registry, migration_forget);
    totals_open(&rig->totals, rig->stand_ins.directory);
    rig->arrivals = (struct arrivals){.registry = &rig->registry};
    assert_true(port_new(&rig->config, rig->event, rig->store, &rig->helpers, &arrivals_events,
                         &rig->arrivals, &rig->port) >= 0);
    rig->services = (struct migration_services){.config = &rig->config,
                                                .event = rig->event,
                                                .store = rig->store,
                                                .helpers = &rig->helpers,
                                                .give = &rig->give,
                                                .port = rig->port,
                                                .registry = &rig->registry,
                                                .totals = &rig->totals,
                                                .bus_fd = -1,
                                                .timing = &rig->timing,
                                                .events = &rig_events,
                                                .userdata = rig};
}

static inline void rig_stop_broker(struct rig *rig)
{
    store_freeze(rig->store);
    if (store_frozen(rig->store))
        helper_links_leave(&rig->helpers);
    while (registry_count(&rig->registry) > 0)
        migration_free(registry_next(&rig->registry, NULL)->migration);
    port_free(rig->port);
    helper_links_clear(&rig->helpers);
    sd_event_unref(rig->event);
    store_free(rig->store);
}

static inline struct rig *rig_new(bool with_store)
{
    static char listen[64];
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    log_open(LOG_EMERG);
    stand_ins_open(&rig->stand_ins, with_store);
    config_init(&rig->config);
    rig->config.runtime_dir = rig->stand_ins.directory;
    rig->config.libvirt_dir = rig->stand_ins.directory;
    rig->config.bus = BUS_ADDRESS;
    snprintf(listen, sizeof(listen), "unix:%s/port", rig->stand_ins.directory);
    rig->config.listen_list.items[0] = strdup(listen);
    rig->config.listen_list.n = 1;
    rig->config.listen_list.given = true;
    config_finish(&rig->config);
    rig->timing = (struct migration_timing){.stop = 3600000000, .idle = 3600000000, .kept = 3600000000};
    rig_start_broker(rig);
    return rig;
}

static inline void rig_freep(struct rig **rig)
{
    rig_stop_broker(*rig);
    stand_ins_close(&(*rig)->stand_ins);
    config_clear(&(*rig)->config);
    free(*rig);
}

#define _cleanup_rig_ _cleanup_(rig_freep)

/* Ends the broker and starts the next one, which takes over what systemd has. */
static inline void rig_restart(struct rig *rig)
{
    rig_stop_broker(rig);
    stand_in_hand_back(&rig->stand_ins);
    rig_start_broker(rig);
    port_restore(rig->port);
    migration_restore_all(&rig->services);
    port_settle(rig->port);
    rig->changed = 0;
}

static inline void rig_turn(struct rig *rig)
{
    stand_ins_turn(&rig->stand_ins, rig->event);
    stand_in_manage(&rig->stand_ins);
}

/* Until a timer of some ms has fired, which sets *what. */
static inline void rig_wait(struct rig *rig, const unsigned *what, unsigned value)
{
    for (int i = 0; i < 500 && *what != value; i++)
        assert_true(sd_event_run(rig->event, 10000) >= 0);
    assert_int_equal(*what, value);
}

static inline struct options rig_options(struct rig *rig)
{
    return (struct options){.n_streams = 1,
                            .streams = {"migrate"},
                            .expire = 3600000000,
                            .resume_timeout = rig->config.resume_timeout,
                            .no_endpoints = true};
}

/* One with these options, and its helper, which has heard START_RELAY. */
static inline struct migration *rig_prepare_with(struct rig *rig, struct options options, int *ret_helper)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct migration *migration;

    if (migration_prepare(&rig->services, "vm", &options, getuid(), &migration, &error) < 0)
        fail_msg("%s", error.message);
    rig_turn(rig);
    if (ret_helper) {
        *ret_helper = rig->stand_ins.helpers[0];
        helper_hears(*ret_helper, MESSAGE_START_RELAY, NULL);
    }
    return migration;
}

static inline struct migration *rig_prepare(struct rig *rig, int *ret_helper)
{
    return rig_prepare_with(rig, rig_options(rig), ret_helper);
}

/* An outgoing one from a ticket that names no endpoint. */
static inline struct migration *rig_start_with(struct rig *rig, struct options options, int *ret_helper)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct ticket ticket = {.id = 4711, .expiry = UINT64_MAX};
    char text[TICKET_TEXT_MAX];
    struct migration *migration;

    assert_true(ticket_encode(&ticket, text) >= 0);
    if (migration_start(&rig->services, "vm", text, &options, getuid(), &migration, &error) < 0)
        fail_msg("%s", error.message);
    rig_turn(rig);
    *ret_helper = rig->stand_ins.helpers[0];
    helper_hears(*ret_helper, MESSAGE_START_RELAY, NULL);
    return migration;
}

static inline struct migration *rig_start(struct rig *rig, int *ret_helper)
{
    return rig_start_with(rig, rig_options(rig), ret_helper);
}

/* Its helper says in which state it is. */
static inline void rig_state(struct rig *rig, int helper, enum message_state state, const char *text)
{
    union message m = {.state_changed = {.state = state, .peer = "tcp:192.0.2.1:1"}};

    snprintf(m.state_changed.text, sizeof(m.state_changed.text), "%s", text);
    helper_says(helper, MESSAGE_STATE, m);
    rig_turn(rig);
}

static inline void rig_result(struct rig *rig, int helper, enum vf_error error, const char *text)
{
    union message m = {.result = {.result = vf_error_to_result(error), .error = error}};

    snprintf(m.result.text, sizeof(m.result.text), "%s", text);
    helper_says(helper, MESSAGE_RESULT, m);
    rig_turn(rig);
}

static inline enum message_state rig_state_of(const struct migration *migration)
{
    return migration_identity(migration)->state;
}

/* What was told since the last look. */
static inline unsigned rig_changed(struct rig *rig)
{
    unsigned changed = rig->changed;

    rig->changed = 0;
    return changed;
}
