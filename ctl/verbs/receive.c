/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/receive.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "ctl/bus/tunnel.h"
#include "ctl/qemu/qemu.h"
#include "ctl/qemu/settings.h"
#include "ctl/shell.h"
#include "ctl/units.h"
#include "ctl/verbs/keeper.h"
#include "ctl/verbs/print-ticket.h"
#include "ctl/verbs/receive-libvirt.h"

#define TICKET_LIFE (900 * SECOND) /* where no option says it: people carry the ticket to the other host */

static void hint(const struct ctl *ctl, const struct tunnel *tunnel, bool driven, bool with_ticket)
{
    const struct arguments *a = &ctl->arguments;
    char how[32] = "", rest[128], command[SHELL_COMMAND_MAX], until[UNITS_TEXT_MAX], life[UNITS_TEXT_MAX];

    if (!driven)
        ctl_say(ctl, "Tell the waiting QEMU:  migrate_incoming unix:%s", tunnel->socket);
    if (a->multifd > 0)
        snprintf(how, sizeof(how), " --multifd=%" PRIu64, a->multifd);
    snprintf(rest, sizeof(rest), "--qmp=SOCKET%s%s%s%s", a->resume ? " --resume" : "",
             a->postcopy != POSTCOPY_NO ? " --postcopy" : "", a->paused ? " --paused" : "", how);
    ctl_say(ctl, "At the source%s:  %s", with_ticket ? ", with the ticket on stdin" : "",
            shell_vmferryctl("send", tunnel->vm, rest, command));
    if (with_ticket) {
        format_time(a->expire, life);
        format_moment((uint64_t)time(NULL) * SECOND + a->expire, until);
        ctl_say(ctl, "The ticket is good for %s, until %s (--expire=).", life, until);
    }
}

/* What QEMU has to do; takes back what was done where it refuses. */
static int listen_at(struct qmp *qmp, const struct tunnel *tunnel, struct settings *before, bool resume,
                     struct trouble *trouble)
{
    char state[32];

    if (tunnel->socket[0] == '\0')
        return trouble_set(trouble, STATUS_FAILED, "Migration %s has no socket for QEMU.", tunnel_id(tunnel));
    if (tunnel_check_socket(tunnel, qmp_uid(qmp), trouble) >= 0 &&
        (resume || qmp_execute(qmp, "stop", NULL, NULL, trouble) >= 0) && /* it is not to start the VM */
        qemu_listen(qmp, tunnel->socket, resume, trouble) >= 0) {
        /* Post-copy has begun, and what was to start the VM has ended before it did. */
        if (resume && qemu_run_state(qmp, state, NULL) >= 0 && strcmp(state, "paused") == 0)
            qmp_execute(qmp, "cont", NULL, NULL, NULL);
        return 0;
    }
    settings_restore(qmp, before);
    return -1;
}

/* With --resume: a paused post-copy needs no ticket while its tunnel is still there. */
static int resume_same(struct ctl *ctl, struct qmp *qmp, const struct tunnel *tunnel, struct trouble *trouble)
{
    struct settings before = {0};

    if (print_ticket(ctl, tunnel, NULL, trouble) < 0 || listen_at(qmp, tunnel, &before, true, trouble) < 0)
        return -1;
    hint(ctl, tunnel, true, false);
    return STATUS_DONE;
}

/* Nobody is to hear of it any more. */
static int take_back(struct tunnel *tunnel)
{
    tunnel_cancel(tunnel);
    side_call(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "Forget", NULL, NULL, "", NULL);
    return -1;
}

/* keeper: the FD for keeper_detach(), where this process stays; or -1. */
static int receive(struct ctl *ctl, struct side *side, struct qmp *qmp, struct settings *before, int keeper,
                   struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    const char *vm = a->operands[0];
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    _cleanup_(tunnel_clear) struct tunnel tunnel = {0};
    char owner[16];

    if (tunnel_prepare(side, vm, qmp ? tunnel_owner(a, qmp_uid(qmp), owner) : a->socket_owner, &tunnel,
                       &ticket, trouble) < 0)
        return -1;
    if (ctl->interrupts > 0) {
        if (qmp)
            settings_restore(qmp, before);
        trouble_set(trouble, STATUS_CANCELLED, "Cancelled: VM '%s' is not expected any more.", vm);
        return take_back(&tunnel);
    }
    /* The ticket first: that can be taken back, what QEMU is told cannot (it listens once in its life). */
    if (print_ticket(ctl, &tunnel, ticket, trouble) < 0) {
        if (qmp)
            settings_restore(qmp, before);
        return take_back(&tunnel);
    }
    if (qmp && listen_at(qmp, &tunnel, before, a->resume, trouble) < 0)
        return take_back(&tunnel);
    hint(ctl, &tunnel, qmp != NULL, true);
    if (keeper >= 0) {
        keeper_detach(keeper);
        keeper_stay(&tunnel, qmp, before, !a->paused);
    }
    return STATUS_DONE;
}

/* Takes keeper. */
static int receive_driven(struct ctl *ctl, int keeper, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_fd_ int fd = keeper;
    _cleanup_(side_close) struct side side = {0};
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    _cleanup_(settings_clear) struct settings before = {0};
    _cleanup_(tunnel_clear) struct tunnel found = {0};
    int r;

    if (side_open(ctl, &side, trouble) < 0 || ctl_catch_signals(ctl, trouble) < 0 ||
        qmp_open(&side, a->qmp, &qmp, trouble) < 0 ||
        qemu_check_destination(qmp, a->operands[0], a->resume, trouble) < 0)
        return -1;
    if (a->resume) {
        r = tunnel_find(&side, a->operands[0], "incoming", qmp_uid(qmp), &found, trouble);
        if (r != 0)
            return r < 0 ? -1 : resume_same(ctl, qmp, &found, trouble);
    } else if (settings_prepare(qmp, a, a->paused ? SETTINGS_DESTINATION : SETTINGS_HELD_DESTINATION, &before,
                                trouble) < 0) {
        return -1;
    }
    return receive(ctl, &side, qmp, &before, fd_steal(&fd), trouble);
}

int verb_receive(struct ctl *ctl, struct trouble *trouble)
{
    struct arguments *a = &ctl->arguments;
    _cleanup_(side_close) struct side side = {0};
    int keeper = -1, status = STATUS_DONE;

    if (a->expire == 0)
        a->expire = TICKET_LIFE;
    if (a->libvirt)
        return receive_libvirt(ctl, trouble);
    if (a->qmp) {
        int r = a->resume ? 1 : keeper_fork(ctl, &keeper, &status, trouble);

        return r > 0 ? receive_driven(ctl, keeper, trouble) : r < 0 ? -1 : status;
    }
    if (side_open(ctl, &side, trouble) < 0 || ctl_catch_signals(ctl, trouble) < 0)
        return -1;
    return receive(ctl, &side, NULL, NULL, -1, trouble);
}
