/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which migration is meant. The caller is user 1000; 107 is QEMU's. */

#include "rig.h"

#include "ctl/bus/find.h"

#define A "aaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbb"
#define C "cccccccccccccccc"

#define ROWS(...) ((const struct row[]){__VA_ARGS__, {0}})

static void broker_has(const struct row *rows)
{
    begin();
    rig.answer = list_migrations;
    rig.rows = rows;
}

static int find(const char *text, struct found *ret)
{
    return find_one(&rig.side, text, ret, &rig.trouble);
}

static void finds(const char *text, const char *role, const char *id)
{
    struct found found;

    if (find(text, &found) < 0)
        fail_msg("%s: %s", text, rig.trouble.text);
    assert_string_equal(found.role, role);
    assert_string_equal(found.id, id);
}

static void runs(const char *text, const char *id)
{
    struct found found = {0};

    assert_int_equal(find_running(&rig.side, text, "incoming", 107, &found, &rig.trouble), id != NULL);
    if (id)
        assert_string_equal(found.id, id);
}

static int find_there(const char *text)
{
    struct found found;

    return find_running(&rig.side, text, "incoming", 107, &found, &rig.trouble);
}

TEST(by_id_or_role_or_vm)
{
    struct found found;

    broker_has(ROWS({A, "web1", "incoming", "active", 1000}, {A, "web1", "outgoing", "active", 1000},
                    {B, "db2", "incoming", "waiting", 1000}));
    finds(B, "incoming", B);
    finds("db2", "incoming", B);
    finds("outgoing/" A, "outgoing", A);
    is_trouble(find(A, &found), STATUS_USAGE, "can mean incoming/" A);
    is_trouble(find("web1", &found), STATUS_USAGE, "Say which.");
    is_trouble(find("web", &found), STATUS_FAILED, "no VM with one, of the name 'web'");
    end();
}

TEST(one_that_runs_comes_before_finished_ones)
{
    broker_has(ROWS({A, "web1", "incoming", "finished", 1000}, {B, "web1", "incoming", "active", 1000},
                    {C, "web1", "incoming", "finished", 1000}));
    finds("web1", "incoming", B);
    rig.rows = ROWS({A, "web1", "incoming", "finished", 1000}, {B, "web1", "incoming", "finished", 1000});
    finds("web1", "incoming", B); /* the newest one */
    end();
}

/* Another user may have given theirs the same name; an id is nobody's to choose. */
TEST(a_name_finds_only_the_callers_own)
{
    struct found found;

    broker_has(ROWS({A, "web1", "incoming", "active", 1001}, {B, "web1", "incoming", "active", 1000},
                    {C, "db2", "incoming", "active", 1001}));
    finds("web1", "incoming", B);
    finds(A, "incoming", A);
    is_trouble(find("db2", &found), STATUS_FAILED,
               "one of another user: incoming/" C " (of user 1001, active)");
    end();
}

/* A VM may be called as another one's id. */
TEST(an_id_comes_before_a_name)
{
    broker_has(ROWS({A, B, "incoming", "active", 1000}, {B, "db2", "incoming", "active", 1000}));
    finds(B, "incoming", B);
    rig.rows = ROWS({A, B, "incoming", "active", 1000});
    finds(B, "incoming", A);
    end();
}

TEST(a_socket_that_qemu_may_be_told_to_use)
{
    broker_has(ROWS({A, "web1", "incoming", "active", 107}, {B, "db2", "incoming", "active", 1000},
                    {C, "old", "incoming", "finished", 1000}));
    runs("db2", B);
    runs("web1", NULL); /* QEMU's user does not count where the caller is not root */
    runs("old", NULL);
    runs("none", NULL);
    is_trouble(find_there(A), STATUS_DENIED, "is of user 107");
    is_trouble(find_there(C), STATUS_FAILED, "has ended");
    is_trouble(find_there("dddddddddddddddd"), STATUS_FAILED, "any more");
    rig.side.uid = 0;
    runs("web1", A);
    runs("db2", NULL); /* not even to root's QEMU is a third user's told */
    end();
}

TEST(names_are_made_printable)
{
    struct found *all = NULL;
    size_t n = 0;

    broker_has(ROWS({"\x1b]0;x", "we\tb", "incoming", "a state that is much too long", 1000}));
    assert_int_equal(find_all(&rig.side, &all, &n, &rig.trouble), 0);
    assert_int_equal(n, 1);
    assert_string_equal(all[0].vm, "we?b");
    assert_string_equal(all[0].id, "?]0;x");
    assert_int_equal(strlen(all[0].state), FIND_STATE_MAX - 1);
    free(all);
    end();
}

static int say_another_type(sd_bus_message *reply)
{
    return sd_bus_message_append(reply, "as", 1, "web1");
}

TEST(an_answer_that_is_no_list)
{
    struct found *all = NULL;
    size_t n = 0;

    begin();
    rig.answer = say_another_type;
    is_trouble(find_all(&rig.side, &all, &n, &rig.trouble), STATUS_FAILED, "cannot be understood");
    assert_null(all);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(by_id_or_role_or_vm),
        CASE(one_that_runs_comes_before_finished_ones),
        CASE(a_name_finds_only_the_callers_own),
        CASE(an_id_comes_before_a_name),
        CASE(a_socket_that_qemu_may_be_told_to_use),
        CASE(names_are_made_printable),
        CASE(an_answer_that_is_no_list),
    };

    return cmocka_run_group_tests_name("ctl-bus-find", tests, NULL, NULL);
}
