/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/terminal/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"

static pid_t pager;

static const char *program(void)
{
    const char *name = getenv("SYSTEMD_PAGER");

    if (!name)
        name = getenv("PAGER");
    return name ? name : "less";
}

void pager_open(const struct ctl *ctl)
{
    const char *name = program();
    int ends[2];

    if (pager > 0 || ctl->arguments.no_pager || !isatty(STDOUT_FILENO) || name[0] == '\0' ||
        strcmp(name, "cat") == 0 || pipe2(ends, O_CLOEXEC) < 0)
        return;
    pager = fork();
    if (pager == 0) {
        signal(SIGPIPE, SIG_DFL);
        setenv("LESS", "FRSXMK", 0); /* leaves at once where all fits */
        setenv("LESSSECURE", "1", 1);
        if (dup2(ends[0], STDIN_FILENO) >= 0)
            execl("/bin/sh", "sh", "-c", name, (char *)NULL);
        _exit(1);
    }
    if (pager > 0)
        dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
}

void pager_close(void)
{
    if (pager <= 0)
        return;
    fflush(stdout);
    close(STDOUT_FILENO);
    open("/dev/null", O_WRONLY | O_CLOEXEC);
    while (waitpid(pager, NULL, 0) < 0 && errno == EINTR)
        ;
    pager = 0;
}
