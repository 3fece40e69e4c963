/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../stand-ins.h"

#include "broker/config/settings.h"
#include "broker/helpers/link.h"
#include "broker/log.h"
#include "broker/net/port.h"

/* The peer port, with a stand-in for its gate; who arrives is noted down. */

struct rig {
    struct stand_ins stand_ins;
    struct config config;
    sd_event *event;
    struct store *store;
    struct helper_links helpers;
    struct port *port;
    unsigned n_arrived;
    enum peer_kind kind;
    uint64_t id;
    struct message_mark mark;
    enum vf_error answer;
};

static enum vf_error on_arrived(void *userdata, enum peer_kind kind, uint64_t id,
                                const struct message_mark *mark, int fd)
{
    struct rig *rig = userdata;

    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    rig->n_arrived++;
    rig->kind = kind;
    rig->id = id;
    rig->mark = mark ? *mark : (struct message_mark){0};
    return rig->answer;
}

static const struct port_events events = {.arrived = on_arrived};

static void rig_start_broker(struct rig *rig)
{
    assert_true(store_new(&rig->store) >= 0);
    assert_true(sd_event_new(&rig->event) >= 0);
    helper_links_init(&rig->helpers, rig->event, "/nonexistent", rig->stand_ins.helper_path);
    assert_true(port_new(&rig->config, rig->event, rig->store, &rig->helpers, &events, rig, &rig->port) >= 0);
}

static void rig_stop_broker(struct rig *rig)
{
    store_freeze(rig->store);
    if (store_frozen(rig->store))
        helper_links_leave(&rig->helpers);
    port_free(rig->port);
    helper_links_clear(&rig->helpers);
    sd_event_unref(rig->event);
    store_free(rig->store);
}

static struct rig *rig_new(bool with_store)
{
    char listen[64];
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    log_open(LOG_EMERG);
    stand_ins_open(&rig->stand_ins, with_store);
    config_init(&rig->config);
    snprintf(listen, sizeof(listen), "unix:%s/port", rig->stand_ins.directory);
    rig->config.listen_list.items[0] = strdup(listen);
    rig->config.listen_list.n = 1;
    rig->config.listen_list.given = true;
    config_finish(&rig->config);
    rig_start_broker(rig);
    return rig;
}

static void rig_freep(struct rig **rig)
{
    rig_stop_broker(*rig);
    stand_ins_close(&(*rig)->stand_ins);
    config_clear(&(*rig)->config);
    free(*rig);
}

#define _cleanup_rig_ _cleanup_(rig_freep)

static void rig_turn(struct rig *rig)
{
    stand_ins_turn(&rig->stand_ins, rig->event);
    stand_in_manage(&rig->stand_ins);
}

static bool is_open(const struct rig *rig)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/port", rig->stand_ins.directory);
    return access(path, F_OK) == 0;
}

/* Open, with a gate that has heard so. */
static int rig_open(struct rig *rig)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int gate;

    assert_true(port_acquire(rig->port, &error) >= 0);
    rig_turn(rig);
    gate = rig->stand_ins.helpers[0];
    helper_hears(gate, MESSAGE_START_GATE, NULL);
    helper_hears(gate, MESSAGE_LISTENER, NULL);
    return gate;
}

/* The gate hands up a connection; the other end is the caller's. */
static int arrives(struct rig *rig, int gate, enum peer_kind kind)
{
    union message m = {.arrived = {.id = 4711, .kind = kind}};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_true(message_send(gate, MESSAGE_ARRIVED, &m, pair[0]) >= 0);
    close(pair[0]);
    rig_turn(rig);
    return pair[1];
}

TEST(is_open_while_a_migration_expects_a_peer)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int gate;

    assert_false(is_open(rig));
    gate = rig_open(rig);
    assert_true(port_acquire(rig->port, &error) >= 0);
    port_release(rig->port);
    assert_true(is_open(rig));
    port_release(rig->port);
    assert_false(is_open(rig));
    assert_true(helper_is_dropped(gate));
}

TEST(says_where_it_listens_or_will_listen)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    char before[4][ADDRESS_TEXT_MAX], now[4][ADDRESS_TEXT_MAX];

    assert_int_equal(port_endpoints(rig->port, NULL, before, 4, NULL), 1);
    rig_open(rig);
    assert_int_equal(port_endpoints(rig->port, NULL, now, 4, NULL), 1);
    assert_string_equal(before[0], now[0]);
}

TEST(a_peer_is_passed_on_or_rejected)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int gate = rig_open(rig), peer = arrives(rig, gate, PEER_CONTROL);

    assert_int_equal(rig->n_arrived, 1);
    assert_int_equal(rig->kind, PEER_CONTROL);
    assert_int_equal(rig->id, 4711);
    helper_hears_nothing(gate);
    close(peer);
    rig->answer = VF_ERROR_TICKET_USED;
    peer = arrives(rig, gate, PEER_CHANNEL);
    assert_int_equal(helper_hears(gate, MESSAGE_REJECT, NULL).reject.error, VF_ERROR_TICKET_USED);
    close(peer);
}

TEST(a_mark_is_passed_on)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    union message m = {.arrived_marked = {.arrived = {.id = 4711, .kind = PEER_CHANNEL},
                                          .mark = {.number = 7, .mac = 0x1122334455667788}}};
    int gate = rig_open(rig), pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_true(message_send(gate, MESSAGE_ARRIVED_MARKED, &m, pair[0]) >= 0);
    close(pair[0]);
    close(pair[1]);
    rig_turn(rig);
    assert_int_equal(rig->n_arrived, 0); /* its other end is closed already */
    close(arrives(rig, gate, PEER_CHANNEL));
    assert_int_equal(rig->mark.number, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_true(message_send(gate, MESSAGE_ARRIVED_MARKED, &m, pair[0]) >= 0);
    close(pair[0]);
    rig_turn(rig);
    close(pair[1]);
    assert_int_equal(rig->n_arrived, 2);
    assert_int_equal(rig->mark.number, 7);
    assert_int_equal(rig->mark.mac, 0x1122334455667788);
}

TEST(what_is_no_connection_is_dropped)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    union message m = {.arrived = {.id = 4711, .kind = PEER_CONTROL}};
    int gate = rig_open(rig), file = open("/dev/null", O_RDWR | O_CLOEXEC);

    assert_true(message_send(gate, MESSAGE_ARRIVED, &m, file) >= 0);
    close(file);
    rig_turn(rig);
    assert_int_equal(rig->n_arrived, 0);
    assert_false(helper_is_dropped(gate));
}

TEST(a_gate_that_lies_is_replaced)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int gate = rig_open(rig), peer = arrives(rig, gate, PEER_ANY);

    close(peer);
    assert_int_equal(rig->n_arrived, 0);
    assert_true(helper_is_dropped(gate));
    for (int i = 0; i < 100 && rig->stand_ins.n_helpers < 2; i++) {
        assert_true(sd_event_run(rig->event, 10000) >= 0);
        stand_in_accept(&rig->stand_ins);
    }
    rig_turn(rig);
    gate = rig->stand_ins.helpers[1];
    helper_hears(gate, MESSAGE_START_GATE, NULL);
    helper_hears(gate, MESSAGE_LISTENER, NULL); /* the same: those that connected meanwhile wait in it */
    peer = arrives(rig, gate, PEER_RESUME);
    assert_int_equal(rig->n_arrived, 1);
    close(peer);
}

static void restart(struct rig *rig)
{
    rig_stop_broker(rig);
    stand_in_hand_back(&rig->stand_ins);
    rig_start_broker(rig);
    port_restore(rig->port);
}

TEST(the_next_broker_has_the_same_port_and_gate)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    int gate = rig_open(rig), peer;

    restart(rig);
    port_hold(rig->port);
    port_settle(rig->port);
    store_drop_rest(rig->store);
    peer = arrives(rig, gate, PEER_CONTROL);
    assert_int_equal(rig->n_arrived, 1);
    helper_hears_nothing(gate);
    assert_true(is_open(rig));
    close(peer);
}

TEST(the_next_broker_closes_a_port_that_no_migration_holds)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    int gate = rig_open(rig);

    restart(rig);
    port_settle(rig->port);
    rig_turn(rig);
    assert_false(is_open(rig));
    assert_true(helper_is_dropped(gate));
    assert_int_equal(rig->stand_ins.n_stored, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(is_open_while_a_migration_expects_a_peer),
        CASE(says_where_it_listens_or_will_listen),
        CASE(a_peer_is_passed_on_or_rejected),
        CASE(a_mark_is_passed_on),
        CASE(what_is_no_connection_is_dropped),
        CASE(a_gate_that_lies_is_replaced),
        CASE(the_next_broker_has_the_same_port_and_gate),
        CASE(the_next_broker_closes_a_port_that_no_migration_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
