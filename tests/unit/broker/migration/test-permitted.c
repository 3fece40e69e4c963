/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/config/settings.h"
#include "broker/migration/permitted.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"

/* What a caller may ask for that is neither root nor the broker's user. */

enum { SOME_UID = 54321, OTHER_UID = 54322 };

static struct config config;
static struct options options;
static char error_name[128];

static int set_up(void **state)
{
    config_init(&config);
    config_finish(&config);
    options = (struct options){.n_streams = 1, .streams = {"migrate"}};
    return 0;
}

static int tear_down(void **state)
{
    options_clear(&options);
    config_clear(&config);
    return 0;
}

static bool may(uid_t uid)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int r = permitted_options(&config, uid, &options, &error);

    snprintf(error_name, sizeof(error_name), "%s", error.name ? error.name : "");
    return r >= 0;
}

static bool may_dial(uid_t uid, const char *first, const char *second)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    options.n_endpoints = second ? 2 : 1;
    strcpy(options.endpoints[0], first);
    strcpy(options.endpoints[1], second ? second : "");
    return permitted_endpoints(&config, uid, &options, &error) >= 0;
}

TEST(sockets_are_for_the_caller_alone)
{
    assert_true(may(SOME_UID));
    options.has_owner = true;
    options.owner_uid = SOME_UID;
    assert_true(may(SOME_UID));
    assert_false(may(OTHER_UID));
    assert_string_equal(error_name, SD_BUS_ERROR_ACCESS_DENIED);
    assert_true(may(0));
    options.has_group = true;
    assert_false(may(SOME_UID));
}

TEST(paths_are_below_the_allowed_directories)
{
    options.sockets[0] = strdup("/run/user/54321/qemu.sock");
    assert_true(may(SOME_UID));
    assert_false(may(OTHER_UID)); /* %U is each user's own */
    assert_string_equal(error_name, "org.vmferry.Error.PathNotAllowed");
    assert_true(may(0));
    free(options.sockets[0]);
    options.sockets[0] = strdup("/run/user/543210/qemu.sock"); /* begins alike */
    assert_false(may(SOME_UID));
    free(options.sockets[0]);
    options.sockets[0] = strdup(""); /* none: callers bring its sockets */
    assert_true(may(SOME_UID));
}

TEST(one_endpoint_that_may_be_dialled_is_enough)
{
    assert_true(may_dial(SOME_UID, "tcp:192.0.2.1", NULL));
    assert_true(may_dial(SOME_UID, "unix:/run/user/54321/peer", NULL));
    assert_false(may_dial(SOME_UID, "unix:/run/peer", NULL));
    assert_true(may_dial(SOME_UID, "unix:/run/peer", "tcp:192.0.2.1"));
    assert_true(may_dial(0, "unix:/run/peer", NULL));
}

TEST(a_scope_says_what_a_path_may_lead_to)
{
    struct socket_scope scope;

    assert_true(deputy_scope(&config, 0, "/anything", &scope) > 0);
    assert_int_equal(deputy_scope(&config, SOME_UID, "/run/user/54321/a/b", &scope), 0);
    assert_true(scope.restricted);
    assert_int_equal(scope.uid, SOME_UID);
    assert_int_equal(scope.beneath, strlen("/run/user/54321"));
    assert_int_equal(deputy_scope(&config, SOME_UID, "/run", &scope), -EOUTSIDE);
    assert_non_null(deputy_why(-EOUTSIDE));
    assert_null(deputy_why(-ENOENT));
}

#define WITH_CONFIG(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CONFIG(sockets_are_for_the_caller_alone),
        WITH_CONFIG(paths_are_below_the_allowed_directories),
        WITH_CONFIG(one_endpoint_that_may_be_dialled_is_enough),
        WITH_CONFIG(a_scope_says_what_a_path_may_lead_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
