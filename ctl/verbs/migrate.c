/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/migrate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/drive/drive.h"
#include "ctl/drive/handover.h"
#include "ctl/drive/sequence.h"
#include "ctl/libvirt/move.h"
#include "ctl/verbs/background.h"

/* What the options say, in both QEMUs; all that must be alike is, or nothing was changed. */
static int prepare(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;
    _cleanup_(settings_clear) struct settings source = {0}, destination = {0};
    char state[32];
    bool held;

    if (qemu_run_state(ends->qmp, state, trouble) < 0 || settings_read(ends->qmp, &source, trouble) < 0 ||
        settings_read(ends->destination_qmp, &destination, trouble) < 0 ||
        settings_compare(a, &source, &destination, trouble) < 0 ||
        settings_apply(ends->qmp, a, SETTINGS_SOURCE, &source, NULL, &ends->before, trouble) < 0)
        return -1;
    /* The images of a VM that is not told to go on must not wait for that: QEMU before 10 ends when it
     * migrates with such. */
    held = strcmp(state, "running") == 0 || strcmp(state, "suspended") == 0;
    if (settings_apply(ends->destination_qmp, a, held ? SETTINGS_HELD_DESTINATION : SETTINGS_DESTINATION,
                       &destination, &source, &ends->destination_before, trouble) >= 0)
        return 0;
    settings_restore(ends->qmp, &ends->before);
    return -1;
}

/*
 * With --resume, for a vmferryctl that has ended: whether the QEMUs go on by themselves, or have come to
 * their end and only the VM was not started at the destination.
 */
static int find_out(struct ends *ends, struct trouble *trouble)
{
    struct qemu_info near, far;
    char state[32];

    if (!ends->resume)
        return 0;
    if (qemu_query(ends->qmp, &near, trouble) < 0 || qemu_query(ends->destination_qmp, &far, trouble) < 0 ||
        qemu_run_state(ends->destination_qmp, state, trouble) < 0)
        return -1;
    ends->taken = near.phase == QEMU_DONE ? far.phase == QEMU_DONE
                                          : (near.phase == QEMU_PRECOPY || near.phase == QEMU_POSTCOPY) &&
                                                (far.phase == QEMU_PRECOPY || far.phase == QEMU_POSTCOPY ||
                                                 far.phase == QEMU_DONE);
    /* QEMU does not say whether it was told to wait; where it was not, it runs by now. */
    ends->held = ends->taken;
    return 0;
}

/* A monitor serves one client: the second would wait for the first, which is this program, too. */
static int check_monitors(const struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;
    struct stat one, other;

    if (ends->source->host || ends->destination->host || stat(a->qmp, &one) < 0 ||
        stat(a->dst_qmp, &other) < 0 || one.st_dev != other.st_dev || one.st_ino != other.st_ino)
        return 0;
    return trouble_set(
        trouble, STATUS_USAGE,
        "--qmp= and --dst-qmp= name the same monitor, %s. Give the destination's QEMU a socket of its own.",
        a->qmp);
}

/* Both QEMUs, told what the options say. */
static int open_qemus(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;

    if (check_monitors(ends, trouble) < 0 || qmp_open(ends->source, a->qmp, &ends->qmp, trouble) < 0 ||
        qmp_open(ends->destination, a->dst_qmp, &ends->destination_qmp, trouble) < 0 ||
        find_out(ends, trouble) < 0)
        return -1;
    if (ends->taken)
        return disks_take_over(ends->ctl, ends->qmp, ends->destination_qmp, &ends->disks, trouble);
    if (qemu_check_source(ends->qmp, ends->vm, a->resume, trouble) < 0 ||
        qemu_check_destination(ends->destination_qmp, ends->vm, a->resume, trouble) < 0)
        return -1;
    if (a->disks &&
        disks_find(ends->ctl, ends->source, ends->qmp, ends->destination_qmp, &ends->disks, trouble) < 0)
        return -1;
    return a->resume ? 0 : prepare(ends, trouble);
}

/* Before the destination's QEMU is told to listen, which it can be once: until then it can be used again. */
static int mirror_disks(struct ends *ends, struct trouble *trouble)
{
    return ends->disks && !ends->taken
               ? disks_mirror(ends->disks, &ends->tunnel, &ends->destination_tunnel, trouble)
               : 0;
}

static int listen_there(struct ends *ends, struct trouble *trouble)
{
    if (ends->taken)
        return 0;
    if (ends->resume)
        return ends_listen_again(ends, trouble);
    if (tunnel_check_socket(&ends->destination_tunnel, qmp_uid(ends->destination_qmp), trouble) < 0)
        return -1;
    return handover_hold(ends, trouble) < 0
               ? -1
               : qemu_listen(ends->destination_qmp, ends->destination_tunnel.socket, false, trouble);
}

static int migrate_qemu(struct ctl *ctl, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_(side_close) struct side source = {0}, destination = {0};
    _cleanup_(ends_clear) struct ends ends = {.ctl = ctl,
                                              .vm = a->operands[0],
                                              .host = a->operands[1],
                                              .resume = a->resume,
                                              .source = &source,
                                              .destination = &destination};
    int r;

    if (ctl_catch_signals(ctl, trouble) < 0)
        return -1;
    if (isatty(STDERR_FILENO))
        ctl_say(ctl, "Connecting to %s …", ends.host);
    if (side_open(ctl, &source, trouble) < 0 || side_open_host(ctl, ends.host, &destination, trouble) < 0 ||
        open_qemus(&ends, trouble) < 0) {
        sequence_fail(&ends, NULL, "connecting", trouble);
        return -1;
    }
    if (a->dry_run) {
        ctl_say(ctl,
                "Would prepare the migration at %s, start it here, tell QEMU there 'stop' and "
                "'migrate-incoming', and QEMU here 'migrate'. Nothing was changed.",
                ends.host);
        return STATUS_DONE;
    }
    /* What can be undone comes first: tunnel, disks. 'migrate-incoming' comes last, for QEMU takes it once.
     */
    if (ends_open_tunnel(&ends, trouble) < 0 || mirror_disks(&ends, trouble) < 0 ||
        listen_there(&ends, trouble) < 0) {
        ends_undo(&ends);
        sequence_fail(&ends, NULL, "connecting", trouble);
        return -1;
    }
    /* Noted before QEMU is told to go: from then on a vmferryctl that is killed leaves something to take
     * over. */
    background_note(ctl);
    sd_notify(0, "READY=1"); /* for --background */
    r = drive_run(&ends, trouble);
    if (!ends.left)
        background_forget(ctl);
    return r;
}

int verb_migrate(struct ctl *ctl, struct trouble *trouble)
{
    if (ctl->arguments.attach)
        return background_attach(ctl, trouble);
    if (ctl->arguments.background)
        return background_run(ctl, trouble);
    if (!arguments_want_libvirt(&ctl->arguments))
        return migrate_qemu(ctl, trouble);
    sd_notify(0, "READY=1");
    return libvirt_migrate(ctl, trouble);
}
