/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/message.h"
#include "ctl/ssh/master.h"
#include "ctl/verbs/verbs.h"
#include "version.h"

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

    (void)source;
    (void)info;
    ctl->interrupts++;
    return 0;
}

static int on_resize(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct ctl *ctl = userdata;

    (void)source;
    (void)info;
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

void ctl_say(const struct ctl *ctl, const char *format, ...)
{
    _cleanup_free_ char *text = NULL, *printable = NULL;
    va_list args;
    int r;

    if (ctl->arguments.quiet)
        return;
    va_start(args, format);
    r = vasprintf(&text, format, args);
    va_end(args);
    if (r < 0) {
        text = NULL;
        return;
    }
    printable = malloc(strlen(text) + 1);
    if (!printable)
        return;
    message_text_set(printable, strlen(text) + 1, text);
    fprintf(stderr, "%s\n", printable);
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

/* A stream that is closed stays one that fails: no socket of ours must get its number. */
static void occupy_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int run_verb(struct ctl *ctl, struct trouble *trouble)
{
    static int (*const verbs[VERB_MAX_])(struct ctl *, struct trouble *) = {
        [VERB_LIST] = verb_list,       [VERB_STATUS] = verb_status,   [VERB_SHOW] = verb_show,
        [VERB_WATCH] = verb_watch,     [VERB_WAIT] = verb_wait,       [VERB_CANCEL] = verb_cancel,
        [VERB_LIMIT] = verb_limit,     [VERB_FORGET] = verb_forget,   [VERB_RECEIVE] = verb_receive,
        [VERB_SEND] = verb_send,       [VERB_MIGRATE] = verb_migrate, [VERB_CHECK] = verb_check,
        [VERB_METRICS] = verb_metrics, [VERB_STDIO] = verb_stdio,
    };
    int r = sd_event_new(&ctl->event);

    if (r < 0)
        return trouble_no_memory(trouble);
    return verbs[ctl->arguments.verb](ctl, trouble);
}

int ctl_run(int argc, char **argv)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    struct ctl ctl = {0};
    int status;

    occupy_streams();
    setlocale(LC_ALL, "");
    setlocale(LC_NUMERIC, "C");
    signal(SIGPIPE, SIG_IGN);
    if (arguments_parse(argc, argv, &ctl.arguments, &trouble) < 0) {
        status = trouble.status;
    } else if (ctl.arguments.help) {
        arguments_help(stdout, &ctl.arguments);
        status = STATUS_DONE;
    } else if (ctl.arguments.version) {
        printf("vmferryctl %s\nBuilt with %s\n", VMFERRY_VERSION, VMFERRY_LIBRARIES);
        status = STATUS_DONE;
    } else {
        status = run_verb(&ctl, &trouble);
    }
    master_free_all(&ctl);
    sd_event_unref(ctl.event);
    ctl_flush(&trouble);
    if (trouble.text)
        fprintf(stderr, "vmferryctl: %s\n", trouble.text);
    return trouble.status != 0 ? trouble.status : status < 0 ? STATUS_FAILED : status;
}
