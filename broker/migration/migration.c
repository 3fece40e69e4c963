/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/log.h"
#include "broker/net/port.h"
#include "common/cleanup.h"
#include "common/clock.h"

enum { STOP_TIMEOUT = 3000000 /* µs that a helper has to end as it was told */ };

static void finish(struct migration *migration, enum vf_error error, const char *text);

/* ---- The one setter of the state ---- */

static void set_state(struct migration *migration, enum message_state state)
{
    if (migration->state == state)
        return;
    migration_log(migration, LOG_DEBUG, NULL, "%d → %d", migration->state, state);
    migration->state = state;
    if (state == STATE_FINISHED) {
        migration->manager->n_running--;
        migration->manager->n_finished++;
    }
}

/* ---- What bounds each state ---- */

static int on_forget_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    migration_forget(userdata);
    return 0;
}

static int on_stop_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;

    (void)source;
    (void)usec;
    finish(migration, migration->ending, migration->ending_text ? migration->ending_text : "");
    return 0;
}

static int on_expired(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;
    const char *who =
        migration->role == ROLE_INCOMING ? "No source connected" : "The destination did not answer";

    (void)source;
    (void)usec;
    migration_stop(migration, VF_ERROR_TIMED_OUT, "%s within %" PRIu64 " s (expire-usec).", who,
                   migration->options.expire / 1000000);
    return 0;
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;

    (void)source;
    (void)usec;
    migration_stop(migration, VF_ERROR_TIMED_OUT, "The source QEMU did not connect within %d s.",
                   CONNECTED_IDLE / 1000000);
    return 0;
}

static sd_event_time_handler_t timer_of(const struct migration *migration)
{
    if (migration->state == STATE_FINISHED)
        return on_forget_time;
    if (migration->ending != VF_ERROR_NONE)
        return on_stop_timeout;
    if (migration->state == STATE_WAITING)
        return on_expired;
    return migration->state == STATE_CONNECTED ? on_idle : NULL;
}

void migration_arm(struct migration *migration)
{
    sd_event_time_handler_t handler = timer_of(migration);
    int r;

    migration->timer = sd_event_source_disable_unref(migration->timer);
    if (!handler || migration->deadline == 0)
        return;
    r = sd_event_add_time(migration->manager->event, &migration->timer, CLOCK_MONOTONIC, migration->deadline,
                          0, handler, migration);
    if (r < 0)
        migration_log(migration, LOG_ERR, NULL, "Failed to set a timer: %s", strerror(-r));
}

/* Bounds the current state. */
static void set_timer(struct migration *migration, uint64_t usec)
{
    migration->deadline = turn_now(migration->manager->event) + usec;
    migration_arm(migration);
}

static void clear_timer(struct migration *migration)
{
    migration->timer = sd_event_source_disable_unref(migration->timer);
    migration->deadline = 0;
}

/* ---- The end ---- */

static void drop_ticket(struct migration *migration)
{
    if (migration->ticket)
        explicit_bzero(migration->ticket, strlen(migration->ticket));
    free(migration->ticket);
    migration->ticket = NULL;
}

/* Whether its source may still come, to hear that it is over. */
static bool may_come_back(const struct migration *migration)
{
    return migration->state == STATE_INTERRUPTED ||
           (migration->state != STATE_WAITING && migration->ending != VF_ERROR_NONE);
}

/* All that it has open in the outside world. */
static void release(struct migration *migration, bool forgotten)
{
    const bool leaving = store_frozen(migration->manager->store);

    migration_drop_peers(migration);
    while (!TAILQ_EMPTY(&migration->dials))
        peer_dial_free(TAILQ_FIRST(&migration->dials));
    for (uint32_t i = 0; i < migration->options.n_streams; i++)
        stream_close(&migration->streams[i]);
    if (migration->directory && !leaving)
        qemu_socket_remove_directory(migration->directory);
    free(migration->directory);
    migration->directory = NULL;
    /* A source that was cut off comes back one day, and is to hear that it is over: until that is forgotten.
     * So may one that was not told, for the network had gone and nobody had noticed. */
    if (migration->expects_peers && (forgotten || !may_come_back(migration))) {
        port_release(migration->manager->port);
        migration->expects_peers = false;
    }
    clear_timer(migration);
    migration->tie_slot = sd_bus_slot_unref(migration->tie_slot);
    free(migration->tied_to);
    migration->tied_to = NULL;
    drop_ticket(migration);
}

void migration_free(struct migration *migration)
{
    migration_unstore(migration);
    release(migration, true);
    migration->helper = helper_link_free(migration->helper);
    stats_page_clear(&migration->page);
    manager_remove(migration->manager, migration);
    while (migration->n_waiters > 0)
        sd_bus_message_unref(migration->waiters[--migration->n_waiters]);
    options_clear(&migration->options);
    free(migration->ending_text);
    free(migration->message);
    free(migration->vm);
    free(migration);
}

/* What ErrorName and ErrorMessage say: why it ended, or why it is interrupted. */
static void set_message(struct migration *migration, enum vf_error error, const char *text)
{
    char *message = NULL;

    migration->error = error;
    free(migration->message);
    migration->message = NULL;
    if (error != VF_ERROR_NONE &&
        asprintf(&message, "Migration %s of VM '%s': %s", migration->id_text, migration->vm, text) >= 0)
        migration->message = message;
}

static void finish(struct migration *migration, enum vf_error error, const char *text)
{
    if (migration->state == STATE_FINISHED)
        return;
    set_message(migration, error, text);
    migration->result = vf_error_to_result(error);
    migration->finished = wall_now();
    stats_page_detach(&migration->page);
    release(migration, false);
    set_state(migration, STATE_FINISHED);
    set_timer(migration, FINISHED_KEPT);
    /* The helper's result is in its socket until this is stored. */
    migration_save(migration);
    if (!migration->farewell) {
        migration_unstore_helper(migration);
        migration->helper = helper_link_free(migration->helper);
    }
    migration_log_result(migration, text);
    migration_emit_changed(migration, "State", "Result", "ErrorName", "ErrorMessage", "FinishedUsec", NULL);
    migration_reply_result(migration, NULL);
}

void migration_lost(struct migration *migration, const char *why)
{
    finish(migration, VF_ERROR_HELPER_FAILED, why);
}

void migration_forget(struct migration *migration)
{
    migration_emit_removed(migration);
    migration_free(migration);
}

void migration_stop(struct migration *migration, enum vf_error error, const char *format, ...)
{
    union message m = {.end.error = error};
    char text[MESSAGE_TEXT_MAX];
    va_list args;

    if (migration->state == STATE_FINISHED || migration->ending != VF_ERROR_NONE)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    migration->ending = error;
    migration->ending_text = strdup(text);
    message_text_set(m.end.text, sizeof(m.end.text), text);
    /* Cut off, its helper cannot tell the peer before the network is back; that need not keep anybody here
     * waiting. */
    migration->farewell = migration->role == ROLE_OUTGOING && migration->state == STATE_INTERRUPTED;
    if (helper_link_send(migration->helper, MESSAGE_END, &m, -1) < 0 || migration->farewell)
        finish(migration, error, text);
    else
        set_timer(migration, STOP_TIMEOUT);
    migration_save(migration);
}

void migration_await_peer(struct migration *migration)
{
    set_timer(migration, migration->options.expire);
}

int migration_tie(struct migration *migration, sd_bus_message *m)
{
    migration->tied_to = strdup(sd_bus_message_get_sender(m));
    migration_save(migration);
    return migration->tied_to ? 0 : -ENOMEM;
}

void migration_client_gone(struct migration *migration, const char *name)
{
    for (size_t i = 0; i < migration->n_waiters;) {
        if (strcmp(sd_bus_message_get_sender(migration->waiters[i]), name) != 0) {
            i++;
            continue;
        }
        sd_bus_message_unref(migration->waiters[i]);
        migration->waiters[i] = migration->waiters[--migration->n_waiters];
    }
    if (migration->tied_to && strcmp(migration->tied_to, name) == 0)
        migration_stop(migration, VF_ERROR_CANCELLED, "Its caller has gone (tie-to-caller).");
}

void migration_answer(struct migration *migration, enum message_type type, union message *m, int fd)
{
    if (migration->helper && helper_link_send(migration->helper, type, m, fd) < 0)
        helper_link_kill(migration->helper, "did not take what it had asked for");
}

/* ---- Connecting: what the helper asks for ---- */

void migration_peer_arrived(struct migration *migration, enum peer_kind kind, int fd)
{
    union message m = {.peer = {.serial = 0, .kind = kind}};

    /* A helper that does not keep up with a flood of connections loses the newest of them, and nothing else.
     */
    if (migration->role == ROLE_INCOMING && migration->helper)
        helper_link_send(migration->helper, MESSAGE_PEER, &m, fd);
}

static void on_need_qemu(struct migration *migration, const struct message_need_qemu *m)
{
    if (migration->role != ROLE_INCOMING || m->stream >= migration->options.n_streams ||
        migration->streams[m->stream].dialling) {
        helper_link_kill(migration->helper, "asked for a QEMU that it cannot have");
        return;
    }
    stream_connect(&migration->streams[m->stream], m->channel);
}

/* ---- Connected, active ---- */

/* Which states a helper can bring about from which. */
static bool may_follow(const struct migration *migration, uint32_t state)
{
    static const unsigned follows[STATE_MAX_] = {
        [STATE_WAITING] = 1U << STATE_CONNECTED,
        [STATE_CONNECTED] = 1U << STATE_ACTIVE | 1U << STATE_INTERRUPTED,
        [STATE_ACTIVE] = 1U << STATE_INTERRUPTED,
        [STATE_INTERRUPTED] = 1U << STATE_CONNECTED | 1U << STATE_ACTIVE,
    };

    /* To a new broker it says the one in which it is, which may be that which is known. */
    if (migration->restored)
        return state == STATE_CONNECTED || state == STATE_ACTIVE || state == STATE_INTERRUPTED;
    return follows[migration->state] & (1U << state);
}

static void on_state(struct migration *migration, const struct message_state_changed *m)
{
    if (m->state >= STATE_MAX_ || !may_follow(migration, m->state) ||
        !message_text_ok(m->peer, sizeof(m->peer)) || !message_text_ok(m->text, sizeof(m->text))) {
        helper_link_kill(migration->helper, "claimed a state that cannot follow");
        return;
    }
    if (migration->sync == 0)
        migration->restored = false; /* it has said in which state it is, and goes on from there */
    if (migration->state == m->state)
        return;
    if (strcmp(migration->peer, m->peer) != 0) {
        strcpy(migration->peer, m->peer);
        migration_emit_changed(migration, "Peer", NULL);
    }
    if (migration->state == STATE_WAITING) {
        drop_ticket(migration);
        migration_log(migration, LOG_INFO, LOG_CONNECTED, "Connected to %s.", migration->peer);
    }
    set_message(migration, m->state == STATE_INTERRUPTED ? VF_ERROR_INTERRUPTED : VF_ERROR_NONE, m->text);
    if (m->state == STATE_INTERRUPTED && log_sample(&migration->n_interruptions))
        migration_log(migration, LOG_WARNING, NULL, "Interrupted: %s", m->text);
    set_state(migration, m->state);
    if (migration->ending == VF_ERROR_NONE) {
        if (m->state == STATE_CONNECTED)
            set_timer(migration, CONNECTED_IDLE);
        else
            clear_timer(migration);
    }
    migration_save(migration);
    migration_emit_changed(migration, "State", "ErrorName", "ErrorMessage", NULL);
}

void migration_set_limit(struct migration *migration, uint64_t bytes_per_second)
{
    union message m = {.limit.bandwidth_limit = bytes_per_second};

    migration->options.bandwidth_limit = bytes_per_second;
    migration_save(migration);
    if (migration->helper)
        helper_link_send(migration->helper, MESSAGE_LIMIT, &m, -1);
    migration_emit_changed(migration, "BandwidthLimit", NULL);
}

/* ---- Finished ---- */

static void on_result(struct migration *migration, const struct message_result *m)
{
    const char *result = vf_result_to_string(m->result);

    if (!vf_error_to_string(m->error) || !result || m->result != (uint32_t)vf_error_to_result(m->error) ||
        !message_text_ok(m->text, sizeof(m->text))) {
        helper_link_kill(migration->helper, "reported a result that cannot be");
        return;
    }
    finish(migration, m->error, m->text);
}

static void end_farewell(struct migration *migration)
{
    migration->farewell = false;
    migration_save(migration);
    migration_unstore_helper(migration);
    migration->helper = helper_link_free(migration->helper);
}

static void on_message(struct helper_link *link, const union message *m, int fd, void *userdata)
{
    struct migration *migration = userdata;

    fd_closep(&fd); /* a relay hands us none; the table sees to it */
    if (m->header.type == MESSAGE_SYNCED && migration->restored) {
        if (m->synced.cookie == migration->sync)
            migration->sync = 0;
        return;
    }
    if (migration->sync != 0 && (m->header.type == MESSAGE_NEED_PEER || m->header.type == MESSAGE_NEED_QEMU))
        return;
    if (migration->state == STATE_FINISHED && m->header.type != MESSAGE_NEED_PEER) {
        if (m->header.type == MESSAGE_RESULT)
            end_farewell(migration); /* the peer knows, or never will */
        return;
    }
    switch (m->header.type) {
    case MESSAGE_NEED_PEER:
        peer_dial_start(migration, &m->need_peer);
        break;
    case MESSAGE_NEED_QEMU:
        on_need_qemu(migration, &m->need_qemu);
        break;
    case MESSAGE_STATE:
        on_state(migration, &m->state_changed);
        break;
    case MESSAGE_RESULT:
        on_result(migration, &m->result);
        break;
    case MESSAGE_LOG:
        migration_log_helper(migration, &m->log);
        break;
    default:
        helper_link_kill(link, "sent a message that a relay may not send");
    }
}

static void on_helper_gone(struct helper_link *link, const char *why, void *userdata)
{
    struct migration *migration = userdata;
    char text[640];

    (void)link;
    if (migration->state == STATE_FINISHED) {
        end_farewell(migration);
        return;
    }
    if (migration->ending != VF_ERROR_NONE) {
        finish(migration, migration->ending, migration->ending_text ? migration->ending_text : "");
        return;
    }
    snprintf(text, sizeof(text),
             "Its helper %s%s%s. The QEMUs have lost their connections; start the migration anew.", why,
             migration->helper_unit[0] != '\0' ? "; its unit was " : "", migration->helper_unit);
    finish(migration, VF_ERROR_HELPER_FAILED, text);
}

const struct helper_handlers migration_helper_handlers = {
    .message = on_message,
    .gone = on_helper_gone,
    .unit = migration_on_helper_unit,
};
