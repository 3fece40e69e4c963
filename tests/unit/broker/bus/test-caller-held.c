/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/bus/caller.h"
#include "broker/bus/names.h"
#include "broker/config/settings.h"
#include "common/cleanup.h"

#include <malloc.h>
#include <poll.h>

#if defined(__SANITIZE_ADDRESS__)
size_t __sanitizer_get_current_allocated_bytes(void); /* its header is not installed everywhere */
#endif

/* Calls over a connection without a bus, whose caller puts into the header what no call needs. */

enum { FIELD = 1 << 16, CALLS = 64 };

static size_t allocated(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return __sanitizer_get_current_allocated_bytes();
#else
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
#endif
}

struct rig {
    sd_bus *bus;
    struct config config;
    struct registry registry;
    struct calls calls;
    int caller;
    unsigned n;
};

static int call_nothing(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    return 0;
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct rig *rig = userdata;
    int r;

    if (!sd_bus_message_is_method_call(m, BROKER_INTERFACE, "GetMigration"))
        return 0;
    r = caller_resolve(&rig->calls, m, ACTION_READ, call_nothing, error);
    assert_true(r >= 0);
    rig->n++;
    return 1;
}

static void process(struct rig *rig)
{
    int r;

    do
        r = sd_bus_process(rig->bus, NULL);
    while (r > 0);
    if (r < 0)
        fail_msg("sd_bus_process(): %s", strerror(-r));
}

/* The caller's end speaks as it is written here. */
static void say(struct rig *rig, const void *data, size_t n)
{
    const char *p = data;

    while (n > 0) {
        ssize_t sent = send(rig->caller, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        } else {
            assert_int_equal(errno, EAGAIN);
        }
        process(rig);
    }
}

static void connect_rig(struct rig *rig)
{
    sd_id128_t id = {.bytes = {1}};
    char uid[16], text[128];
    int pair[2], n;

    *rig = (struct rig){0};
    test_pair(SOCK_STREAM, SOCK_NONBLOCK, pair);
    rig->caller = pair[0];
    config_init(&rig->config);
    config_finish(&rig->config);
    registry_init(&rig->registry, NULL);
    assert_true(sd_bus_new(&rig->bus) >= 0);
    assert_true(sd_bus_set_fd(rig->bus, pair[1], pair[1]) >= 0);
    assert_true(sd_bus_set_server(rig->bus, true, id) >= 0);
    assert_true(sd_bus_start(rig->bus) >= 0);
    calls_init(&rig->calls, rig->bus, &rig->config, &rig->registry, NULL);
    assert_true(sd_bus_add_filter(rig->bus, NULL, on_call, rig) >= 0);
    snprintf(uid, sizeof(uid), "%u", getuid());
    say(rig, "", 1);
    n = snprintf(text, sizeof(text), "AUTH EXTERNAL ");
    for (const char *p = uid; *p; p++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", *p);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\nBEGIN\r\n");
    say(rig, text, (size_t)n);
}

static size_t put_field(uint8_t *p, size_t at, uint8_t code, char type, const char *value, size_t n)
{
    const uint32_t size = (uint32_t)n;

    at = (at + 7) & ~(size_t)7;
    p[at++] = code;
    p[at++] = 1;
    p[at++] = (uint8_t)type;
    p[at++] = 0;
    memcpy(p + at, &size, sizeof(size));
    memcpy(p + at + 4, value, n);
    p[at + 4 + n] = 0;
    return at + 4 + n + 1;
}

/* A small call with a large field that is unknown to all. */
static void send_call(struct rig *rig, uint32_t serial)
{
    uint8_t *p = calloc(1, FIELD + 4096);
    char *large = malloc(FIELD);
    uint32_t fields;
    size_t n = 16;

    assert_true(p && large);
    memset(large, 'x', FIELD);
    memcpy(p, (const uint8_t[]){'l', 1, 0, 1}, 4);
    memcpy(p + 8, &serial, sizeof(serial));
    n = put_field(p, n, 1, 'o', BROKER_PATH, strlen(BROKER_PATH));
    n = put_field(p, n, 2, 's', BROKER_INTERFACE, strlen(BROKER_INTERFACE));
    n = put_field(p, n, 3, 's', "GetMigration", 12);
    n = put_field(p, n, 7, 's', ":1.7", 4);
    n = put_field(p, n, 200, 's', large, FIELD);
    fields = (uint32_t)n - 16;
    memcpy(p + 12, &fields, sizeof(fields));
    say(rig, p, (n + 7) & ~(size_t)7);
    free(p);
    free(large);
}

TEST(what_is_held_of_a_call_is_small)
{
    struct rig rig;
    size_t before;

    connect_rig(&rig);
    send_call(&rig, 1);
    process(&rig);
    assert_int_equal(rig.n, 1);
    before = allocated();
    for (uint32_t serial = 2; serial < 2 + CALLS; serial++)
        send_call(&rig, serial);
    process(&rig);
    assert_int_equal(rig.n, 1 + CALLS);
    assert_int_equal(rig.calls.n, 1 + CALLS);
    assert_true(allocated() < before + 16 * FIELD);
    caller_drop_all(&rig.calls);
    sd_bus_close_unref(rig.bus);
    config_clear(&rig.config);
    close(rig.caller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_held_of_a_call_is_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
