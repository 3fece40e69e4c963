/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/message.h"

uint64_t ctl_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec / 1000;
}

int ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble)
{
    int r = sd_event_run(ctl->event, usec);

    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "The event loop failed: %s.", strerror(-r)) : 0;
}

static int on_interrupt(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct ctl *ctl = userdata;

    ctl->interrupts++;
    ctl->hangup = ctl->hangup || info->ssi_signo != SIGINT;
    return 0;
}

static int on_resize(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct ctl *ctl = userdata;

    ctl->resized = true;
    return 0;
}

int ctl_catch_signals(struct ctl *ctl, struct trouble *trouble)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t mask;
    int r = 0;

    if (ctl->signals)
        return 0;
    ctl->signals = true;
    sigemptyset(&mask);
    sigaddset(&mask, SIGWINCH);
    for (unsigned i = 0; i < 3; i++)
        sigaddset(&mask, ends[i]);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    for (unsigned i = 0; r >= 0 && i < 3; i++)
        r = sd_event_add_signal(ctl->event, NULL, ends[i], on_interrupt, ctl);
    if (r >= 0)
        r = sd_event_add_signal(ctl->event, NULL, SIGWINCH, on_resize, ctl);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "Signals cannot be caught: %s.", strerror(-r)) : 0;
}

static void say(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

static void say(const char *format, va_list args)
{
    _cleanup_free_ char *text = NULL, *printable = NULL;

    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        return;
    }
    printable = malloc(strlen(text) + 1);
    if (!printable)
        return;
    message_text_set(printable, strlen(text) + 1, text);
    fprintf(stderr, "%s\n", printable);
}

void ctl_say(const struct ctl *ctl, const char *format, ...)
{
    va_list args;

    if (ctl->arguments.quiet)
        return;
    va_start(args, format);
    say(format, args);
    va_end(args);
}

void ctl_step(const struct ctl *ctl, const char *format, ...)
{
    va_list args;

    if (!ctl->arguments.verbose)
        return;
    va_start(args, format);
    say(format, args);
    va_end(args);
}

int ctl_pause(struct ctl *ctl, uint64_t usec, struct trouble *trouble)
{
    for (uint64_t now = ctl_now(), end = now + usec; now < end && !ctl->interrupts && !ctl->resized;
         now = ctl_now())
        if (ctl_turn(ctl, end - now, trouble) < 0)
            return -1;
    return 0;
}

int ctl_flush(struct trouble *trouble)
{
    int r = fflush(stdout) != 0 ? -errno : ferror(stdout) ? -EIO : 0, copy;

    /* Where the file is at a server, only a close tells whether it has room. */
    copy = r >= 0 ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) : -1;
    if (r >= 0 && (copy < 0 || close(copy) < 0))
        r = -errno;
    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "Cannot write the output: %s.", strerror(-r)) : 0;
}
