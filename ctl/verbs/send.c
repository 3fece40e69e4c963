/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/send.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/drive/drive.h"
#include "ctl/drive/sequence.h"
#include "ctl/libvirt/move.h"

/* The ticket's line. */
static int read_ticket(const struct ctl *ctl, char **ret, struct trouble *trouble)
{
    const char *name = ctl->arguments.ticket_file ? ctl->arguments.ticket_file : "-";
    bool standard = strcmp(name, "-") == 0;
    const char *what = standard ? "standard input" : name;
    _cleanup_fd_ int opened = standard ? -1 : open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int fd = standard ? STDIN_FILENO : opened;
    char text[TICKET_MAX + 2] = "";
    size_t size = 0;
    ssize_t n = -1;

    if (fd < 0)
        return trouble_set(trouble, STATUS_FAILED,
                           "Cannot open the ticket's file %s: %s. Give the file into which "
                           "'vmferryctl receive' was written.",
                           name, strerror(errno));
    if (standard && isatty(STDIN_FILENO))
        ctl_say(ctl, "Paste the ticket that 'vmferryctl receive' printed, and press Enter:");
    while (size < sizeof(text) - 1 && !memchr(text, '\n', size) &&
           (n = read(fd, text + size, sizeof(text) - 1 - size)) > 0)
        size += (size_t)n;
    if (n < 0 && size == 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot read the ticket from %s: %s.", what,
                           strerror(errno));
    text[size] = '\0';
    text[strcspn(text, " \t\r\n")] = '\0';
    if (text[0] == '\0')
        return trouble_set(
            trouble, STATUS_FAILED,
            "There is no ticket on %s: it is empty. Give there what 'vmferryctl receive' printed.", what);
    *ret = strncmp(text, "vmferry", 7) == 0 && strlen(text) < TICKET_MAX ? strdup(text) : NULL;
    explicit_bzero(text, sizeof(text));
    if (!*ret)
        return trouble_set(
            trouble, STATUS_FAILED,
            "What is on %s is no ticket: one is a line that begins with 'vmferry1:'. Give there what "
            "'vmferryctl receive' printed.",
            what);
    return 0;
}

/* Without --qmp: the user, or another program, tells QEMU to migrate. */
static int send_alone(struct ctl *ctl, struct side *side, const char *ticket, struct trouble *trouble)
{
    _cleanup_(tunnel_clear) struct tunnel tunnel = {0};
    _cleanup_json_ json_object *record = NULL;

    if (tunnel_start(side, ctl->arguments.operands[0], ticket, ctl->arguments.socket_owner, &tunnel,
                     trouble) < 0)
        return -1;
    if (tunnel_wait_connected(&tunnel, trouble) < 0) {
        tunnel_cancel(&tunnel);
        return -1;
    }
    if (ctl->arguments.json != JSON_OFF) {
        if (tunnel_read(&tunnel, &record, trouble) < 0)
            return -1;
        record_print_json(ctl, record);
    } else {
        puts(tunnel.socket);
    }
    if (ctl_flush(trouble) < 0) { /* nothing can use a socket that is not known */
        tunnel_cancel(&tunnel);
        return -1;
    }
    ctl_say(ctl, "Tell QEMU:  migrate -d unix:%s", tunnel.socket);
    ctl_say(ctl, "See how it goes:  vmferryctl watch %s", tunnel_id(&tunnel));
    return STATUS_DONE;
}

/* Finds the tunnel that is there for a paused post-copy; else takes the ticket. */
static int open_tunnel(struct ends *ends, const char *ticket, struct trouble *trouble)
{
    char text[16];
    const char *owner = tunnel_owner(&ends->ctl->arguments, qmp_uid(ends->qmp), text);

    ends->found = ends->tunnel.path != NULL;
    if (ends->found)
        return 0;
    if (tunnel_start(ends->source, ends->vm, ticket, owner, &ends->tunnel, trouble) < 0)
        return -1;
    return tunnel_wait_connected(&ends->tunnel, trouble);
}

/* 'receive' starts the VM, unless it was told that it is paused: it has no monitor that says so. */
static int check_paused(struct ends *ends, struct trouble *trouble)
{
    bool paused = ends->ctl->arguments.paused;
    char state[32];

    if (ends->resume)
        return 0;
    if (qemu_run_state(ends->qmp, state, trouble) < 0)
        return -1;
    if (strcmp(state, "paused") == 0 && !paused)
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' is paused, and 'receive' lets a VM run when it has arrived. Give --paused to "
            "'receive' and to 'send', so that it stays as it is.",
            ends->vm);
    if (strcmp(state, "running") == 0 && paused)
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' is running, and with --paused 'receive' does not start it. Leave --paused out "
            "there and here.",
            ends->vm);
    return 0;
}

/* QEMU's monitor, what the options say, and the tunnel; or nothing of that. */
static int open_ends(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;

    /* All that can be refused is asked for first, so that there is nothing to take back. */
    if (a->resume &&
        (qmp_open(ends->source, a->qmp, &ends->qmp, trouble) < 0 ||
         tunnel_find(ends->source, ends->vm, "outgoing", qmp_uid(ends->qmp), &ends->tunnel, trouble) < 0))
        return -1;
    if (!ends->tunnel.path && read_ticket(ends->ctl, &ticket, trouble) < 0)
        return -1;
    if ((!ends->qmp && qmp_open(ends->source, a->qmp, &ends->qmp, trouble) < 0) ||
        qemu_check_source(ends->qmp, ends->vm, a->resume, trouble) < 0 || check_paused(ends, trouble) < 0 ||
        (!a->resume && settings_prepare(ends->qmp, a, SETTINGS_SOURCE, &ends->before, trouble) < 0))
        return -1;
    if (open_tunnel(ends, ticket, trouble) >= 0)
        return 0;
    ends_undo(ends);
    return -1;
}

static int send_driven(struct ctl *ctl, struct side *side, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_(ends_clear) struct ends ends = {
        .ctl = ctl, .vm = a->operands[0], .source = side, .resume = a->resume};

    if (open_ends(&ends, trouble) >= 0)
        return drive_run(&ends, trouble);
    sequence_fail(&ends, NULL, "connecting", trouble);
    return -1;
}

int verb_send(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    _cleanup_(side_close) struct side side = {0};

    if (!ctl->arguments.qmp && read_ticket(ctl, &ticket, trouble) < 0)
        return -1;
    if (ctl->arguments.libvirt)
        return libvirt_send(ctl, ticket, trouble);
    if (side_open(ctl, &side, trouble) < 0 || ctl_catch_signals(ctl, trouble) < 0)
        return -1;
    return ctl->arguments.qmp ? send_driven(ctl, &side, trouble) : send_alone(ctl, &side, ticket, trouble);
}
