/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/password-agent.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/cleanup.h"

enum { READY_MSEC = 5000 };

static void child(int notify, pid_t parent)
{
    char number[16];
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    fcntl(notify, F_SETFD, 0);
    snprintf(number, sizeof(number), "%d", notify);
    /* Not --fallback: polkit 122 uses such a one only for callers that have a session. */
    execlp("pkttyagent", "pkttyagent", "--notify-fd", number, (char *)NULL);
    _exit(1);
}

void password_agent_start(const struct ctl *ctl)
{
    _cleanup_fd_ int ours = -1, theirs = -1;
    pid_t parent = getpid(), pid;
    struct pollfd p;
    int ends[2];

    if (ctl->arguments.no_ask_password || geteuid() == 0 || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO) ||
        pipe2(ends, O_CLOEXEC) < 0)
        return;
    ours = ends[0];
    theirs = ends[1];
    pid = fork();
    if (pid == 0)
        child(theirs, parent);
    fd_closep(&theirs);
    /* It closes its end when it is ready, or when it cannot be started. */
    p = (struct pollfd){.fd = ours, .events = POLLIN};
    if (pid > 0)
        poll(&p, 1, READY_MSEC);
}
