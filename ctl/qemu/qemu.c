/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/qemu.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/message.h"

/* ---- What it says ---- */

static enum qemu_phase phase_of(const char *status)
{
    static const struct {
        const char *status;
        enum qemu_phase phase;
    } phases[] = {
        {"", QEMU_NONE},
        {"none", QEMU_NONE},
        {"postcopy-active", QEMU_POSTCOPY},
        {"postcopy-device", QEMU_POSTCOPY},
        {"postcopy-recover", QEMU_POSTCOPY},
        {"postcopy-recover-setup", QEMU_POSTCOPY},
        {"postcopy-paused", QEMU_PAUSED},
        {"completed", QEMU_DONE},
        {"failed", QEMU_FAILED},
        {"cancelled", QEMU_CANCELLED},
    };

    for (unsigned i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
        if (strcmp(status, phases[i].status) == 0)
            return phases[i].phase;
    return QEMU_PRECOPY; /* setup, active, device, wait-unplug, pre-switchover, cancelling */
}

uint64_t qemu_downtime(uint64_t downtime_msec, uint64_t total_msec)
{
    return downtime_msec <= total_msec ? downtime_msec : total_msec > 0;
}

void qemu_read_info(json_object *object, struct qemu_info *ret)
{
    json_object *ram = NULL;
    uint64_t pages;

    *ret = (struct qemu_info){0};
    message_text_set(ret->status, sizeof(ret->status), record_text(object, "status"));
    message_text_set(ret->error, sizeof(ret->error), record_text(object, "error-desc"));
    ret->phase = phase_of(ret->status);
    ret->total_msec = record_number(object, "total-time");
    ret->downtime_msec = qemu_downtime(record_number(object, "downtime"), ret->total_msec);
    if (!json_object_object_get_ex(object, "ram", &ram) || !json_object_is_type(ram, json_type_object))
        return;
    ret->total = record_number(ram, "total");
    ret->remaining = record_number(ram, "remaining");
    ret->transferred = record_number(ram, "transferred");
    ret->passes = record_number(ram, "dirty-sync-count");
    pages = record_number(ram, "dirty-pages-rate");
    if (__builtin_mul_overflow(pages, record_number(ram, "page-size"), &ret->dirty))
        ret->dirty = 0;
}

/* A source says "completed" a moment before it knows how long that took (QEMU 7.2). */
static bool times_are_missing(json_object *object, const struct qemu_info *info)
{
    return info->phase == QEMU_DONE && info->total_msec == 0 &&
           json_object_object_get_ex(object, "total-time", NULL);
}

static int query(struct qmp *qmp, struct qemu_info *ret, bool *ret_missing, struct trouble *trouble)
{
    _cleanup_json_ json_object *object = NULL;

    if (qmp_execute(qmp, "query-migrate", NULL, &object, trouble) < 0)
        return -1;
    qemu_read_info(object, ret);
    *ret_missing = times_are_missing(object, ret);
    return 0;
}

int qemu_query(struct qmp *qmp, struct qemu_info *ret, struct trouble *trouble)
{
    bool missing;

    return query(qmp, ret, &missing, trouble);
}

void qemu_query_times(struct qmp *qmp, struct qemu_info *info)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    struct qemu_info now;
    bool missing;

    for (int i = 0; i < 50 && query(qmp, &now, &missing, NULL) >= 0; i++) {
        if (now.phase == info->phase)
            *info = now;
        if (!missing)
            return;
        nanosleep(&pause, NULL);
    }
}

int qemu_run_state(struct qmp *qmp, char ret[static 32], struct trouble *trouble)
{
    _cleanup_json_ json_object *object = NULL;

    if (qmp_execute(qmp, "query-status", NULL, &object, trouble) < 0)
        return -1;
    message_text_set(ret, 32, record_text(object, "status"));
    return 0;
}

/* ---- Whether it can ---- */

static int check_paused(struct qmp *qmp, const char *vm, struct trouble *trouble)
{
    struct qemu_info info;

    if (qemu_query(qmp, &info, trouble) < 0)
        return -1;
    if (info.phase == QEMU_PAUSED)
        return 0;
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' cannot be resumed: %s says that its migration is '%s', not 'postcopy-paused'.%s", vm,
        qmp_name(qmp), info.status[0] ? info.status : "none",
        info.phase == QEMU_POSTCOPY ? " It goes on, or has not noticed the loss yet: wait, or tell it "
                                      "'migrate-pause'."
                                    : "");
}

int qemu_check_source(struct qmp *qmp, const char *vm, bool resume, struct trouble *trouble)
{
    struct qemu_info info;
    char state[32];

    if (resume)
        return check_paused(qmp, vm, trouble);
    if (qemu_run_state(qmp, state, trouble) < 0 || qemu_query(qmp, &info, trouble) < 0)
        return -1;
    if (strcmp(state, "inmigrate") == 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' cannot be sent: %s waits for a VM to come in. Is it that of the other host?", vm,
            qmp_name(qmp));
    if (strcmp(state, "postmigrate") == 0 || strcmp(state, "finish-migrate") == 0)
        return trouble_set(trouble, STATUS_FAILED,
                           "VM '%s' cannot be sent: %s has sent it away already (%s).", vm, qmp_name(qmp),
                           state);
    if (info.phase == QEMU_PAUSED)
        return trouble_set(
            trouble, STATUS_FAILED,
            "VM '%s' is in the middle of a post-copy that is paused. Give --resume to recover it.", vm);
    if (info.phase == QEMU_PRECOPY || info.phase == QEMU_POSTCOPY)
        return trouble_set(trouble, STATUS_FAILED, "VM '%s' cannot be sent: %s is migrating it already (%s).",
                           vm, qmp_name(qmp), info.status);
    return 0;
}

int qemu_check_destination(struct qmp *qmp, const char *vm, bool resume, struct trouble *trouble)
{
    char state[32];

    if (resume)
        return check_paused(qmp, vm, trouble);
    if (qemu_run_state(qmp, state, trouble) < 0)
        return -1;
    if (strcmp(state, "inmigrate") == 0)
        return 0;
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' cannot be received: %s is '%s'. Start it with -incoming defer, as the source was started.",
        vm, qmp_name(qmp), state);
}

/* ---- What it is told ---- */

static json_object *uri_of(const char *socket)
{
    json_object *arguments = json_object_new_object();
    char uri[128];

    snprintf(uri, sizeof(uri), "unix:%s", socket); /* at most 107 bytes */
    json_object_object_add(arguments, "uri", json_object_new_string(uri));
    return arguments;
}

/* The same as QEMU 8.2 and later have it: a path is not part of a URI there. */
static json_object *channels_of(const char *socket)
{
    json_object *arguments = json_object_new_object(), *channels = json_object_new_array();
    json_object *channel = json_object_new_object(), *address = json_object_new_object();

    json_object_object_add(address, "transport", json_object_new_string("socket"));
    json_object_object_add(address, "type", json_object_new_string("unix"));
    json_object_object_add(address, "path", json_object_new_string(socket));
    json_object_object_add(channel, "channel-type", json_object_new_string("main"));
    json_object_object_add(channel, "addr", address);
    json_object_array_add(channels, channel);
    json_object_object_add(arguments, "channels", channels);
    return arguments;
}

static json_object *place_of(const struct qmp *qmp, const char *socket)
{
    return qmp_is_at_least(qmp, 8, 2) ? channels_of(socket) : uri_of(socket);
}

int qemu_migrate(struct qmp *qmp, const char *socket, bool resume, struct trouble *trouble)
{
    json_object *arguments = place_of(qmp, socket);

    if (resume)
        json_object_object_add(arguments, "resume", json_object_new_boolean(true));
    return qmp_execute(qmp, "migrate", arguments, NULL, trouble);
}

int qemu_listen(struct qmp *qmp, const char *socket, bool recover, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};
    const char *hint = "";

    if (qmp_execute(qmp, recover ? "migrate-recover" : "migrate-incoming",
                    recover ? uri_of(socket) : place_of(qmp, socket), NULL, &refused) >= 0)
        return 0;
    if (refused.text && strstr(refused.text, "already been started"))
        hint =
            ". It was told to listen before, and can do that once: end this QEMU, and start it anew with "
            "-incoming defer.";
    return trouble_set(trouble, refused.status, "%s%s%s", refused.text ? refused.text : "QEMU cannot listen.",
                       hint, qemu_hint_at_owner(refused.text));
}

const char *qemu_hint_at_owner(const char *error)
{
    return error && strstr(error, "Permission denied") ? ". Does QEMU run as another user than the one to "
                                                         "whom the tunnel's socket was given? Name its "
                                                         "user with --socket-owner=."
                                                       : "";
}
