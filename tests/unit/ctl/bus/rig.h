/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A side whose broker is this file: at the other end of a socketpair, on the same event loop. Its answers may
 * be anything that D-Bus can carry; what a case gives to answer() writes them.
 */

#include "../failing.h"

#include "common/cleanup.h"
#include "ctl/bus/side.h"
#include <systemd/sd-id128.h>

struct row {
    const char *id, *vm, *role, *state;
    uint32_t uid;
};

static struct rig {
    struct ctl ctl;
    struct side side;
    sd_bus *broker;
    struct trouble trouble;
    char called[64]; /* the last method */
    unsigned calls;
    int (*answer)(sd_bus_message *reply); /* NULL: it says nothing */
    const char *error;                    /* the name of one, instead */
    bool hang_up;
    const struct row *rows; /* of ListMigrations, up to one without an id */
} rig;

__attribute__((unused)) static int list_migrations(sd_bus_message *reply)
{
    int r = sd_bus_message_open_container(reply, 'a', "(ssssuo)");

    for (const struct row *row = rig.rows; r >= 0 && row->id; row++) {
        char path[128];

        snprintf(path, sizeof(path), "/org/vmferry/Broker1/%s/%zd", row->role, row - rig.rows);
        r = sd_bus_message_append(reply, "(ssssuo)", row->id, row->vm, row->role, row->state, row->uid, path);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;

    if (!sd_bus_message_is_method_call(m, NULL, NULL))
        return 0;
    rig.calls++;
    snprintf(rig.called, sizeof(rig.called), "%s", sd_bus_message_get_member(m));
    if (rig.hang_up) {
        sd_bus_close(rig.broker);
        return 1;
    }
    if (rig.error)
        return sd_bus_reply_method_errorf(m, rig.error, "The broker's reason.") < 0 ? -EIO : 1;
    if (!rig.answer)
        return 1;
    assert_true(sd_bus_message_new_method_return(m, &reply) >= 0);
    assert_true(rig.answer(reply) >= 0);
    assert_true(sd_bus_send(rig.broker, reply, NULL) >= 0);
    return 1;
}

static void begin(void)
{
    sd_id128_t id;
    int pair[2];

    rig = (struct rig){.side = {.ctl = &rig.ctl, .where = "", .uid = 1000}};
    rig.ctl.arguments.quiet = true;
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(sd_id128_randomize(&id) >= 0);
    assert_true(sd_event_new(&rig.ctl.event) >= 0);
    assert_true(sd_bus_new(&rig.broker) >= 0);
    assert_true(sd_bus_set_fd(rig.broker, pair[0], pair[0]) >= 0);
    assert_true(sd_bus_set_server(rig.broker, true, id) >= 0);
    assert_true(sd_bus_start(rig.broker) >= 0);
    assert_true(sd_bus_attach_event(rig.broker, rig.ctl.event, 0) >= 0);
    assert_true(sd_bus_add_filter(rig.broker, NULL, on_call, NULL) >= 0);
    assert_true(sd_bus_new(&rig.side.bus) >= 0);
    assert_true(sd_bus_set_fd(rig.side.bus, pair[1], pair[1]) >= 0);
    assert_true(sd_bus_start(rig.side.bus) >= 0);
    assert_true(sd_bus_attach_event(rig.side.bus, rig.ctl.event, 0) >= 0);
}

static void end(void)
{
    side_close(&rig.side);
    sd_bus_close_unref(rig.broker);
    sd_event_unref(rig.ctl.event);
    trouble_clear(&rig.trouble);
}

/* What was to fail has failed: with this status, and these words. */
__attribute__((unused)) static void is_trouble(int r, int status, const char *text)
{
    assert_trouble(&rig.trouble, r, status, text);
}
