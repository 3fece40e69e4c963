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

static bool finds(uid_t caller, const char *text, struct options *ret)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    *ret = (struct options){0};
    snprintf(ret->owner, sizeof(ret->owner), "%s", text);
    asked = 0;
    return options_find_owner(ret, caller, &error) >= 0;
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
