/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/check-tunnel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/stream.h"
#include "ctl/bus/tunnel.h"
#include "ctl/ssh/relay.h"
#include "ctl/units.h"

#define WARM_UP   (SECOND / 2)
#define MEASURE   (2 * SECOND)
#define SKEW_WARN (2 * SECOND)
#define SKEW_FAIL (50 * SECOND)       /* a ticket is good for 60 s unless told otherwise */
#define WINDOW    ((uint64_t)4 << 20) /* vmferryd's default for --window= */

/* A tunnel between the two, and what carries its bytes. */
struct trial {
    struct check *check;
    struct tunnel source, destination;
    uint64_t began, made; /* when the destination and when the source was asked, by our clock */
    struct remote *sink;
    pid_t pump, drain;
};

/* A child that only moves bytes; takes nothing, keeps fd alone. */
static pid_t start_mover(int fd, void (*move)(int fd))
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    relay_detach(fd, fd);
    move(fd);
    _exit(0);
}

static void stop_mover(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    relay_reap(pid);
}

static void pump(int fd)
{
    static const char zeros[256 * 1024];

    while (write(fd, zeros, sizeof(zeros)) > 0 || errno == EINTR)
        ;
}

static bool start_drain(struct trial *trial, struct trouble *trouble)
{
    const char *const what[] = {"sink", trial->destination.path, NULL};
    _cleanup_fd_ int fd = -1;

    if (trial->check->destination->host)
        return remote_open(trial->check->ctl, trial->check->destination->host, false, what, &trial->sink,
                           trouble) >= 0;
    fd = stream_open(&trial->destination, trouble);
    if (fd >= 0)
        trial->drain = start_mover(fd, stream_drain);
    return fd >= 0;
}

static bool start_pump(struct trial *trial, struct trouble *trouble)
{
    _cleanup_fd_ int fd = stream_open(&trial->source, trouble);

    if (fd >= 0)
        trial->pump = start_mover(fd, pump);
    return fd >= 0;
}

/* Lets the loop turn for so long, or until Ctrl-C. */
static void turn_for(struct ctl *ctl, uint64_t usec)
{
    for (uint64_t now = ctl_now(), end = now + usec; now < end && ctl->interrupts == 0; now = ctl_now())
        if (ctl_turn(ctl, end - now, NULL) < 0)
            return;
}

static uint64_t received(struct trial *trial)
{
    _cleanup_json_ json_object *record = NULL;

    return tunnel_read(&trial->destination, &record, NULL) < 0 ? 0 : record_number(record, "BytesReceived");
}

static void measure(struct trial *trial)
{
    _cleanup_json_ json_object *record = NULL;
    char rate_text[UNITS_TEXT_MAX], trip_text[UNITS_TEXT_MAX], remedy[160];
    uint64_t first, from, rate, trip, needed;

    turn_for(trial->check->ctl, WARM_UP);
    first = received(trial);
    from = ctl_now();
    turn_for(trial->check->ctl, MEASURE);
    rate = (received(trial) - first) * SECOND / (ctl_now() - from + 1);
    if (tunnel_read(&trial->source, &record, NULL) < 0)
        return;
    trip = record_number(record, "RoundTripUsec");
    format_size(rate, rate_text);
    format_time(trip, trip_text);
    if (rate == 0) {
        check_found(trial->check, VERDICT_FAIL, "speed",
                    "Something on the way may swallow large packets: look at the MTU of both hosts, and at "
                    "firewalls.",
                    "The tunnel is connected, and carries nothing.");
        return;
    }
    check_found(trial->check, VERDICT_OK, "speed", NULL, "%s/s through one channel (%s).", rate_text,
                record_text(record, "Security"));
    needed = rate * trip / SECOND;
    if (needed <= WINDOW - WINDOW / 8) {
        check_found(trial->check, VERDICT_OK, "round trip", NULL, "%s under load.", trip_text);
        return;
    }
    snprintf(remedy, sizeof(remedy),
             "If that speed is the limit, start vmferryd with --window=%" PRIu64 " at the source.",
             2 * (needed >> 20) + 1);
    check_found(trial->check, VERDICT_WARN, "round trip", remedy,
                "%s under load: the window may bound the speed.", trip_text);
}

static void check_speed(struct trial *trial)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};

    if (trial->check->source->host)
        return; /* what measures has to be at the source */
    if (start_drain(trial, &trouble) && start_pump(trial, &trouble))
        measure(trial);
    else
        check_found(trial->check, VERDICT_WARN, "speed", NULL, "It cannot be measured: %s",
                    trouble.text ? trouble.text : "");
}

static void check_clock(struct trial *trial)
{
    _cleanup_json_ json_object *here = NULL, *there = NULL;
    int64_t skew, between = (int64_t)(trial->made - trial->began);
    uint64_t off;
    char text[UNITS_TEXT_MAX];

    if (tunnel_read(&trial->source, &here, NULL) < 0 || tunnel_read(&trial->destination, &there, NULL) < 0)
        return;
    /* The source's object was made later, but not by more than passed here. */
    skew = (int64_t)(record_number(here, "StartedUsec") - record_number(there, "StartedUsec"));
    off = skew < 0 ? -(uint64_t)skew : skew > between ? (uint64_t)(skew - between) : 0;
    format_time(off, text);
    if (off < SKEW_WARN)
        check_found(trial->check, VERDICT_OK, "clock", NULL, "The hosts' clocks agree.");
    else
        check_found(trial->check, off > SKEW_FAIL ? VERDICT_FAIL : VERDICT_WARN, "clock",
                    "Let both follow the same time server (timedatectl set-ntp true), or give --expire=.",
                    "The source's clock is %s %s: tickets expire by it.", text,
                    skew < 0 ? "behind" : "ahead");
}

/* Whether it comes about, and why not. */
static bool check_port(struct trial *trial)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    _cleanup_json_ json_object *record = NULL;
    const char *error;

    if (tunnel_wait_connected(&trial->source, &trouble) >= 0) {
        if (tunnel_read(&trial->source, &record, NULL) >= 0)
            check_found(trial->check, VERDICT_OK, "tunnel", NULL, "Connected to %s over %s.",
                        record_text(record, "Peer"), record_text(record, "Security"));
        return true;
    }
    if (tunnel_read(&trial->source, &record, NULL) < 0)
        return false;
    error = record_text(record, "ErrorName");
    check_found(trial->check, VERDICT_FAIL, "tunnel",
                strstr(error, "PeerUnreachable")
                    ? "Let the destination's firewall accept that port (TCP 16520 unless "
                      "--listen= says otherwise), or use --ssh."
                : strstr(error, "TicketExpired")    ? "Let both hosts' clocks follow the same time server."
                : strstr(error, "ProtocolMismatch") ? "Upgrade the older host."
                                                    : "See the brokers' logs on both hosts.",
                "%s", record_text(record, "ErrorMessage"));
    return false;
}

static bool is_loopback(const char *endpoint)
{
    return strncmp(endpoint, "tcp:127.", 8) == 0 || strncmp(endpoint, "tcp:[::1]", 9) == 0;
}

static const char *endpoint_at(json_object *list, size_t i)
{
    json_object *one = list ? json_object_array_get_idx(list, i) : NULL;

    return json_object_is_type(one, json_type_string) ? json_object_get_string(one) : "";
}

/* While a migration is expected: the addresses that its ticket has, and not what the broker listens on. */
static void check_endpoints(struct check *check)
{
    _cleanup_json_ json_object *broker = NULL;
    json_object *list = record_read(check->destination, BROKER_PATH, BROKER_NAME, &broker, NULL) >= 0
                            ? record_list(broker, "Endpoints")
                            : NULL;
    char all[200] = "";
    size_t n = 0, near = 0;

    for (; list && n < json_object_array_length(list); n++) {
        size_t size = strlen(all);

        near += is_loopback(endpoint_at(list, n));
        snprintf(all + size, sizeof(all) - size, "%s%s", n > 0 ? " " : "", endpoint_at(list, n));
    }
    if (n == 0)
        check_found(check, VERDICT_FAIL, "endpoints", "Give vmferryd --listen=tcp:ADDRESS, or use --ssh.",
                    "The broker%s listens nowhere.", check->destination->where);
    else if (near == n)
        check_found(check, VERDICT_WARN, "endpoints", "Give vmferryd --listen=tcp:ADDRESS, or use --ssh.",
                    "The broker%s listens on loopback alone: no other host can reach it.",
                    check->destination->where);
    else
        check_found(check, VERDICT_OK, "endpoints", NULL, "Peers are told to reach the broker%s at %s.",
                    check->destination->where, all);
}

static bool make(struct trial *trial, const char *vm)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    bool denied, expired;

    trial->began = ctl_now();
    if (tunnel_prepare(trial->check->destination, vm, NULL, &trial->destination, &ticket, &trouble) >= 0 &&
        tunnel_start(trial->check->source, vm, ticket, NULL, &trial->source, &trouble) >= 0) {
        trial->made = ctl_now();
        check_found(
            trial->check, VERDICT_OK, "migration", NULL, "One may be made; its sockets are below %.*s.",
            (int)(strlen(trial->destination.socket) - strlen("/migrate.sock")), trial->destination.socket);
        return true;
    }
    denied = trouble.status == STATUS_DENIED;
    expired = trouble.text && strstr(trouble.text, "expired");
    check_found(trial->check, VERDICT_FAIL, "migration",
                denied    ? "Run it as root, or as the user as whom the broker runs."
                : expired ? "Let both hosts' clocks follow the same time server (timedatectl set-ntp true)."
                          : "See the brokers' logs on both hosts.",
                "%s", trouble.text ? trouble.text : "");
    return false;
}

void check_tunnel(struct check *check)
{
    struct trial trial = {.check = check};
    char vm[64];
    bool made;

    snprintf(vm, sizeof(vm), "vmferryctl-check-%d", (int)getpid());
    made = make(&trial, vm);

    check_endpoints(check);
    if (made) {
        check_clock(&trial);
        if (check_port(&trial))
            check_speed(&trial);
    }
    stop_mover(trial.pump);
    stop_mover(trial.drain);
    tunnel_forget(&trial.source);
    tunnel_forget(&trial.destination);
    remote_free(trial.sink);
}
