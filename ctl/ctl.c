/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ctl.h"

#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/ssh/master.h"
#include "ctl/verbs/check.h"
#include "ctl/verbs/list.h"
#include "ctl/verbs/manage.h"
#include "ctl/verbs/metrics.h"
#include "ctl/verbs/migrate.h"
#include "ctl/verbs/receive.h"
#include "ctl/verbs/send.h"
#include "ctl/verbs/show.h"
#include "ctl/verbs/stdio.h"
#include "ctl/verbs/tunnel.h"
#include "ctl/verbs/watch.h"
#include "version.h"

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
        [VERB_LIST] = verb_list,   [VERB_STATUS] = verb_status,   [VERB_SHOW] = verb_show,
        [VERB_WATCH] = verb_watch, [VERB_WAIT] = verb_wait,       [VERB_CANCEL] = verb_cancel,
        [VERB_LIMIT] = verb_limit, [VERB_FORGET] = verb_forget,   [VERB_RECEIVE] = verb_receive,
        [VERB_SEND] = verb_send,   [VERB_MIGRATE] = verb_migrate, [VERB_TUNNEL] = verb_tunnel,
        [VERB_CHECK] = verb_check, [VERB_METRICS] = verb_metrics, [VERB_STDIO] = verb_stdio,
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
        printf("vmferryctl %s\nFeatures: %s\nBuilt with %s\n", VMFERRY_VERSION, OPTIONS_FEATURES,
               VMFERRY_LIBRARIES);
        status = STATUS_DONE;
    } else {
        status = run_verb(&ctl, &trouble);
    }
    master_free_all(&ctl);
    sd_event_unref(ctl.event);
    if (!ctl.relayed)
        ctl_flush(&trouble);
    if (trouble.text)
        fprintf(stderr, "vmferryctl: %s\n", trouble.text);
    return trouble.status != 0 ? trouble.status : status < 0 ? STATUS_FAILED : status;
}
