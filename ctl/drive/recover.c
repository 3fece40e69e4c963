/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/recover.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"
#include "ctl/drive/view.h"

#define AGAIN   (3 * SECOND)
#define REACHES (60 * SECOND) /* for the way to the source's monitor to be back */

static bool says_gone(const char *text)
{
    return text &&
           (strstr(text, "There is no QMP socket") || strstr(text, "Nobody listens on the QMP socket"));
}

/* The destination's monitor, again. */
static enum reach reach_again(struct drive *drive, struct trouble *why)
{
    struct ends *ends = drive->ends;

    if (side_open_host(ends->ctl, ends->host, ends->destination, why) < 0)
        return REACH_AWAY;
    if (qmp_open(ends->destination, ends->ctl->arguments.dst_qmp, &ends->destination_qmp, why) < 0)
        return why && says_gone(why->text) ? REACH_GONE : REACH_AWAY;
    view_be_patient(drive, ends->destination_qmp);
    return REACH_THERE;
}

enum reach recover_reach(struct drive *drive, struct trouble *why)
{
    struct ends *ends = drive->ends;
    enum reach reach;
    char ended[32];

    if (ends->destination_qmp && qmp_is_open(ends->destination_qmp))
        return REACH_THERE;
    message_text_set(ended, sizeof(ended), ends->destination_qmp ? qmp_shutdown(ends->destination_qmp) : "");
    if (ended[0]) {
        trouble_set(why, STATUS_FAILED, "it has ended (%s)", ended);
        return REACH_GONE;
    }
    /* The network that was lost may have carried the ssh as well. */
    qmp_free(ends->destination_qmp);
    ends->destination_qmp = NULL;
    side_close(ends->destination);
    view_away(drive, ends->host, NULL);
    reach = reach_again(drive, why);
    view_back(drive);
    return reach;
}

/* One try. REACH_AWAY: not now, why says what is in the way. */
static enum reach reach_source(struct drive *drive, const char *host, struct trouble *why)
{
    struct ends *ends = drive->ends;
    struct qmp *again = NULL;

    side_close(ends->source);
    if (side_open_host(ends->ctl, host, ends->source, why) < 0 ||
        qmp_open(ends->source, ends->ctl->arguments.qmp, &again, why) < 0)
        return says_gone(why->text) ? REACH_GONE : REACH_AWAY;
    /* Only now: as long as there is no new monitor, the old one still says how the loss came
     * (qmp_shutdown()). */
    qmp_free(ends->qmp);
    ends->qmp = again;
    view_be_patient(drive, again);
    return REACH_THERE;
}

enum reach recover_source(struct drive *drive, struct trouble *why)
{
    struct ends *ends = drive->ends;
    const char *host = ends->source->host;
    enum reach reach = REACH_AWAY;

    if (!host || qmp_shutdown(ends->qmp)[0] || qmp_silence(ends->qmp) > 0 || !qmp_has_ended(ends->qmp))
        return REACH_GONE;
    view_away(drive, host, NULL);
    for (uint64_t end = ctl_now() + REACHES; ctl_now() < end && ends->ctl->interrupts == 0;) {
        trouble_clear(why);
        reach = reach_source(drive, host, why);
        if (reach != REACH_AWAY)
            break;
        view_away(drive, host, why->text);
        if (ctl_turn(ends->ctl, SECOND, NULL) < 0)
            break;
    }
    view_back(drive);
    return reach;
}

/* So is one that the broker does not know, as after a restart without what it had stored. */
static bool is_over(const struct tunnel *tunnel)
{
    _cleanup_(trouble_clear) struct trouble why = {0};
    _cleanup_json_ json_object *record = NULL;

    if (!tunnel->path)
        return true;
    if (tunnel_read(tunnel, &record, &why) < 0)
        return why.text && strstr(why.text, TROUBLE_GONE);
    return strcmp(record_text(record, "State"), "finished") == 0;
}

/* Once it was paused, QEMU there says so until it is recovered; another one was not. */
static bool is_another(struct drive *drive, struct trouble *why)
{
    struct qemu_info info;

    if (qemu_query(drive->ends->destination_qmp, &info, NULL) < 0 ||
        (info.phase != QEMU_NONE && info.phase != QEMU_FAILED && info.phase != QEMU_DONE))
        return false;
    trouble_set(why, STATUS_FAILED, "it says that its migration is '%s'",
                info.status[0] ? info.status : "none");
    return true;
}

/* 1: it was told to resume, 0: not now, -1: that cannot be. */
static int try(struct drive *drive, struct trouble *why)
{
    struct ends *ends = drive->ends;

    if (ends->destination) {
        enum reach reach = recover_reach(drive, why);

        if (reach != REACH_THERE)
            return reach == REACH_GONE ? -1 : 0;
        if (is_another(drive, why))
            return -1;
        /* A tunnel that has finished is no use to either end: both are made anew, then QEMU there listens,
         * then the source dials. */
        if ((is_over(&ends->tunnel) || is_over(&ends->destination_tunnel)) &&
            ends_renew_tunnel(ends, why) < 0)
            return 0;
        if (ends_listen_again(ends, why) < 0)
            return 0;
    } else if (is_over(&ends->tunnel)) {
        trouble_set(why, STATUS_FAILED, "the tunnel has finished, and another one needs a ticket");
        return -1;
    }
    return tunnel_check_socket(&ends->tunnel, qmp_uid(ends->qmp), why) >= 0 &&
           qemu_migrate(ends->qmp, ends->tunnel.socket, true, why) >= 0;
}

bool recover_try(struct drive *drive)
{
    _cleanup_(trouble_clear) struct trouble why = {0};
    uint64_t now = ctl_now();
    int r;

    if (drive->tried > 0 && now < drive->tried + AGAIN)
        return true;
    drive->tried = now;
    if (!drive->told) {
        meter_clear(&drive->meter);
        ctl_say(drive->ends->ctl,
                "%s: paused, for the connection was lost. It is resumed as soon as that works%s.",
                drive->ends->vm,
                drive->ends->destination ? "" : ": run 'vmferryctl receive … --resume' at the destination");
        drive->told = true;
    }
    r = try(drive, &why);
    if (r > 0) {
        drive->since = now;
        drive->resume = true;
    }
    if (r < 0) {
        message_text_set(drive->reason, sizeof(drive->reason), why.text ? why.text : "");
        return false;
    }
    if (r == 0 && why.text && strncmp(why.text, drive->reason, sizeof(drive->reason) - 1) != 0) {
        message_text_set(drive->reason, sizeof(drive->reason), why.text);
        meter_clear(&drive->meter);
        ctl_say(drive->ends->ctl, "%s: it cannot be resumed yet: %s", drive->ends->vm, drive->reason);
    }
    return true;
}
