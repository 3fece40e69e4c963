/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker's end of a connection, and the world's: no daemon stands between, so the world is the bus, too.
 */

#include "test-util.h"

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

struct bus_pair {
    sd_bus *broker, *world;
};

static inline void bus_pair_open(struct bus_pair *pair, sd_event *event)
{
    sd_id128_t id = {.bytes = {1}};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    assert_true(sd_bus_new(&pair->broker) >= 0 && sd_bus_new(&pair->world) >= 0);
    assert_true(sd_bus_set_fd(pair->broker, fds[0], fds[0]) >= 0);
    assert_true(sd_bus_set_fd(pair->world, fds[1], fds[1]) >= 0);
    assert_true(sd_bus_set_server(pair->world, true, id) >= 0);
    assert_true(sd_bus_start(pair->world) >= 0 && sd_bus_start(pair->broker) >= 0);
    /* What sd-bus reads together with the end of the handshake it looks at only when more comes. */
    for (int i = 0; sd_bus_is_ready(pair->broker) <= 0 || sd_bus_is_ready(pair->world) <= 0; i++) {
        assert_true(i < 100);
        assert_true(sd_bus_process(pair->broker, NULL) >= 0 && sd_bus_process(pair->world, NULL) >= 0);
    }
    if (event) {
        assert_true(sd_bus_attach_event(pair->broker, event, 0) >= 0);
        assert_true(sd_bus_attach_event(pair->world, event, 0) >= 0);
    }
}

static inline void bus_pair_close(struct bus_pair *pair)
{
    pair->broker = sd_bus_close_unref(pair->broker);
    pair->world = sd_bus_close_unref(pair->world);
}
