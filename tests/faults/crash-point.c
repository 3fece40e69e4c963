/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * For LD_PRELOAD= of a vmferryd: kills it at the n-th thing that it tells the FD store of the service
 * manager, $VMFERRY_CRASH_AT, before that is told or, with $VMFERRY_CRASH_AFTER, at once after it.
 */

#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

static unsigned long told;

static void die_if_due(const char *state, bool after)
{
    const char *at = getenv("VMFERRY_CRASH_AT");

    if (!at || strncmp(state, "FDSTORE", strlen("FDSTORE")) != 0)
        return;
    if (!after)
        told++;
    if (told == strtoul(at, NULL, 10) && (getenv("VMFERRY_CRASH_AFTER") != NULL) == after)
        kill(getpid(), SIGKILL);
}

VISIBLE int sd_notify(int unset, const char *state)
{
    int (*real)(int, const char *);
    int r;

    *(void **)&real = dlsym(RTLD_NEXT, "sd_notify");
    die_if_due(state, false);
    r = real(unset, state);
    die_if_due(state, true);
    return r;
}

VISIBLE int sd_pid_notify_with_fds(pid_t pid, int unset, const char *state, const int *fds, unsigned n_fds)
{
    int (*real)(pid_t, int, const char *, const int *, unsigned);
    int r;

    *(void **)&real = dlsym(RTLD_NEXT, "sd_pid_notify_with_fds");
    die_if_due(state, false);
    r = real(pid, unset, state, fds, n_fds);
    die_if_due(state, true);
    return r;
}
