/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* vmferryctl at another host: how it is called, its greeting, and what is said where none comes. */

#include "ctl/ssh/rig.h"

#include "ctl/ssh/master.h"
#include "ctl/ssh/remote.h"

static const char *const bus[] = {"bus", NULL};

static struct remote *open_bus(void)
{
    struct remote *remote = NULL;

    is_fine(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble));
    return remote;
}

TEST(a_greeting_says_who_and_where)
{
    static const struct {
        const char *greeting, *address;
        uid_t uid;
    } cases[] = {
        {"vmferryctl stdio 1 0\n", "", 0},
        {"vmferryctl stdio 1 4294967295\n", "", 4294967295},
        {"vmferryctl stdio 1 1000 192.0.2.7\n", "192.0.2.7", 1000},
        {"vmferryctl stdio 1 1000 fd00::7\n", "fd00::7", 1000},
        {"vmferryctl stdio 1 1000 host2.example\n", "", 1000}, /* no address: nothing is connected to it */
    };

    begin();
    for (unsigned i = 0; i < ELEMENTS(cases); i++) {
        struct remote *remote;

        play(cases[i].greeting, NULL, NULL);
        remote = open_bus();
        assert_int_equal(remote_uid(remote), cases[i].uid);
        assert_string_equal(remote_address(remote), cases[i].address);
        assert_false(remote_ended(remote));
        remote_free(remote);
    }
    end();
}

TEST(what_follows_the_greeting_is_the_callers)
{
    struct remote *remote;
    char text[64];
    int fd;

    begin();
    play("vmferryctl stdio 1 0\nAUTH", "Welcome.\n", NULL);
    remote = open_bus();
    fd = remote_take_fd(remote);
    assert_int_equal(remote_take_fd(remote), -1);
    assert_int_equal(write(fd, " EXTERNAL", 9), 9);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    read_all(fd, text, sizeof(text));
    assert_string_equal(text, "AUTH EXTERNAL");
    is_fine(remote_hear_out(remote, &rig.trouble));
    assert_true(remote_ended(remote));
    remote_free(remote);
    close(fd);
    end();
}

TEST(what_is_no_greeting)
{
    static const char *const greetings[] = {
        "Welcome to host2\nvmferryctl stdio 1 0\n",
        "vmferryctl stdio 2 0\n",
        "vmferryctl stdio 1 \n",
        "vmferryctl stdio 1 -1\n",
        "vmferryctl stdio 1 x\n",
        "vmferryctl stdio 1 4294967296\n",
        "vmferryctl stdio 1",
    };
    struct remote *remote = NULL;
    char much[4096];

    begin();
    for (unsigned i = 0; i < ELEMENTS(greetings); i++) {
        play(greetings[i], NULL, "0");
        is_trouble(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble), STATUS_FAILED,
                   "is no answer of vmferryctl at host2");
    }
    memset(much, 'x', sizeof(much) - 1);
    much[sizeof(much) - 1] = '\0';
    play(much, NULL, NULL); /* and no end of the line */
    is_trouble(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble), STATUS_FAILED,
               "is no answer of vmferryctl at host2");
    assert_null(remote);
    end();
}

/* Its arguments are words there as they are here. */
TEST(no_shell_reads_what_is_asked_for)
{
    static const char *const what[] = {"qemu", "/run/a b/$(id).sock", "it's", NULL};
    struct remote *remote = NULL;
    char text[4096];

    begin();
    rig.ctl.arguments.user = true;
    play("vmferryctl stdio 1 0\n", NULL, "0");
    setenv("FAKE_TELLS", "1", 1);
    is_fine(remote_open(&rig.ctl, "host2", false, what, &remote, &rig.trouble));
    _cleanup_fd_ int fd = remote_take_fd(remote);
    read_all(fd, text, sizeof(text));
    assert_true(has_line(text, "vmferryctl --user stdio qemu '/run/a b/$(id).sock' 'it'\\''s'"));
    assert_true(has_line(text, "-oControlPath=none"));
    remote_free(remote);
    end();
}

TEST(a_command_has_a_length)
{
    char path[5000];
    const char *what[] = {"qemu", path, NULL};
    struct remote *remote = NULL;

    begin();
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    is_trouble(remote_open(&rig.ctl, "host2", false, what, &remote, &rig.trouble), STATUS_USAGE, "too long");
    end();
}

TEST(one_that_fails_says_why)
{
    struct remote *remote = NULL;

    begin();
    play(NULL, "vmferryctl: There is no QEMU.\n", "1");
    is_trouble(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble), STATUS_FAILED,
               "At host2: There is no QEMU.");
    play(NULL, "sh: vmferryctl: not found\n", "127");
    is_trouble(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble), STATUS_FAILED,
               "There is no vmferryctl at host2");
    assert_null(remote);
    end();
}

TEST(one_that_never_answers)
{
    struct remote *remote = NULL;

    begin();
    let_time_fly();
    is_trouble(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble), STATUS_TIMED_OUT,
               "did not get through in time");
    assert_int_equal(rig.passed, 60 * SECOND);
    rig.now = 0;
    is_fine(ctl_catch_signals(&rig.ctl, &rig.trouble));
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    is_trouble(remote_open(&rig.ctl, "host2", false, bus, &remote, &rig.trouble), STATUS_CANCELLED,
               "Interrupted");
    assert_null(remote);
    end();
}

TEST(the_reason_may_be_the_masters)
{
    struct remote *remote;

    begin();
    at_a_terminal();
    setenv("FAKE_MASTER_ENDS", "1", 1);
    play("vmferryctl stdio 1 0\n", NULL, NULL);
    remote = open_bus();
    assert_non_null(rig.ctl.masters);
    while (remote_reason(remote)[0] == '\0')
        is_fine(ctl_turn(&rig.ctl, SECOND, &rig.trouble));
    assert_string_equal(remote_reason(remote), "Broken pipe");
    assert_false(remote_ended(remote));
    remote_free(remote);
    master_free_all(&rig.ctl);
    end();
}

/* A channel in post-copy: its ssh runs on, and so does the one that it goes through. */
TEST(one_that_is_left_keeps_its_master)
{
    struct remote *remote;
    int fd;

    begin();
    at_a_terminal();
    play("vmferryctl stdio 1 0\n", NULL, NULL);
    remote = open_bus();
    fd = remote_take_fd(remote);
    remote_leave(remote);
    master_free_all(&rig.ctl);
    one_was_left_and_ends();
    close(fd);
    one_was_left_and_ends();
    end();
}

static const struct CMUnitTest tests[] = {
    CASE(a_greeting_says_who_and_where),
    CASE(what_follows_the_greeting_is_the_callers),
    CASE(what_is_no_greeting),
    CASE(no_shell_reads_what_is_asked_for),
    CASE(a_command_has_a_length),
    CASE(one_that_fails_says_why),
    CASE(one_that_never_answers),
    CASE(the_reason_may_be_the_masters),
    CASE(one_that_is_left_keeps_its_master),
};

RIG_MAIN("ctl-ssh-remote", tests)
