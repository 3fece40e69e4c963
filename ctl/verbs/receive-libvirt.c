/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/receive-libvirt.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/tunnel.h"
#include "ctl/libvirt/socket.h"
#include "ctl/shell.h"
#include "ctl/units.h"
#include "ctl/verbs/print-ticket.h"

#define KEEP (86400 * SECOND) /* the source can choose post-copy, where connections must not be given up */
#define LOOK (SECOND / 4)

static void hint(const struct tunnel *tunnel)
{
    const struct ctl *ctl = tunnel->side->ctl;
    char command[SHELL_COMMAND_MAX], life[UNITS_TEXT_MAX];

    format_time(ctl->arguments.expire, life);
    ctl_say(ctl, "At the source, with the ticket on stdin:  %s",
            shell_vmferryctl("send", tunnel->vm, "--libvirt", command));
    ctl_say(ctl,
            "The ticket is good for %s (--expire=). Whoever uses it can use libvirt here as this user can, "
            "until the migration is over. This command stays until then; Ctrl-C takes the ticket back.",
            life);
}

static int serve(const struct tunnel *tunnel, struct trouble *trouble)
{
    struct ctl *ctl = tunnel->side->ctl;
    unsigned supplied = 0;

    for (;;) {
        _cleanup_json_ json_object *record = NULL;
        bool waits;

        if (tunnel_read(tunnel, &record, trouble) < 0)
            return -1;
        if (strcmp(record_text(record, "State"), "finished") == 0) {
            int status = trouble_status_of(record_text(record, "Result"), record_text(record, "ErrorName"));

            if (status != STATUS_DONE)
                return trouble_set(trouble, status, "%s", record_text(record, "ErrorMessage"));
            ctl_say(ctl, "%s has come: see 'virsh domstate' for how it is.", tunnel->vm);
            return STATUS_DONE;
        }
        waits = strcmp(record_text(record, "State"), "waiting") == 0;
        if (ctl->interrupts > 0 && waits) {
            tunnel_cancel(tunnel);
            return trouble_set(trouble, STATUS_CANCELLED, "Cancelled: VM '%s' is not expected any more.",
                               tunnel->vm);
        }
        if (ctl->interrupts > 0)
            return trouble_set(
                trouble, STATUS_FAILED,
                "VM '%s' is on its way, and goes on without this command. Cancel it at the source.",
                tunnel->vm);
        if (libvirt_supply_ahead(tunnel, record, &supplied, trouble) < 0) {
            tunnel_cancel(tunnel);
            return -1;
        }
        if (ctl_turn(ctl, LOOK, trouble) < 0)
            return -1;
    }
}

int receive_libvirt(struct ctl *ctl, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_(side_close) struct side side = {0};
    _cleanup_(tunnel_clear) struct tunnel tunnel = {0};
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    _cleanup_fd_ int probe = -1;
    const struct tunnel_shape shape = {.owner = a->socket_owner,
                                       .layout = a->operands[0],
                                       .disks = true,
                                       .libvirt = true,
                                       .resume_timeout = KEEP};

    if (ctl_catch_signals(ctl, trouble) < 0 || side_open(ctl, &side, trouble) < 0)
        return -1;
    probe = libvirt_connect(ctl, trouble); /* better now than when the source comes */
    if (probe < 0 || tunnel_prepare_as(&side, a->operands[0], &shape, &tunnel, &ticket, trouble) < 0)
        return -1;
    fd_closep(&probe);
    if (print_ticket(ctl, &tunnel, ticket, trouble) < 0) {
        tunnel_cancel(&tunnel);
        return -1;
    }
    hint(&tunnel);
    return serve(&tunnel, trouble);
}
