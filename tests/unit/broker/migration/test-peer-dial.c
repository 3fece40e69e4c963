/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

#include "broker/migration/supply.h"

#include <arpa/inet.h>
#include <poll.h>

/* What a helper asks for is answered once, whatever fails. */

static bool no_timers;

int __real_sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata);
int __wrap_sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata);

int __wrap_sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata)
{
    if (no_timers)
        return -ENOMEM;
    return __real_sd_event_add_time_relative(event, ret, clock, usec, accuracy, handler, userdata);
}

TEST(a_dial_that_cannot_wait_is_answered_once)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct migration *migration;
    int helper, pair[2];

    migration = rig_start(rig, &helper);
    no_timers = true;
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 7, .kind = PEER_CONTROL}});
    rig_turn(rig);
    no_timers = false;
    assert_int_equal(helper_hears(helper, MESSAGE_PEER_FAILED, NULL).peer_failed.serial, 7);

    /* What is brought now is for the next one. */
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_peer(migration, pair[0], &error) >= 0);
    rig_turn(rig);
    helper_hears_nothing(helper);
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 8, .kind = PEER_CONTROL}});
    rig_turn(rig);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER, NULL).peer.serial, 8);
    close(pair[0]);
    close(pair[1]);
}

/* The port of a listener on loopback, as an endpoint. */
static int listen_tcp(char endpoint[static ADDRESS_TEXT_MAX])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)&in, size), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &size), 0);
    snprintf(endpoint, ADDRESS_TEXT_MAX, "tcp:127.0.0.1:%u", ntohs(in.sin_port));
    return fd;
}

static struct message_peer ask(struct rig *rig, int helper, uint32_t serial, enum peer_kind kind)
{
    struct pollfd p = {.fd = helper, .events = POLLIN};
    union message m;
    int fd = -1;

    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = serial, .kind = kind}});
    for (int i = 0; i < 500 && poll(&p, 1, 0) == 0; i++)
        assert_true(sd_event_run(rig->event, 10000) >= 0);
    m = helper_hears(helper, MESSAGE_PEER, &fd);
    close(fd);
    return m.peer;
}

TEST(the_endpoint_that_has_worked_goes_first)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct ticket ticket = {.id = 4711, .expiry = UINT64_MAX, .n_endpoints = 3};
    struct options options = rig_options(rig);
    struct migration *migration;
    char text[TICKET_TEXT_MAX];
    struct message_peer got;
    int listeners[3], helper;

    for (int i = 0; i < 3; i++)
        listeners[i] = listen_tcp(ticket.endpoints[i]);
    options.no_endpoints = false;
    assert_true(ticket_encode(&ticket, text) >= 0);
    assert_true(migration_start(&rig->services, "vm", text, &options, getuid(), &migration, &error) >= 0);
    rig_turn(rig);
    helper = rig->stand_ins.helpers[0];
    helper_hears(helper, MESSAGE_START_RELAY, NULL);

    got = ask(rig, helper, 1, PEER_CONTROL);
    assert_int_equal(got.endpoint, 1);
    assert_int_equal(got.others, 2);
    got = ask(rig, helper, 1, PEER_CONTROL); /* that one was not the peer's */
    assert_int_equal(got.endpoint, 2);
    assert_int_equal(got.others, 1);
    rig_state(rig, helper, STATE_CONNECTED, "");
    got = ask(rig, helper, 2, PEER_CHANNEL);
    assert_int_equal(got.endpoint, 2);
    assert_int_equal(got.others, 2);
    got = ask(rig, helper, 2, PEER_CHANNEL);
    assert_int_equal(got.endpoint, 1);
    for (int i = 0; i < 3; i++)
        close(listeners[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_dial_that_cannot_wait_is_answered_once),
        CASE(the_endpoint_that_has_worked_goes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
