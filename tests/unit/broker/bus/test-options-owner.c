/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/bus/options.h"
#include "common/cleanup.h"

#include <grp.h>
#include <pwd.h>

/* The user database: how often it was asked. It knows nobody. */
static unsigned asked;

int __wrap_getpwnam_r(const char *name, struct passwd *pw, char *buf, size_t size, struct passwd **ret);
int __wrap_getpwuid_r(uid_t uid, struct passwd *pw, char *buf, size_t size, struct passwd **ret);
int __wrap_getgrnam_r(const char *name, struct group *gr, char *buf, size_t size, struct group **ret);

int __wrap_getpwnam_r(const char *name, struct passwd *pw, char *buf, size_t size, struct passwd **ret)
{
    asked++;
    *ret = NULL;
    return 0;
}

int __wrap_getpwuid_r(uid_t uid, struct passwd *pw, char *buf, size_t size, struct passwd **ret)
{
    asked++;
    *ret = NULL;
    return 0;
}

int __wrap_getgrnam_r(const char *name, struct group *gr, char *buf, size_t size, struct group **ret)
{
    asked++;
    *ret = NULL;
    return 0;
}

static bool finds_with(const struct config *config, uid_t caller, const char *text, const char *layout,
                       struct options *ret)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    *ret = (struct options){0};
    snprintf(ret->owner, sizeof(ret->owner), "%s", text);
    snprintf(ret->layout, sizeof(ret->layout), "%s", layout);
    asked = 0;
    return options_find_owner(config, ret, caller, &error) >= 0;
}

static bool finds(uid_t caller, const char *text, struct options *ret)
{
    const struct config config = {.bus = BUS_SYSTEM};

    return finds_with(&config, caller, text, "", ret);
}

TEST(for_a_layout_the_administrator_names_the_user)
{
    const uid_t user = geteuid() + 4711;
    char *users[] = {(char[]){"no-such-user"}, (char[]){"4712"}};
    struct config config = {.bus = BUS_SYSTEM, .libvirt_user = {.items = {users[0], users[1]}, .n = 2}};
    struct options options;
    char text[32];

    assert_true(finds_with(&config, user, "", "web1", &options));
    assert_true(options.has_owner && !options.has_group && options.owner_uid == 4712);
    assert_int_equal(asked, 2);
    config.libvirt_user.n = 1;
    assert_false(finds_with(&config, user, "", "web1", &options));
    config.libvirt_user.n = 0;
    assert_false(finds_with(&config, user, "", "web1", &options));
    snprintf(text, sizeof(text), "%u", user);
    assert_false(finds_with(&config, user, text, "web1", &options));
    assert_true(finds_with(&config, geteuid(), "4713:4713", "web1", &options)); /* root may say */
    assert_int_equal(options.owner_uid, 4713);
    config.bus = BUS_USER; /* gives nothing away */
    assert_true(finds_with(&config, user, "", "web1", &options));
    assert_false(options.has_owner);
}

TEST(a_user_names_itself_by_number_and_nothing_is_looked_up)
{
    const uid_t user = geteuid() + 4711;
    struct options options;
    char text[32];

    snprintf(text, sizeof(text), "%u", user);
    assert_true(finds(user, text, &options));
    assert_true(options.has_owner && !options.has_group && options.owner_uid == user);
    assert_true(options.owner_gid == (gid_t)-1);
    for (const char *const *bad = (const char *const[]){"0", "root", "nobody", "04711", "4711:0", NULL}; *bad;
         bad++)
        assert_false(finds(user, *bad, &options));
    snprintf(text, sizeof(text), "%u:%u", user, user);
    assert_false(finds(user, text, &options));
    assert_true(finds(user, "", &options));
    assert_int_equal(asked, 0);
}

TEST(for_the_brokers_user_names_are_looked_up)
{
    struct options options;

    assert_false(finds(geteuid(), "nobody", &options));
    assert_int_equal(asked, 1);
    assert_true(finds(geteuid(), "65534", &options)); /* for its group */
    assert_int_equal(asked, 1);
    assert_true(finds(geteuid(), "65534:65534", &options));
    assert_int_equal(asked, 0);
    assert_int_equal(options.owner_gid, 65534);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_user_names_itself_by_number_and_nothing_is_looked_up),
        CASE(for_the_brokers_user_names_are_looked_up),
        CASE(for_a_layout_the_administrator_names_the_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
