/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ssh that others go through: one a host, where ssh may ask, in a directory that goes with it. */

#include "ctl/ssh/rig.h"

#include "ctl/ssh/master.h"

static const char *get(const char *host)
{
    static const char *path;

    path = NULL;
    is_fine(master_get(&rig.ctl, host, &path, &rig.trouble));
    return path;
}

/* How many directories of masters there are. */
static unsigned directories(void)
{
    DIR *dir = opendir(rig.runtime);
    unsigned n = 0;

    assert_non_null(dir);
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

TEST(there_is_none_where_ssh_may_not_ask)
{
    begin();
    assert_null(get("host2"));
    assert_null(rig.ctl.masters);
    assert_string_equal(master_reason(&rig.ctl, "host2"), "");
    master_leave(&rig.ctl, "host2");
    master_free_all(&rig.ctl);
    end();
}

TEST(one_a_host)
{
    const char *path;
    char directory[128];
    struct stat st;

    begin();
    at_a_terminal();
    path = get("host2");
    assert_int_equal(strncmp(path, rig.runtime, strlen(rig.runtime)), 0);
    snprintf(directory, sizeof(directory), "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(stat(directory, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_ptr_equal(get("host2"), path);
    assert_string_not_equal(get("host3"), path);
    assert_ptr_equal(get("host2"), path);
    assert_int_equal(directories(), 2);
    master_free_all(&rig.ctl); /* ends both, and removes what they had: end() and test_check() look */
    assert_null(rig.ctl.masters);
    end();
}

TEST(ctrl_c_is_caught_before_ssh_asks)
{
    const char *path = NULL;

    begin();
    at_a_terminal();
    setenv("FAKE_UNCONNECTED", "1", 1); /* it connects to nothing, and does not end */
    is_fine(ctl_catch_signals(&rig.ctl, &rig.trouble));
    assert_int_equal(kill(getpid(), SIGINT), 0);
    is_trouble(master_get(&rig.ctl, "host2", &path, &rig.trouble), STATUS_CANCELLED,
               "Interrupted while ssh was connecting to host2");
    assert_null(path);
    end();
}

TEST(it_is_caught_by_the_master_itself)
{
    begin();
    at_a_terminal();
    assert_non_null(get("host2"));
    assert_true(rig.ctl.signals);
    master_free_all(&rig.ctl);
    end();
}

TEST(one_that_does_not_connect)
{
    const char *path = NULL;

    begin();
    at_a_terminal();
    setenv("FAKE_UNCONNECTED", "1", 1);
    play(NULL, "Permission denied.\n", "255");
    is_trouble(master_get(&rig.ctl, "host2", &path, &rig.trouble), STATUS_FAILED,
               "ssh to host2 failed: Permission denied. Does");
    play(NULL, NULL, NULL);
    let_time_fly();
    is_trouble(master_get(&rig.ctl, "ho st", &path, &rig.trouble), STATUS_TIMED_OUT,
               "Does 'ssh 'ho st' true'");
    assert_int_equal(rig.passed, 300 * SECOND);
    assert_null(rig.ctl.masters);
    end();
}

TEST(one_that_has_ended_is_replaced)
{
    const char *path;

    begin();
    at_a_terminal();
    setenv("FAKE_MASTER_ENDS", "1", 1);
    get("host2");
    while (master_reason(&rig.ctl, "host2")[0] == '\0')
        is_fine(ctl_turn(&rig.ctl, SECOND, &rig.trouble));
    assert_string_equal(master_reason(&rig.ctl, "host2"), "Broken pipe");
    assert_string_equal(master_reason(&rig.ctl, "host3"), "");
    unsetenv("FAKE_MASTER_ENDS");
    path = get("host2");
    assert_int_equal(access(path, F_OK), 0);
    assert_string_equal(master_reason(&rig.ctl, "host2"), "");
    assert_int_equal(directories(), 1);
    master_free_all(&rig.ctl);
    end();
}

/* Post-copy goes on without vmferryctl. */
TEST(one_that_is_left_runs_on)
{
    begin();
    at_a_terminal();
    get("host2");
    get("host3");
    master_leave(&rig.ctl, "host3");
    master_free_all(&rig.ctl);
    one_was_left_and_ends(); /* and the other one was ended, and waited for */
    end();
}

/* A name that ssh would read as more than a name is not given to it. */
TEST(directories_that_ssh_can_name)
{
    static const char *const others[] = {
        "",
        "run",
        "/run/%u",
        "/run/$HOME",
        "/run/a b",
        "/a-directory-whose-name-is-too-long-for-the-path-of-a-socket-of-ssh",
        "/nowhere/at-all"};

    begin();
    at_a_terminal();
    for (unsigned i = 0; i < ELEMENTS(others); i++) {
        const char *path;

        setenv("XDG_RUNTIME_DIR", others[i], 1);
        path = get("host2");
        assert_int_equal(strncmp(path, "/tmp/vmferryctl-ssh-", strlen("/tmp/vmferryctl-ssh-")), 0);
        master_free_all(&rig.ctl);
    }
    end();
}

/* Where ssh does not ask, the first connection of a domain's carries those that follow while it is there. */
TEST(one_login_is_enough)
{
    struct ssh_use first = {.command = "one"}, second = {.command = "two"}, third = {.command = "three"};
    char path[128];
    int fd;

    begin();
    is_fine(master_lead(&rig.ctl, "host2", &first, &rig.trouble));
    assert_null(first.control); /* one_login is not set */
    rig.ctl.one_login = true;
    is_fine(master_lead(&rig.ctl, "host2", &first, &rig.trouble));
    assert_int_equal(first.way, SSH_MASTER);
    assert_false(first.stays);
    assert_string_equal(first.command, "one");
    is_fine(master_lead(&rig.ctl, "host2", &second, &rig.trouble)); /* it has not come through yet */
    assert_int_equal(second.way, SSH_ALONE);
    assert_null(second.control);
    snprintf(path, sizeof(path), "%s", first.control);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    is_fine(master_lead(&rig.ctl, "host2", &second, &rig.trouble));
    assert_int_equal(second.way, SSH_SHARED);
    assert_string_equal(second.control, path);
    assert_string_equal(second.command, "two");
    assert_null(get("host2")); /* what may outlive vmferryctl has a connection of its own */
    assert_string_equal(master_reason(&rig.ctl, "host2"), "");
    assert_int_equal(unlink(path), 0); /* it has ended */
    is_fine(master_lead(&rig.ctl, "host2", &third, &rig.trouble));
    assert_int_equal(third.way, SSH_ALONE);
    assert_int_equal(directories(), 1);
    master_free_all(&rig.ctl);
    end();
}

static const struct CMUnitTest tests[] = {
    CASE(there_is_none_where_ssh_may_not_ask),
    CASE(one_a_host),
    CASE(ctrl_c_is_caught_before_ssh_asks),
    CASE(it_is_caught_by_the_master_itself),
    CASE(one_that_does_not_connect),
    CASE(one_that_has_ended_is_replaced),
    CASE(one_that_is_left_runs_on),
    CASE(directories_that_ssh_can_name),
    CASE(one_login_is_enough),
};

RIG_MAIN("ctl-ssh-master", tests)
