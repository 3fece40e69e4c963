/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An ssh that is this program: $VMFERRY_SSH starts it again, and main() hands over to fake_ssh(). What it
 * does is told in its environment, by play() and by FAKE_…: FAKE_TELLS, it prints what it was started with;
 * FAKE_UNCONNECTED, a master never connects; FAKE_MASTER_ENDS, it connects and ends. Otherwise a master makes
 * the file at its ControlPath. Where no status is given, it is an echo until its stdin ends, and then exits
 * with ECHO_ENDED, which tells that no signal has ended it.
 *
 * The clock of vmferryctl is the case's: the linker puts what is below in the place of ctl_now() and
 * ctl_turn(). While time flies, a turn waits for nothing and takes as long as it may.
 */

#include "../failing.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "ctl/loop.h"

enum { ECHO_ENDED = 77 };

static struct rig {
    struct ctl ctl;
    struct trouble trouble;
    sigset_t mask;
    uint64_t now,
        passed; /* once time flies, else 0: what the clock stood at, and how far it is set forward */
    int stdin_kept, terminal;
    char runtime[64]; /* $XDG_RUNTIME_DIR */
} rig;

/* ---- The clock ---- */

uint64_t __real_ctl_now(void);
uint64_t __wrap_ctl_now(void);
int __real_ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble);
int __wrap_ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble);

uint64_t __wrap_ctl_now(void)
{
    return rig.now > 0 ? rig.now + rig.passed : __real_ctl_now();
}

int __wrap_ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble)
{
    if (rig.now == 0)
        return __real_ctl_turn(ctl, usec, trouble);
    rig.passed += usec;
    return __real_ctl_turn(ctl, 0, trouble);
}

__attribute__((unused)) static void let_time_fly(void)
{
    rig.now = __real_ctl_now();
}

/* ---- What is in the place of ssh ---- */

/* What each ssh from here on writes to its stdout and stderr, and the status that it ends with, or NULL. */
static void play(const char *out, const char *errors, const char *status)
{
    static const char *const names[] = {"FAKE_OUT", "FAKE_ERRORS", "FAKE_STATUS"};
    const char *const values[] = {out, errors, status};

    for (unsigned i = 0; i < ELEMENTS(names); i++)
        if (values[i])
            assert_int_equal(setenv(names[i], values[i], 1), 0);
        else
            assert_int_equal(unsetenv(names[i]), 0);
}

static bool blocked(int number)
{
    sigset_t mask;

    return sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, number) == 1;
}

static bool ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* What it was started with, as text. */
static void print_self(int argc, char **argv)
{
    static const struct {
        int number;
        const char *name;
    } signals[] = {{SIGINT, "INT"}, {SIGHUP, "HUP"}, {SIGTERM, "TERM"}, {SIGPIPE, "PIPE"}};
    int with_parent = 0;

    for (int i = 1; i < argc; i++)
        printf("%s\n", argv[i]);
    for (unsigned i = 0; i < ELEMENTS(signals); i++)
        printf("%s%s%s\n", signals[i].name, ignored(signals[i].number) ? " ignored" : "",
               blocked(signals[i].number) ? " blocked" : "");
    prctl(PR_GET_PDEATHSIG, &with_parent);
    printf("parent's end: %d\n", with_parent);
}

static void echo(void)
{
    char data[256];
    ssize_t n;

    while ((n = read(STDIN_FILENO, data, sizeof(data))) > 0)
        if (write(STDOUT_FILENO, data, (size_t)n) < 0)
            break;
}

static int fake_ssh(int argc, char **argv)
{
    const char *out = getenv("FAKE_OUT"), *errors = getenv("FAKE_ERRORS"), *status = getenv("FAKE_STATUS");
    const char *path = NULL;
    bool master = false;

    for (int i = 1; i < argc; i++) {
        master = master || strcmp(argv[i], "-oControlMaster=yes") == 0;
        if (strncmp(argv[i], "-oControlPath=", strlen("-oControlPath=")) == 0)
            path = argv[i] + strlen("-oControlPath=");
    }
    if (master && !getenv("FAKE_UNCONNECTED")) {
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        if (!getenv("FAKE_MASTER_ENDS"))
            echo();
        if (getenv("FAKE_MASTER_ENDS"))
            fputs("Broken pipe.\n", stderr);
        return ECHO_ENDED;
    }
    fputs(out ? out : "", stdout);
    if (getenv("FAKE_TELLS"))
        print_self(argc, argv);
    fputs(errors ? errors : "", stderr);
    fflush(NULL);
    if (status)
        return atoi(status);
    echo();
    return ECHO_ENDED;
}

/* This program is ssh, with these arguments before those of vmferryctl. By its path, for valgrind runs no
 * /proc/self/exe. */
static void be_ssh(const char *arguments)
{
    char path[PATH_MAX] = "", command[PATH_MAX + 64];

    assert_in_range(readlink("/proc/self/exe", path, sizeof(path) - 1), 1, sizeof(path) - 2);
    snprintf(command, sizeof(command), "%s %s", path, arguments);
    assert_int_equal(setenv("VMFERRY_SSH", command, 1), 0);
}

/* ---- A case ---- */

static void begin(void)
{
    rig = (struct rig){.stdin_kept = -1, .terminal = -1};
    rig.ctl.arguments.no_ask_password = true;
    play(NULL, NULL, NULL);
    unsetenv("FAKE_TELLS");
    unsetenv("FAKE_UNCONNECTED");
    unsetenv("FAKE_MASTER_ENDS");
    be_ssh("ssh");
    strcpy(rig.runtime, "/tmp/vmferry-test-ssh.XXXXXX");
    assert_non_null(mkdtemp(rig.runtime));
    assert_int_equal(setenv("XDG_RUNTIME_DIR", rig.runtime, 1), 0);
    assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &rig.mask), 0);
    assert_true(sd_event_new(&rig.ctl.event) >= 0);
}

/* Nothing of a case is left in its directory, nor a child (test_check()). */
static void end(void)
{
    sd_event_unref(rig.ctl.event);
    assert_int_equal(sigprocmask(SIG_SETMASK, &rig.mask, NULL), 0);
    if (rig.stdin_kept >= 0) {
        assert_int_equal(dup2(rig.stdin_kept, STDIN_FILENO), STDIN_FILENO);
        close(rig.stdin_kept);
        close(rig.terminal);
    }
    assert_int_equal(rmdir(rig.runtime), 0);
    trouble_clear(&rig.trouble);
}

/* vmferryctl runs at a terminal, where ssh may ask. */
__attribute__((unused)) static void at_a_terminal(void)
{
    int theirs;

    rig.terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(rig.terminal >= 0);
    assert_int_equal(grantpt(rig.terminal), 0);
    assert_int_equal(unlockpt(rig.terminal), 0);
    theirs = open(ptsname(rig.terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(theirs >= 0);
    rig.stdin_kept = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_int_equal(dup2(theirs, STDIN_FILENO), STDIN_FILENO);
    close(theirs);
    rig.ctl.arguments.no_ask_password = false;
}

/* What was to fail has failed: with this status, and these words. */
static void is_trouble(int r, int status, const char *text)
{
    assert_trouble(&rig.trouble, r, status, text);
}

static void is_fine(int r)
{
    if (r < 0)
        fail_msg("%s", rig.trouble.text);
}

/* All that comes from it until its end. */
__attribute__((unused)) static void read_all(int fd, char *ret, size_t size)
{
    size_t n = 0;

    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
    for (ssize_t r = 1; r > 0 && n < size - 1; n += (size_t)r) {
        r = read(fd, ret + n, size - 1 - n);
        assert_true(r >= 0);
    }
    ret[n] = '\0';
}

/* A line of a text is this one. */
__attribute__((unused)) static bool has_line(const char *text, const char *line)
{
    size_t n = strlen(line);

    for (const char *at = strstr(text, line); at; at = strstr(at + 1, line))
        if ((at == text || at[-1] == '\n') && (at[n] == '\n' || at[n] == '\0'))
            return true;
    return false;
}

/* What was let run has seen the end of its stdin, and no signal. */
__attribute__((unused)) static void one_was_left_and_ends(void)
{
    int status;

    assert_true(waitpid(-1, &status, 0) > 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), ECHO_ENDED);
}

#define RIG_MAIN(name, tests)                                        \
    int main(int argc, char **argv)                                  \
    {                                                                \
        if (argc > 1)                                                \
            return fake_ssh(argc, argv);                             \
        return cmocka_run_group_tests_name(name, tests, NULL, NULL); \
    }
