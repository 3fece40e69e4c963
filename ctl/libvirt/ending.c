/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/ending.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "ctl/libvirt/places.h"
#include "ctl/libvirt/report.h"
#include "ctl/libvirt/view.h"
#include "ctl/libvirt/way.h"
#include "ctl/shell.h"
#include "ctl/units.h"

#define LOOK     (SECOND / 4)
#define END_WAIT (10 * SECOND) /* for the tunnel's last words */
#define GRACE    (30 * SECOND) /* for QEMU to go on by itself once the tunnel does */

/* ---- The words ---- */

static void close_far(struct move *move)
{
    host_close(&move->far); /* its connection may be one of the tunnel's */
    move->far.where = "";
}

static void print_json(struct move *move, json_object *record, const struct places *places)
{
    json_object *libvirt = json_object_new_object();

    json_object_object_add(libvirt, "Source", json_object_new_string(domain_state_text(places->near)));
    json_object_object_add(libvirt, "Destination", json_object_new_string(domain_state_text(places->far)));
    json_object_object_add(libvirt, "Persistent", json_object_new_boolean(places->far_persistent));
    json_object_object_add(libvirt, "TotalMsec", json_object_new_uint64(move->stats.elapsed_msec));
    json_object_object_add(libvirt, "DowntimeMsec", json_object_new_uint64(move->stats.downtime_msec));
    json_object_object_add(record, "Libvirt", libvirt);
    record_print_json(move->ctl, record);
}

static void say_done(struct move *move, json_object *record, const struct places *places)
{
    char took[UNITS_TEXT_MAX], stood[UNITS_TEXT_MAX], sent[UNITS_TEXT_MAX];
    bool timed = move->stats.downtime_msec > 0; /* libvirt forgets it where it called the migration failed */
    bool confirmed = record && strcmp(record_text(record, "Result"), "done") == 0;

    format_time(ctl_now() - move->since, took);
    format_time(move->stats.downtime_msec * 1000, stood);
    format_size(record ? record_number(record, "BytesSent") : 0, sent);
    ctl_say(move->ctl, "%s: done after %s; %s%s%s%s sent. At the destination it %s%s.", move->vm, took,
            timed ? "it stood still for " : "", timed ? stood : "", timed ? "; " : "", sent,
            domain_state_text(places->far),
            places->far_persistent ? ", and stays defined"
            : move->persistent     ? "; it is not defined there"
                                   : "");
    if (!confirmed)
        ctl_say(move->ctl, "The tunnel could not confirm it (%s); libvirt has.",
                record && record_text(record, "ErrorMessage")[0] ? record_text(record, "ErrorMessage")
                                                                 : "no answer");
}

/* What --undefinesource would have done, which libvirt forgets after a loss. */
static void undefine_source(struct move *move, struct places *places)
{
    const struct libvirt *libvirt = move->near.libvirt;

    if (!move->persistent || move->ctl->arguments.temporary || places->near != DOMAIN_OFF ||
        !places->near_persistent)
        return;
    if (!places->far_persistent)
        ctl_say(move->ctl,
                "libvirt has not defined %s at the destination, so its definition stays at the source: virsh "
                "dumpxml "
                "and virsh define carry it over.",
                move->vm);
    else if (libvirt->virDomainUndefineFlags(move->domain, VIR_DOMAIN_UNDEFINE_KEEP_NVRAM |
                                                               VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                                                               VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA) < 0)
        ctl_say(move->ctl, "%s is still defined at the source (%s): virsh undefine.", move->vm,
                libvirt_words(libvirt));
}

/* libvirt does not carry it over: where the definition moves, it has to come along. */
static void set_autostart(struct move *move, virDomainPtr there)
{
    if (!there || move->far.libvirt->virDomainSetAutostart(there, 1) < 0)
        ctl_say(move->ctl,
                "%s does not start with its host at the destination as it did at the source%s%s: virsh "
                "autostart.",
                move->far_name, there ? "; libvirt says: " : "",
                there ? libvirt_words(move->far.libvirt) : "");
}

/* What is left to do at the destination, and what its libvirt alone knows. */
static void see_there(struct move *move, const struct places *places)
{
    const struct libvirt *libvirt = move->near.libvirt;
    virDomainPtr there =
        move->far.connection ? libvirt->virDomainLookupByUUIDString(move->far.connection, move->uuid) : NULL;
    struct job_stats stats;

    if (there && job_read(libvirt, there, true, &stats))
        move->stats = stats;
    if (move->autostart && !move->ctl->arguments.temporary && places->far_persistent)
        set_autostart(move, there);
    if (there)
        libvirt->virDomainFree(there);
}

static int end_done(struct move *move, struct places *places)
{
    _cleanup_json_ json_object *record = NULL;

    see_there(move, places);
    undefine_source(move, places);
    move_report(move, VF_OUTCOME_MOVED, places->far, "");
    close_far(move);
    tunnel_wait_finished(&move->tunnel, END_WAIT, &record, NULL);
    meter_clear(&move->meter);
    say_done(move, record, places);
    if (move->ctl->arguments.json != JSON_OFF && record)
        print_json(move, record, places);
    return STATUS_DONE;
}

/* Where it is after a migration that failed, in ret. */
static enum vf_outcome tell_where(const struct places *places, char *ret, size_t size)
{
    if (places_both_run(places)) {
        snprintf(ret, size, "It runs on both hosts: stop one of them at once (virsh destroy)");
        return VF_OUTCOME_UNKNOWN;
    }
    if (places->near == DOMAIN_RUNS || (places->near == DOMAIN_PAUSED && is_gone(places->far))) {
        snprintf(ret, size, "It %s at the source", places->near == DOMAIN_RUNS ? "runs on" : "stays paused");
        return VF_OUTCOME_NOT_MOVED;
    }
    snprintf(ret, size, "At the source it %s, at the destination it %s", domain_state_text(places->near),
             domain_state_text(places->far));
    return VF_OUTCOME_UNKNOWN;
}

static int end_failed(struct move *move, const struct places *places, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    const char *words = job_code(move->job) == VIR_ERR_OK ? "it has moved" : job_words(move->job);
    const char *remedy = plan_remedy(job_code(move->job), words), *why = "";
    bool cancelled = move->stage == MOVE_CANCELLED || plan_is_cancelled(job_code(move->job));
    char where[200];
    enum vf_outcome outcome = tell_where(places, where, sizeof(where));
    int status;

    close_far(move);
    if (tunnel_wait_finished(&move->tunnel, SECOND, &record, NULL) > 0) {
        why = record_text(record, "ErrorMessage");
        /* Another vmferryctl may have cancelled the tunnel, so that libvirt has lost the other host. */
        cancelled = cancelled || (outcome == VF_OUTCOME_NOT_MOVED &&
                                  strcmp(record_text(record, "Result"), "cancelled") == 0);
    }
    status = places_both_run(places) ? STATUS_BOTH_RUN : cancelled ? STATUS_CANCELLED : STATUS_FAILED;
    move_report(move, outcome, places->near, words);
    way_undo(move);
    meter_clear(&move->meter);
    return trouble_set(trouble, status, "%sVM '%s' has not moved. %s. libvirt says: %s.%s%s%s%s",
                       status == STATUS_CANCELLED ? "Cancelled: " : "", move->vm, where, words,
                       remedy[0] ? " " : "", remedy, why[0] ? " The tunnel says: " : "", why);
}

/* In post-copy, and its QEMU at the destination has ended: each had a part of its memory. */
static int end_lost(struct move *move, struct trouble *trouble)
{
    char quoted[SHELL_COMMAND_MAX];

    close_far(move);
    move_report(move, VF_OUTCOME_LOST, DOMAIN_UNKNOWN, job_words(move->job));
    way_undo(move);
    meter_clear(&move->meter);
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' is lost: it was in post-copy, and its domain at the destination is gone. End "
        "what is left of it at the source (virsh destroy %s), and start it anew from its disks. "
        "The reason stands in the log of its QEMU there (/var/log/libvirt/qemu). libvirt says: "
        "%s.",
        move->vm, shell_word(move->vm, quoted), job_words(move->job));
}

static int end_paused(struct move *move, struct trouble *trouble)
{
    char command[SHELL_COMMAND_MAX], rest[SHELL_COMMAND_MAX] = "--resume";

    meter_clear(&move->meter);
    if (move->host)
        shell_append(rest, sizeof(rest), move->host);
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' is in post-copy, and its QEMUs have lost each other: nothing is lost, and neither QEMU "
        "must be ended. Recover it: %s. libvirt says: %s.",
        move->vm, shell_vmferryctl("migrate", move->vm, rest, command), job_words(move->job));
}

static void leave_peers(struct move *move)
{
    if (move->peers)
        peers_leave(move->peers);
    move->peers = NULL;
}

/* The source's libvirtd is gone, and does not come back: the QEMUs may need the tunnel. */
static int end_unknown(struct move *move, struct trouble *trouble)
{
    char quoted[SHELL_COMMAND_MAX];

    meter_clear(&move->meter);
    close_far(move);
    leave_peers(move);
    return trouble_set(
        trouble, STATUS_FAILED,
        "libvirt at the source does not answer any more, so nobody can tell where VM '%s' is. The tunnel is "
        "left, for its QEMUs may be in post-copy. Start libvirtd there, and look at both hosts (virsh "
        "domstate "
        "%s --reason); where it is not in post-copy: vmferryctl cancel %s. libvirt said: %s.",
        move->vm, shell_word(move->vm, quoted), tunnel_id(&move->tunnel), job_words(move->job));
}

int ending_detached(struct move *move, struct trouble *trouble)
{
    meter_clear(&move->meter);
    leave_peers(move);
    if (move->stage != MOVE_POSTCOPY && !is_in_postcopy(move->near_state))
        return trouble_set(trouble, STATUS_FAILED,
                           "libvirt has not cancelled the migration of VM '%s' yet, and does what it does "
                           "without this command "
                           "from here on. See where the VM is on both hosts (virsh domstate), and how the "
                           "tunnel is: vmferryctl "
                           "status %s",
                           move->vm, tunnel_id(&move->tunnel));
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' is in post-copy, where nothing can be cancelled: it goes on by itself%s. See how it "
        "goes: vmferryctl watch %s",
        move->vm, move->p2p ? "" : ", though libvirt will call it failed, because its client is gone",
        tunnel_id(&move->tunnel));
}

/* Whether the tunnel keeps QEMU's connections until the network is back. Once it has given them up it is
 * interrupted, too, until the QEMUs recover. */
static bool awaits_network(json_object *record)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return strcmp(record_text(record, "State"), "interrupted") == 0 &&
           record_number(record, "GivesUpUsec") >
               (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec / 1000;
}

/*
 * libvirt has given up a post-copy, by its keepalive, or has called one failed that goes on: the QEMUs
 * decide. Waits for what becomes of it. 1: it has moved, 0: it is paused until it is recovered, or -1.
 */
static int follow(struct move *move, struct places *places, struct trouble *trouble)
{
    uint64_t silent = ctl_now(), sent = 0;
    bool said = false;

    for (;;) {
        _cleanup_json_ json_object *record = NULL;

        places_look(move, places);
        if (places_moved(places))
            return 1;
        if (!is_in_postcopy(places->near) && places->near != DOMAIN_UNKNOWN)
            return 0;
        if (tunnel_read(&move->tunnel, &record, NULL) < 0)
            record = json_object_new_object();
        move->near_state = places->near;
        move_read_stats(move);
        view_move(move, record);
        way_look_far(move);
        if (move->far_broken)
            return 0;
        if (awaits_network(record)) {
            silent = ctl_now();
            if (!said) {
                meter_clear(&move->meter);
                ctl_say(move->ctl,
                        "%s: the network is lost. There is nothing to do: it goes on when it is back. "
                        "Ctrl-C leaves it to itself.",
                        move->vm);
            }
            said = true;
        }
        if (record_number(record, "BytesSent") != sent)
            silent = ctl_now(); /* the QEMUs go on */
        sent = record_number(record, "BytesSent");
        if (ctl_now() > silent + GRACE)
            return 0;
        if (move->ctl->interrupts > 0)
            return ending_detached(move, trouble);
        if (ctl_turn(move->ctl, LOOK, trouble) < 0)
            return -1;
    }
}

int ending_of(struct move *move, struct trouble *trouble)
{
    struct places places;
    int r;

    places_look(move, &places);
    if (job_code(move->job) == VIR_ERR_OK || places_moved(&places)) {
        if (places_moved(&places) || places.far == DOMAIN_UNKNOWN)
            return end_done(move, &places);
        return end_failed(move, &places, trouble);
    }
    if (!is_in_postcopy(places.near) && places.near != DOMAIN_UNKNOWN)
        return end_failed(move, &places, trouble);
    r = follow(move, &places, trouble);
    if (r > 0)
        return end_done(move, &places);
    if (r < 0)
        return -1;
    if (places.near == DOMAIN_UNKNOWN)
        return end_unknown(move, trouble);
    if (!is_in_postcopy(places.near))
        return end_failed(move, &places, trouble);
    return is_gone(places.far) ? end_lost(move, trouble) : end_paused(move, trouble);
}
