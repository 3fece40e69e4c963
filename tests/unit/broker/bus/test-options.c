/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus-pair.h"

#include "broker/bus/options.h"
#include "broker/config/settings.h"
#include "broker/sockets/qemu-socket.h"
#include "common/cleanup.h"

#include <inttypes.h>

/* The a{sv} of PrepareIncoming and StartOutgoing. */

static struct bus_pair pair;
static struct config config;
static struct options options;
static char error_name[128], error_message[512];

static int set_up(void **state)
{
    config_init(&config);
    config_finish(&config);
    bus_pair_open(&pair, NULL);
    return 0;
}

static int tear_down(void **state)
{
    options_clear(&options);
    bus_pair_close(&pair);
    config_clear(&config);
    return 0;
}

/* A call with these options, as sd_bus_message_append(3) takes them; whether they are good. */
static bool parse(enum message_role role, const char *types, ...)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    va_list args;
    int r;

    options_clear(&options);
    assert_true(sd_bus_message_new_method_call(pair.broker, &m, NULL, "/", "a.b", "C") >= 0);
    assert_true(sd_bus_message_append(m, role == ROLE_INCOMING ? "s" : "ss", "vm", "ticket") >= 0);
    va_start(args, types);
    assert_true(sd_bus_message_appendv(m, types, args) >= 0);
    va_end(args);
    assert_true(sd_bus_message_seal(m, 1, 0) >= 0);
    assert_true(sd_bus_message_skip(m, role == ROLE_INCOMING ? "s" : "ss") >= 0);
    r = options_parse(m, role, &config, &options, &error);
    snprintf(error_name, sizeof(error_name), "%s", error.name ? error.name : "");
    snprintf(error_message, sizeof(error_message), "%s", error.message ? error.message : "");
    return r >= 0;
}

#define says(part) (strstr(error_message, part) != NULL)

TEST(without_any_the_configuration_says)
{
    assert_true(parse(ROLE_INCOMING, "a{sv}", 0));
    assert_int_equal(options.n_streams, 1);
    assert_string_equal(options.streams[0], "migrate");
    assert_int_equal(options.expire, config.expire);
    assert_int_equal(options.resume_timeout, config.resume_timeout);
    assert_int_equal(options.security, SECURITY_TLS);
    assert_false(options.no_endpoints || options.tie_to_caller || options.client_id);
}

TEST(all_of_them_are_taken)
{
    assert_true(parse(ROLE_INCOMING, "a{sv}", 9, "sockets", "a{ss}", 2, "b", "/run/b", "a", "", "streams",
                      "as", 2, "a", "b", "security", "s", "plain", "endpoints", "as", 1, "tcp:192.0.2.1:7",
                      "expire-usec", "t", UINT64_C(5000000), "bandwidth-limit", "t", UINT64_C(1),
                      "expected-bytes", "t", UINT64_C(2), "client-id", "s", "mine", "tie-to-caller", "b", 1));
    assert_int_equal(options.n_streams, 2);
    assert_string_equal(options.sockets[0], ""); /* whichever of the two options came first */
    assert_string_equal(options.sockets[1], "/run/b");
    assert_int_equal(options_stream(&options, "b"), 1);
    assert_int_equal(options_stream(&options, "c"), -1);
    assert_int_equal(options.security, SECURITY_PLAIN);
    assert_string_equal(options.endpoints[0], "tcp:192.0.2.1:7");
    assert_int_equal(options.expire, 5000000);
    assert_string_equal(options.client_id, "mine");
    assert_true(options.tie_to_caller);
}

TEST(an_option_is_known_of_its_method_of_its_type_and_there_once)
{
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "nonsense", "s", "x"));
    assert_true(says("There is no option 'nonsense'"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "endpoint", "s", "tcp:192.0.2.1"));
    assert_true(says("belongs to StartOutgoing"));
    assert_false(parse(ROLE_OUTGOING, "a{sv}", 1, "endpoints", "as", 0));
    assert_true(says("belongs to PrepareIncoming"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "expire-usec", "u", 7));
    assert_true(says("must be of type 't'"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 2, "client-id", "s", "a", "client-id", "s", "b"));
    assert_true(says("given twice"));
    assert_string_equal(error_name, SD_BUS_ERROR_INVALID_ARGS);
}

TEST(streams_have_names_and_each_its_own)
{
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "streams", "as", 0));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "streams", "as", 1, "Migrate"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "streams", "as", 2, "a", "a"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "streams", "as", 1, "a-name-of-thirty-two-characters-"));
    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "streams", "as", 1, "a-name-of-thirty-one-characters"));
}

TEST(sockets_have_absolute_paths_that_fit_and_a_stream)
{
    char path[QEMU_SOCKET_PATH_MAX + 1];

    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[QEMU_SOCKET_PATH_MAX] = '\0';
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "sockets", "a{ss}", 1, "migrate", path));
    assert_string_equal(error_name, "org.vmferry.Error.PathTooLong");
    path[QEMU_SOCKET_PATH_MAX - 1] = '\0';
    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "sockets", "a{ss}", 1, "migrate", path));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "sockets", "a{ss}", 1, "migrate", "relative"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "sockets", "a{ss}", 1, "migrate", "/a\nb"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "sockets", "a{ss}", 2, "migrate", "/a", "migrate", "/b"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "sockets", "a{ss}", 1, "other", "/a"));
    assert_string_equal(error_name, "org.vmferry.Error.NoSuchStream");
}

TEST(endpoints_name_a_host)
{
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "endpoints", "as", 1, "tcp:*:7"));
    assert_true(says("it names no host"));
    assert_false(parse(ROLE_OUTGOING, "a{sv}", 1, "endpoint", "s", "example.com"));
    assert_true(parse(ROLE_OUTGOING, "a{sv}", 1, "endpoint", "s", "tcp:[2001:db8::1]:7"));
    assert_int_equal(options.n_endpoints, 1);
    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "endpoints", "as", 0));
    assert_true(options.no_endpoints);
}

TEST(numbers_have_a_range)
{
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "expire-usec", "t", (uint64_t)EXPIRE_MIN - 1));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "expire-usec", "t", (uint64_t)EXPIRE_MAX + 1));
    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "resume-timeout-usec", "t", UINT64_C(0)));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "resume-timeout-usec", "t", (uint64_t)EXPIRE_MAX + 1));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "client-id", "s", ""));
}

TEST(plain_is_allowed_by_the_host)
{
    config.allow_plain = false;
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "security", "s", "plain"));
    assert_string_equal(error_name, "org.vmferry.Error.SecurityMismatch");
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "security", "s", "none"));
    assert_true(parse(ROLE_OUTGOING, "a{sv}", 1, "security", "s", "plain")); /* the ticket decides */
}

TEST(a_layout_makes_all_paths)
{
    char name[LAYOUT_NAME_MAX + sizeof("libvirt:")];

    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "layout", "s", "libvirt:web1"));
    assert_string_equal(options.layout, "web1");
    assert_true(parse(ROLE_OUTGOING, "a{sv}", 1, "layout", "s", "libvirt:web1 at noon"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "layout", "s", "libvirt:"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "layout", "s", "xen:web1"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "layout", "s", "libvirt:../web1"));
    assert_true(says("libvirt:NAME"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "layout", "s", "libvirt:a\nb"));
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    memcpy(name, "libvirt:", strlen("libvirt:"));
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "layout", "s", name));
    assert_string_equal(error_name, "org.vmferry.Error.PathTooLong");
    assert_false(parse(ROLE_INCOMING, "a{sv}", 2, "sockets", "a{ss}", 1, "migrate", "/a", "layout", "s",
                       "libvirt:web1"));
    assert_true(says("leave 'sockets' out"));
}

TEST(libvirts_own_calls_have_no_path)
{
    assert_false(parse(ROLE_INCOMING, "a{sv}", 2, "streams", "as", 2, "migrate", "libvirt", "sockets",
                       "a{ss}", 1, "libvirt", "/run/libvirt/libvirt-sock"));
    assert_true(says("QEMU too, would have the rights"));
    assert_string_equal(error_name, SD_BUS_ERROR_INVALID_ARGS);
    assert_true(parse(ROLE_INCOMING, "a{sv}", 2, "streams", "as", 2, "migrate", "libvirt", "sockets", "a{ss}",
                      1, "libvirt", ""));
}

TEST(an_owner_is_looked_up_later)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    assert_true(parse(ROLE_INCOMING, "a{sv}", 0) && options_find_owner(&config, &options, 0, &error) >= 0);
    assert_false(options.has_owner);
    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "socket-owner", "s", "4711:4712"));
    assert_false(options.has_owner);
    assert_true(options_find_owner(&config, &options, 0, &error) >= 0);
    assert_true(options.has_owner && options.has_group);
    assert_int_equal(options.owner_uid, 4711);
    assert_int_equal(options.owner_gid, 4712);
    assert_true(parse(ROLE_INCOMING, "a{sv}", 1, "socket-owner", "s", "no-such-user-here"));
    assert_true(options_find_owner(&config, &options, 0, &error) < 0);
    assert_false(parse(ROLE_INCOMING, "a{sv}", 1, "socket-owner", "s", ":group"));
}

#define WITH_BUS(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUS(without_any_the_configuration_says),
        WITH_BUS(all_of_them_are_taken),
        WITH_BUS(an_option_is_known_of_its_method_of_its_type_and_there_once),
        WITH_BUS(streams_have_names_and_each_its_own),
        WITH_BUS(sockets_have_absolute_paths_that_fit_and_a_stream),
        WITH_BUS(endpoints_name_a_host),
        WITH_BUS(numbers_have_a_range),
        WITH_BUS(plain_is_allowed_by_the_host),
        WITH_BUS(a_layout_makes_all_paths),
        WITH_BUS(libvirts_own_calls_have_no_path),
        WITH_BUS(an_owner_is_looked_up_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
