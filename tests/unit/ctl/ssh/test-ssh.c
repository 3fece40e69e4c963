/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One ssh as a child: what it is told, what it may do to vmferryctl, and what is made of its end. */

#include "ctl/ssh/rig.h"

#include "ctl/ssh/ssh.h"

#include <poll.h>

static const struct ssh_use alone = {.way = SSH_ALONE, .command = "vmferryctl stdio bus"};

static struct ssh *start(const struct ssh_use *use)
{
    struct ssh *ssh = NULL;

    is_fine(ssh_start(&rig.ctl, "host2", use, &ssh, &rig.trouble));
    return ssh;
}

/* What an ssh for this use has found about itself. */
static void self(const struct ssh_use *use, char *ret, size_t size)
{
    struct ssh *ssh;

    play(NULL, NULL, "0");
    setenv("FAKE_TELLS", "1", 1);
    setenv("FAKE_UNCONNECTED", "1", 1);
    ssh = start(use);
    read_all(ssh_fd(ssh), ret, size);
    ssh_free(ssh);
}

TEST(what_it_is_told)
{
    const struct ssh_use master = {
        .way = SSH_MASTER, .control = "/run/x/ssh", .stays = true, .command = "cat"};
    const struct ssh_use shared = {.way = SSH_SHARED, .control = "/run/x/ssh", .command = "true"};
    char text[4096];

    begin();
    self(&alone, text, sizeof(text));
    assert_true(has_line(text, "-oControlMaster=no"));
    assert_true(has_line(text, "-oControlPath=none"));
    assert_true(has_line(text, "-oControlPersist=no"));
    assert_true(has_line(text, "-oBatchMode=yes"));
    assert_non_null(strstr(text, "\n--\nhost2\nvmferryctl stdio bus\n")); /* no host is an option */
    self(&master, text, sizeof(text));
    assert_true(has_line(text, "-oControlMaster=yes"));
    assert_true(has_line(text, "-oControlPath=/run/x/ssh"));
    self(&shared, text, sizeof(text));
    assert_true(has_line(text, "-oControlMaster=no"));
    assert_true(has_line(text, "-oControlPath=/run/x/ssh"));
    end();
}

/* The first value that ssh finds for an option holds. */
TEST(the_user_comes_first)
{
    const char *users, *ours;
    char text[4096];

    begin();
    be_ssh("-oLogLevel=DEBUG  -p 2222");
    self(&alone, text, sizeof(text));
    users = strstr(text, "-oLogLevel=DEBUG\n-p\n2222\n");
    ours = strstr(text, "-oLogLevel=ERROR\n");
    assert_true(users && ours && users < ours);
    end();
}

TEST(it_asks_at_a_terminal_alone)
{
    char text[4096];

    begin();
    at_a_terminal();
    assert_true(ssh_may_ask(&rig.ctl));
    self(&alone, text, sizeof(text));
    assert_false(has_line(text, "-oBatchMode=yes"));
    assert_int_equal(ssh_patience(&rig.ctl), 300 * SECOND);
    rig.ctl.arguments.no_ask_password = true;
    assert_false(ssh_may_ask(&rig.ctl));
    assert_int_equal(ssh_patience(&rig.ctl), 60 * SECOND);
    end();
}

/* Nothing is started: a host from elsewhere may say "-oProxyCommand=…". */
TEST(what_is_no_host)
{
    struct ssh *ssh = NULL;

    begin();
    is_trouble(ssh_start(&rig.ctl, "-oProxyCommand=true", &alone, &ssh, &rig.trouble), STATUS_USAGE,
               "is no host");
    is_trouble(ssh_start(&rig.ctl, "", &alone, &ssh, &rig.trouble), STATUS_USAGE, "is no host");
    assert_null(ssh);
    end();
}

TEST(what_is_no_command)
{
    char many[80], path[200];
    const struct ssh_use deep = {.way = SSH_SHARED, .control = path, .command = "true"};
    struct ssh *ssh = NULL;

    begin();
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    is_trouble(ssh_start(&rig.ctl, "host2", &deep, &ssh, &rig.trouble), STATUS_USAGE, "too long");
    setenv("VMFERRY_SSH", "  ", 1);
    is_trouble(ssh_start(&rig.ctl, "host2", &alone, &ssh, &rig.trouble), STATUS_USAGE, "('  ')");
    for (unsigned i = 0; i < sizeof(many); i++)
        many[i] = i % 2 ? ' ' : 'x';
    many[sizeof(many) - 1] = '\0';
    setenv("VMFERRY_SSH", many, 1);
    is_trouble(ssh_start(&rig.ctl, "host2", &alone, &ssh, &rig.trouble), STATUS_USAGE, "too long");
    setenv("VMFERRY_SSH", "/nowhere/ssh", 1);
    ssh = start(&alone);
    is_trouble(ssh_failed(ssh, &rig.trouble), STATUS_FAILED, "/nowhere/ssh: No such file or directory");
    ssh_free(ssh);
    end();
}

/* Ctrl-C is vmferryctl's to decide on; what stays outlives it, and its terminal. */
TEST(signals)
{
    const struct ssh_use stays = {.way = SSH_ALONE, .stays = true, .command = "cat"};
    void (*hangup)(int) = signal(SIGHUP, SIG_DFL); /* ignored below nohup(1) */
    char text[4096];

    begin();
    signal(SIGPIPE, SIG_IGN);
    is_fine(ctl_catch_signals(&rig.ctl, &rig.trouble));
    self(&alone, text, sizeof(text));
    assert_true(has_line(text, "INT ignored blocked"));
    assert_true(has_line(text, "HUP"));
    assert_true(has_line(text, "TERM"));
    assert_true(has_line(text, "PIPE"));
    assert_true(has_line(text, "parent's end: 15"));
    self(&stays, text, sizeof(text));
    assert_true(has_line(text, "INT ignored blocked"));
    assert_true(has_line(text, "HUP ignored blocked"));
    assert_true(has_line(text, "TERM"));
    assert_true(has_line(text, "parent's end: 0"));
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, hangup);
    end();
}

TEST(bytes_go_both_ways)
{
    struct ssh *ssh;
    char text[16];
    int fd;

    begin();
    ssh = start(&alone);
    fd = ssh_take_fd(ssh);
    assert_int_equal(ssh_take_fd(ssh), -1); /* once */
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(write(fd, "there", 5), 5);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    read_all(fd, text, sizeof(text));
    assert_string_equal(text, "there");
    is_fine(ssh_hear_out(ssh, &rig.trouble));
    assert_true(ssh_ended(ssh));
    ssh_free(ssh);
    close(fd);
    end();
}

TEST(why_it_failed)
{
    static const struct {
        const char *errors, *ended;
        int status;
        const char *text;
    } cases[] = {
        {"vmferryctl: No migration.\n", "1", STATUS_FAILED, "At host2: No migration."},
        {"vmferryctl: May not.\nbye\n", "5", STATUS_DENIED, "At host2: May not."},
        {"vmferryctl: Odd.\n", "9", STATUS_FAILED, "ssh to host2 failed: Odd."},
        {"vmferryctl: Ends well.\n", "0", STATUS_FAILED, "ssh to host2 failed: Ends well."},
        {"sh: vmferryctl: not found\n", "127", STATUS_FAILED, "There is no vmferryctl at host2 (sh: "},
        {"Connection refused.\r\n", "255", STATUS_FAILED,
         "failed: Connection refused. Does 'ssh host2 true'"},
        {"", "255", STATUS_FAILED, "failed: it said nothing. Does 'ssh host2 true' work?"},
    };

    begin();
    for (unsigned i = 0; i < ELEMENTS(cases); i++) {
        struct ssh *ssh;

        play(NULL, cases[i].errors, cases[i].ended);
        ssh = start(&alone);
        is_trouble(ssh_failed(ssh, &rig.trouble), cases[i].status, cases[i].text);
        ssh_free(ssh);
    }
    end();
}

/* A banner, or a warning, is no reason for what happens after the greeting. */
TEST(what_was_said_before)
{
    struct ssh *ssh;

    begin();
    play(NULL, "Welcome.\n", "255");
    ssh = start(&alone);
    is_fine(ssh_hear_out(ssh, &rig.trouble));
    assert_string_equal(ssh_reason(ssh), "Welcome");
    ssh_is_through(ssh);
    assert_non_null(strstr(ssh_reason(ssh), "silent for 15 s"));
    ssh_free(ssh);
    end();
}

/* Its stdout is closed, but it does not end: that is waited for, but not for ever. */
TEST(last_words_have_an_end)
{
    struct pollfd p = {.events = POLLIN};
    struct ssh *ssh;
    char text[16];
    int fd;

    begin();
    play("up", NULL, NULL);
    ssh = start(&alone);
    p.fd = ssh_fd(ssh);
    assert_int_equal(poll(&p, 1, -1), 1); /* from here on a signal is its own, and ends it */
    assert_int_equal(read(p.fd, text, sizeof(text)), 2);
    let_time_fly();
    is_fine(ssh_hear_out(ssh, &rig.trouble));
    assert_false(ssh_ended(ssh));
    assert_int_equal(rig.passed, 5 * SECOND);
    assert_string_equal(ssh_reason(ssh), "");
    fd = ssh_take_fd(ssh);
    ssh_free(ssh); /* ends it, although its stdin is open: no child is left */
    close(fd);
    end();
}

TEST(one_that_is_left_runs_on)
{
    struct ssh *ssh;
    char text[16];
    int fd;

    begin();
    ssh = start(&alone);
    fd = ssh_take_fd(ssh);
    ssh_leave(ssh);
    assert_int_equal(write(fd, "still", 5), 5);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    read_all(fd, text, sizeof(text));
    assert_string_equal(text, "still");
    close(fd);
    one_was_left_and_ends();
    ssh_leave(start(&alone)); /* its stdin was not given away: that ends */
    one_was_left_and_ends();
    end();
}

static const struct CMUnitTest tests[] = {
    CASE(what_it_is_told),
    CASE(the_user_comes_first),
    CASE(it_asks_at_a_terminal_alone),
    CASE(what_is_no_host),
    CASE(what_is_no_command),
    CASE(signals),
    CASE(bytes_go_both_ways),
    CASE(why_it_failed),
    CASE(what_was_said_before),
    CASE(last_words_have_an_end),
    CASE(one_that_is_left_runs_on),
};

RIG_MAIN("ctl-ssh-ssh", tests)
