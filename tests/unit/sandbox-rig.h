/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A body that runs in a child, in the sandbox as deep as a case wants. */

#include "test-util.h"

#include "helper/sandbox.h"

#include <sys/resource.h>

/* How far a child goes before its body runs. */
enum depth {
    OPEN,     /* not at all */
    ISOLATED, /* sandbox_isolate() */
    LOCKED,   /* and sandbox_lock() */
    RELAY,    /* and sandbox_narrow(false) */
    GATE,     /* and sandbox_narrow(true) */
};

static inline void require_at(bool ok, const char *what)
{
    if (ok)
        return;
    if (write(STDERR_FILENO, what, strlen(what)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

/* In a child, where cmocka's checks have nowhere to jump to. */
#define REQUIRE(condition) require_at(condition, #condition)

/*
 * Runs body in a child that is so deep, with one end of a socket pair as its only descriptor; the other end
 * is fed a byte. Returns what waitpid(2) gave.
 */
static inline int in_child(enum depth depth, void (*body)(int fd))
{
    int pair[2], status;
    pid_t pid;

    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(send(pair[0], "x", 1, 0), 1);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit no_core = {0, 0};

        alarm(20);
        setrlimit(RLIMIT_CORE, &no_core);
        if (depth >= ISOLATED)
            REQUIRE(sandbox_isolate(pair[1]) == 0);
        if (depth >= LOCKED)
            REQUIRE(sandbox_lock() == 0);
        if (depth >= RELAY)
            REQUIRE(sandbox_narrow(depth == GATE) == 0);
        body(pair[1]);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(pair[0]);
    close(pair[1]);
    return status;
}

/* valgrind makes calls of its own in the process, for which a filter would kill it. */
static inline bool skipped_in_valgrind(void)
{
    return test_in_valgrind() && puts("1..0 # SKIP in valgrind") >= 0;
}
