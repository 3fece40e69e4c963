/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/end.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include "common/address.h"
#include "helper/control/outbox.h"
#include "helper/session/complete.h"

/* The broker logs it with --verbose only. */
static void log_change(const struct session *session, const char *what, const char *from, const char *to)
{
    link_log(session->link, LOG_DEBUG, "%s: %s → %s", what, from, to);
}

static void refuse(const struct session *session, const char *what, const char *from, const char *to)
{
    link_log(session->link, LOG_ERR, "%s: %s → %s cannot be.", what, from, to);
}

void session_set_state(struct session *session, enum message_state state)
{
    static const char *const names[] = {
        [STATE_WAITING] = "waiting",         [STATE_CONNECTED] = "connected", [STATE_ACTIVE] = "active",
        [STATE_INTERRUPTED] = "interrupted", [STATE_FINISHED] = "finished",
    };

    if (session_is_over(session) || state == session->state)
        return;
    /* WAITING is the first state, FINISHED is set by session_end() alone: the broker hears of it as a RESULT.
     */
    if (state == STATE_WAITING || state == STATE_FINISHED ||
        (session->state == STATE_ACTIVE && state == STATE_CONNECTED)) {
        refuse(session, "state", names[session->state], names[state]);
        return;
    }
    log_change(session, "state", names[session->state], names[state]);
    session->state = state;
    session_tell_state(session);
}

static void update_halted(struct session *session)
{
    session->halted = session_is_over(session) || session->connection == CONNECTION_BROKEN;
}

/*
 *     AWAITED --proof--> GREETING --HELLO--> UP
 *        ^                  ^  \              |
 *        |                  |   \-- lost --   | lost
 *        |               proof           \    v
 *        +---- WAITING: begin_again() --- BROKEN --session_clean_up()--> DOWN --proof--> GREETING
 *
 * BROKEN lasts until the loop calls session_clean_up(). Meanwhile no object reads or sends (`halted`), but
 * all of them are still there, since a caller up the stack may be one of them.
 */
bool session_set_connection(struct session *session, enum connection connection)
{
    static const char *const names[] = {
        [CONNECTION_AWAITED] = "awaited", [CONNECTION_GREETING] = "greeting", [CONNECTION_UP] = "up",
        [CONNECTION_BROKEN] = "broken",   [CONNECTION_DOWN] = "down",
    };
    static const enum connection from[][2] = {
        [CONNECTION_AWAITED] = {CONNECTION_BROKEN, CONNECTION_BROKEN},
        [CONNECTION_GREETING] = {CONNECTION_AWAITED, CONNECTION_DOWN},
        [CONNECTION_UP] = {CONNECTION_GREETING, CONNECTION_GREETING},
        [CONNECTION_BROKEN] = {CONNECTION_GREETING, CONNECTION_UP},
        [CONNECTION_DOWN] = {CONNECTION_BROKEN, CONNECTION_BROKEN},
    };

    if (session->connection != from[connection][0] && session->connection != from[connection][1]) {
        refuse(session, "connection", names[session->connection], names[connection]);
        return false;
    }
    log_change(session, "connection", names[session->connection], names[connection]);
    session->connection = connection;
    update_halted(session);
    return true;
}

void session_set_recovery(struct session *session, enum recovery_stage stage)
{
    static const char *const names[] = {
        [RECOVERY_NONE] = "none",
        [RECOVERY_AWAITS_NETWORK] = "awaits the network",
        [RECOVERY_AWAITS_QEMU] = "awaits QEMU",
    };

    if (stage == session->recovery.stage)
        return;
    log_change(session, "recovery", names[session->recovery.stage], names[stage]);
    /* Each has a timer of its own length. */
    session->recovery.timer = sd_event_source_disable_unref(session->recovery.timer);
    session->recovery.stage = stage;
}

void session_set_ending(struct session *session, enum ending_stage stage)
{
    static const char *const names[] = {
        [ENDING_NONE] = "none", [ENDING_FAREWELL] = "farewell", [ENDING_OVER] = "over"};

    assert(session->ending.stage <= ENDING_OVER); /* else GCC sees a state beyond the last one below */
    if (stage < session->ending.stage) {
        refuse(session, "ending", names[session->ending.stage], names[stage]);
        return;
    }
    if (stage > session->ending.stage)
        log_change(session, "ending", names[session->ending.stage], names[stage]);
    session->ending.stage = stage;
    update_halted(session);
}

void session_tell_state(struct session *session)
{
    union message m = {.state_changed = {.state = session->state, .features = HELPER_OUTCOMES}};
    int fd = control_fd(session->control);

    if (fd >= 0)
        address_of_peer(fd, m.state_changed.peer);
    if (session->state == STATE_INTERRUPTED)
        message_text_set(m.state_changed.text, sizeof(m.state_changed.text), session->why);
    link_send(session->link, MESSAGE_STATE, &m, -1);
}

static int on_linger_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    link_exit(session->link);
    return 0;
}

static void tell_broker(struct session *session, enum vf_error error, const char *text)
{
    union message m = {0};

    m.result.result = vf_error_to_result(error);
    m.result.error = error;
    message_text_set(m.result.text, sizeof(m.result.text), text);
    if (!link_send(session->link, MESSAGE_RESULT, &m, -1))
        link_log(session->link, LOG_NOTICE, "Migration %016" PRIx64 " ended without its broker: %s. %s",
                 session->id, vf_result_to_string(m.result.result), m.result.text);
}

void session_end(struct session *session, enum vf_error error, bool tell_peer, const char *format, ...)
{
    struct frame abort = {.type = FRAME_ABORT};
    char text[2 * MESSAGE_TEXT_MAX];
    va_list args;

    if (session_is_over(session))
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (tell_peer) {
        abort.refusal.error = error;
        message_text_set(abort.refusal.text, sizeof(abort.refusal.text), text);
        control_leave_word(session->control, &abort); /* control_linger() sends it */
    }
    /* Sets `halted`: whatever the lines below call, no event comes back into the session, and nothing is
     * freed, since a channel, a peer or the control connection may have called this. session_free() frees
     * all. */
    session_set_ending(session, ENDING_OVER);
    session->state = STATE_FINISHED;
    session->tick = sd_event_source_disable_unref(session->tick);
    session_drop_holds(session);
    channels_quit(session->channels);
    peers_quit(session->peers);
    /* The peer first: what the broker closes then must not tell it less. */
    if (sd_event_add_time_relative(session->event, &session->ending.linger, CLOCK_MONOTONIC, LINGER, 0,
                                   on_linger_end, session) < 0)
        link_exit(session->link);
    else
        control_linger(session->control);
    tell_broker(session, error, text);
}

void session_end_done(struct session *session)
{
    session_end(session, VF_ERROR_NONE, false, "%s", "");
}

void session_end_violated(void *userdata, uint32_t channel, const char *what)
{
    session_end(userdata, VF_ERROR_PROTOCOL_MISMATCH, true, "The peer sent %s (channel %" PRIu32 "). " ADVICE,
                what, channel);
}
