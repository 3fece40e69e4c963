/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stand-ins.h"

#include "broker/log.h"

/* The FD store, with a stand-in for the service manager. */

static int some_fd(void)
{
    return stand_in_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

TEST(what_is_put_comes_back_until_it_is_removed)
{
    struct stand_ins stand_ins;
    struct store *store;
    int fd = some_fd(), taken;

    stand_ins_open(&stand_ins, true);
    assert_true(store_new(&store) >= 0);
    assert_true(store_put(store, "a", fd, 0));
    assert_true(store_put(store, "b", fd, 0));
    assert_false(store_put(store, "a", fd, 0)); /* a name is that of one descriptor */
    store_remove(store, "b", -1);
    store_free(store);
    stand_in_hand_back(&stand_ins);
    assert_int_equal(stand_ins.n_stored, 1);
    assert_true(store_new(&store) >= 0);
    assert_string_equal(store_next(store, NULL), "a");
    assert_null(store_next(store, "a"));
    taken = store_take(store, "a");
    assert_true(taken >= 0);
    assert_int_equal(store_take(store, "a"), -1);
    assert_null(store_next(store, NULL));
    assert_int_equal(stand_ins.n_barriers, 0);
    store_remove(store, "a", taken); /* it is stored until then */
    stand_in_manage(&stand_ins);
    assert_int_equal(stand_ins.n_stored, 0);
    assert_int_equal(stand_ins.n_barriers, 1); /* so that the manager's close is not the last */
    close(taken);
    close(fd);
    store_free(store);
    stand_ins_close(&stand_ins);
}

TEST(what_nobody_took_is_dropped)
{
    struct stand_ins stand_ins;
    struct store *store;
    int fd = some_fd();

    stand_ins_open(&stand_ins, true);
    assert_true(store_new(&store) >= 0);
    assert_true(store_put(store, "a", fd, 0));
    store_free(store);
    stand_in_hand_back(&stand_ins);
    assert_true(store_new(&store) >= 0);
    store_drop_rest(store);
    stand_in_manage(&stand_ins);
    assert_int_equal(stand_ins.n_stored, 0);
    assert_int_equal(stand_ins.n_barriers, 1);
    close(fd);
    store_free(store);
    stand_ins_close(&stand_ins);
}

TEST(room_is_left_for_others)
{
    struct stand_ins stand_ins;
    struct store *store;
    int fd = some_fd();

    stand_ins_open(&stand_ins, true);
    setenv("FDSTORE", "3", 1);
    assert_true(store_new(&store) >= 0);
    unsetenv("FDSTORE");
    assert_true(store_has_room(store, 3));
    assert_false(store_has_room(store, 4));
    assert_true(store_put(store, "a", fd, 1));
    assert_false(store_put(store, "b", fd, 2));
    assert_true(store_put(store, "b", fd, 1));
    close(fd);
    store_free(store);
    stand_ins_close(&stand_ins);
}

TEST(a_frozen_one_changes_no_more)
{
    struct stand_ins stand_ins;
    struct store *store;
    int fd = some_fd();

    stand_ins_open(&stand_ins, true);
    assert_true(store_new(&store) >= 0);
    assert_true(store_put(store, "a", fd, 0));
    assert_false(store_frozen(store));
    store_freeze(store);
    assert_true(store_frozen(store));
    store_remove(store, "a", fd);
    assert_false(store_put(store, "b", fd, 0));
    stand_in_manage(&stand_ins);
    assert_int_equal(stand_ins.n_stored, 1);
    close(fd);
    store_free(store);
    stand_ins_close(&stand_ins);
}

TEST(without_a_manager_nothing_is_stored)
{
    struct stand_ins stand_ins;
    struct store *store;
    int fd = some_fd();

    stand_ins_open(&stand_ins, false);
    assert_true(store_new(&store) >= 0);
    assert_false(store_active(store));
    assert_false(store_put(store, "a", fd, 0));
    assert_true(store_has_room(store, STORE_MAX + 1));
    store_freeze(store);
    assert_false(store_frozen(store)); /* nothing stays: what is made has to be removed */
    close(fd);
    store_free(store);
    stand_ins_close(&stand_ins);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_put_comes_back_until_it_is_removed),
        CASE(what_nobody_took_is_dropped),
        CASE(room_is_left_for_others),
        CASE(a_frozen_one_changes_no_more),
        CASE(without_a_manager_nothing_is_stored),
    };

    log_open(LOG_EMERG);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
