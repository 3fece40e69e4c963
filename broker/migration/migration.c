/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/migration/accounts.h"
#include "broker/migration/internal.h"
#include "broker/migration/log.h"
#include "broker/migration/news.h"
#include "broker/migration/persist.h"
#include "broker/migration/stream-dial.h"
#include "broker/migration/streams.h"
#include "broker/migration/supply.h"
#include "broker/migration/telling.h"
#include "broker/net/port.h"
#include "common/cleanup.h"
#include "common/clock.h"

static void finish(struct migration *migration, enum vf_error error, const char *text);

/* ---- How it stands ---- */

const struct identity *migration_identity(const struct migration *migration)
{
    return &migration->entry.identity;
}

const struct options *migration_options(const struct migration *migration)
{
    return &migration->options;
}

const struct migration_status *migration_status(const struct migration *migration)
{
    return &migration->status;
}

const struct stats_page *migration_page(const struct migration *migration)
{
    return &migration->helper.page;
}

struct telling *migration_telling(struct migration *migration)
{
    return &migration->telling;
}

const char *migration_socket_path(const struct migration *migration, uint32_t stream)
{
    return migration->streams.each[stream].path;
}

static enum message_state state_of(const struct migration *migration)
{
    return migration->entry.identity.state;
}

static void tell_changed(const struct migration *migration, unsigned what)
{
    migration->services->events->changed(migration->services->userdata, migration, what);
}

void migration_tell(struct migration *migration, unsigned changed)
{
    migration_save(migration);
    tell_changed(migration, changed);
}

/* ---- That it is told to end ---- */

/* It is told once; the helper's farewell ends, and then it stays told. */
static bool set_ending(struct migration *migration, enum ending_stage stage)
{
    static const char *const names[] = {"not ending", "told to end", "saying farewell"};
    const enum ending_stage old = migration->ending.stage;

    if (stage == ENDING_NO || old == stage || (old == ENDING_TOLD && stage == ENDING_FAREWELL)) {
        migration_log(&migration->entry.identity, LOG_ERR, NULL, "It is %s, and cannot be %s.", names[old],
                      names[stage]);
        return false;
    }
    migration_log(&migration->entry.identity, LOG_DEBUG, NULL, "%s → %s", names[old], names[stage]);
    migration->ending.stage = stage;
    return true;
}

/* Ends as it was told. */
static void finish_told(struct migration *migration)
{
    finish(migration, migration->ending.error, migration->ending.text ? migration->ending.text : "");
}

/* ---- What bounds each state ---- */

static void on_expired(struct migration *migration)
{
    const char *what = migration->entry.identity.role == ROLE_INCOMING ? "No source connected"
                                                                       : "The destination did not answer";

    migration_stop(migration, VF_ERROR_TIMED_OUT, "%s within %" PRIu64 " s (expire-usec).", what,
                   migration->options.expire / 1000000);
}

int migration_on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;

    if (state_of(migration) == STATE_FINISHED)
        migration_forget(migration);
    else if (migration->ending.stage != ENDING_NO)
        finish_told(migration);
    else if (state_of(migration) == STATE_WAITING)
        on_expired(migration);
    else if (state_of(migration) == STATE_CONNECTED)
        migration_stop(migration, VF_ERROR_TIMED_OUT, "The source QEMU did not connect within %" PRIu64 " s.",
                       migration->services->timing->idle / 1000000);
    return 0;
}

/* ---- The end ---- */

/* Whether its source may still come, to hear that it is over. */
static bool may_come_back(const struct migration *migration)
{
    return state_of(migration) == STATE_INTERRUPTED ||
           (state_of(migration) != STATE_WAITING && migration->ending.stage != ENDING_NO);
}

/* All that it has open in the outside world. */
static void release(struct migration *migration, bool forgotten)
{
    peer_dials_clear(&migration->dials);
    supplied_clear(&migration->supplied);
    streams_close(&migration->streams);
    /* A source that was cut off comes back one day, and is to hear that it is over: until that is forgotten.
     * So may one that was not told, for the network had gone unnoticed. */
    if (migration->expects_peers && (forgotten || !may_come_back(migration))) {
        port_release(migration->services->port);
        migration->expects_peers = false;
    }
    bound_clear(&migration->bound);
    news_take(&migration->news);
    news_take(&migration->progress_news);
    free(migration->options.tied_to);
    migration->options.tied_to = NULL;
    status_drop_ticket(&migration->status);
}

/* Unstored first: a broker that is killed below must not leave a record of sockets that are closed already.
 * (In a frozen store all stays, for the next broker.) */
void migration_free(struct migration *migration)
{
    if (state_of(migration) == STATE_FINISHED && !store_frozen(migration->services->store))
        accounts_add(migration->services, &migration->entry, &migration->status);
    migration_unstore(migration);
    release(migration, true);
    helper_side_clear(&migration->helper);
    registry_remove(migration->services->registry, &migration->entry);
    options_clear(&migration->options);
    free(migration->ending.text);
    free(migration->status.message);
    identity_clear(&migration->entry.identity);
    free(migration);
}

static void drop_helper(struct migration *migration)
{
    migration_unstore_helper(migration);
    migration->helper.link = helper_link_free(migration->helper.link);
}

/*
 * The one end. The order matters:
 *
 *     counters detached   the page is the helper's, which goes away below
 *     release()           before the state is FINISHED: may_come_back() reads the old one
 *     accounts_set_state  ends the interrupted time, which accounts_add() counts
 *     stored              before the link is dropped: a broker that is killed in between finds the result
 *                         in the record; the other way round it would find neither helper nor result
 *     told                last: a client that hears of it reads the final values
 *
 * `text` may be the ending's own (finish_told()), which migration_free() frees, not this.
 */
static void finish(struct migration *migration, enum vf_error error, const char *text)
{
    const struct migration_services *services = migration->services;
    unsigned changed;

    if (state_of(migration) == STATE_FINISHED)
        return;
    changed =
        CHANGE_STATE | CHANGE_RESULT | news_take(&migration->news) | news_take(&migration->progress_news);
    status_set_error(&migration->status, &migration->entry.identity, error, text);
    migration->status.result = vf_error_to_result(error);
    migration->status.finished = wall_now();
    migration->status.gives_up = 0;
    stats_page_detach(&migration->helper.page);
    release(migration, false);
    accounts_set_state(migration->services, &migration->entry, STATE_FINISHED);
    registry_set_state(services->registry, &migration->entry, STATE_FINISHED);
    if (migration->status.report.by != REPORT_BY_NOBODY)
        accounts_add(migration->services, &migration->entry, &migration->status);
    bound_set(&migration->bound, services->timing->kept);
    /* The helper's result is in its socket until this is stored. */
    migration_save(migration);
    if (migration->ending.stage != ENDING_FAREWELL)
        drop_helper(migration);
    migration_log_result(&migration->entry.identity, migration->status.result, text,
                         migration->helper.page.stats);
    tell_changed(migration, changed);
    services->events->finished(services->userdata, migration);
}

void migration_lost(struct migration *migration, const char *why)
{
    finish(migration, VF_ERROR_HELPER_FAILED, why);
}

void migration_forget(struct migration *migration)
{
    migration->services->events->removed(migration->services->userdata, migration);
    migration_free(migration);
}

void migration_stop(struct migration *migration, enum vf_error error, const char *format, ...)
{
    const struct identity *identity = &migration->entry.identity;
    union message m = {.end.error = error};
    char text[MESSAGE_TEXT_MAX];
    bool farewell;
    va_list args;

    if (identity->state == STATE_FINISHED || migration->ending.stage != ENDING_NO)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    migration->ending.error = error;
    migration->ending.text = strdup(text);
    message_text_set(m.end.text, sizeof(m.end.text), text);
    /* Cut off, its helper cannot tell the peer before the network is back; the caller here does not wait for
     * that. */
    farewell = identity->role == ROLE_OUTGOING && identity->state == STATE_INTERRUPTED;
    set_ending(migration, farewell ? ENDING_FAREWELL : ENDING_TOLD);
    /* A helper that has not ended by then hangs; on_deadline() ends the migration without it. */
    if (helper_side_send(&migration->helper, MESSAGE_END, &m, -1) < 0 || farewell)
        finish(migration, error, text);
    else
        bound_set(&migration->bound, migration->services->timing->stop);
    migration_save(migration);
}

void migration_await_peer(struct migration *migration)
{
    bound_set(&migration->bound, migration->options.expire);
}

/* ---- Connecting: what the helper asks for ---- */

void migration_peer_arrived(struct migration *migration, enum peer_kind kind, const struct message_mark *mark,
                            int fd)
{
    bool marked = mark && helper_side_has(&migration->helper, OFFER_MARKS);
    union message m = {.peer = {.serial = 0, .kind = kind}};

    /* A helper that does not keep up with a flood of connections loses the newest of them, and nothing else:
     * there is room left for the answers to what it asks. */
    if (marked)
        m.peer_marked.mark = *mark;
    if (migration->entry.identity.role == ROLE_INCOMING && helper_side_has_room(&migration->helper))
        helper_side_send(&migration->helper, marked ? MESSAGE_PEER_MARKED : MESSAGE_PEER, &m, fd);
}

static void on_need_qemu(struct migration *migration, const struct message_need_qemu *m)
{
    if (migration->entry.identity.role != ROLE_INCOMING || m->stream >= migration->options.n_streams ||
        migration->streams.each[m->stream].dialling) {
        helper_side_kill(&migration->helper, "asked for a QEMU that it cannot have");
        return;
    }
    stream_connect(&migration->streams.each[m->stream], m->channel);
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

    /* A helper of the broker before this one says in which state it is: it may have missed out some since the
     * last one that was stored, or say the same again. */
    if (migration->helper.voice != VOICE_OURS)
        return state == STATE_CONNECTED || state == STATE_ACTIVE || state == STATE_INTERRUPTED;
    return follows[state_of(migration)] & (1U << state);
}

/* It proved itself to its peer, lost it, or has it again. */
static void enter_state(struct migration *migration, const struct message_state_changed *m, bool another_peer)
{
    struct entry *entry = &migration->entry;

    if (entry->identity.state == STATE_WAITING) {
        status_drop_ticket(&migration->status);
        migration_log(&entry->identity, LOG_INFO, LOG_CONNECTED, "Connected to %s.", migration->status.peer);
    }
    if (m->state != STATE_INTERRUPTED)
        peer_dials_proved(&migration->dials);
    migration->status.gives_up =
        m->state == STATE_INTERRUPTED ? wall_now() + migration->options.resume_timeout : 0;
    status_set_error(&migration->status, &entry->identity,
                     m->state == STATE_INTERRUPTED ? VF_ERROR_INTERRUPTED : VF_ERROR_NONE, m->text);
    if (m->state == STATE_INTERRUPTED &&
        log_sample(&migration->interruptions, "interruptions of a migration"))
        migration_log(&entry->identity, LOG_WARNING, NULL, "Interrupted: %s", m->text);
    accounts_set_state(migration->services, &migration->entry, (enum message_state)m->state);
    registry_set_state(migration->services->registry, entry, (enum message_state)m->state);
    if (migration->ending.stage == ENDING_NO) {
        if (m->state == STATE_CONNECTED)
            bound_set(&migration->bound, migration->services->timing->idle);
        else
            bound_clear(&migration->bound);
    }
    news_tell(&migration->news, CHANGE_STATE | (another_peer ? CHANGE_PEER : 0));
}

static void on_state(struct migration *migration, const struct message_state_changed *m)
{
    /* A loss and its recovery take 200 ms at least, which is the source's pause before it dials again. */
    static const struct rate_limit often = {.per_second = 20, .burst = 100};
    bool another_peer = strcmp(migration->status.peer, m->peer) != 0;

    if (!rate_take(&migration->said, &often, 1, turn_now(migration->services->event))) {
        helper_side_kill(&migration->helper, "changed its state more often than 20 times a second");
        return;
    }
    if (m->state >= STATE_MAX_ || !may_follow(migration, m->state) ||
        !message_text_ok(m->peer, sizeof(m->peer)) || !message_text_ok(m->text, sizeof(m->text))) {
        helper_side_kill(&migration->helper, "claimed a state that cannot follow");
        return;
    }
    /* The first state of a helper that was taken over: from now on may_follow() holds it to the table. */
    helper_side_settled(&migration->helper);
    if (m->features != migration->telling.features)
        telling_features(&migration->telling, m->features);
    if (state_of(migration) == m->state)
        return;
    if (another_peer)
        strcpy(migration->status.peer, m->peer);
    enter_state(migration, m, another_peer);
}

void migration_set_limit(struct migration *migration, uint64_t bytes_per_second)
{
    union message m = {.limit.bandwidth_limit = bytes_per_second};

    migration->options.bandwidth_limit = bytes_per_second;
    migration_save(migration);
    helper_side_send(&migration->helper, MESSAGE_LIMIT, &m, -1);
    tell_changed(migration, CHANGE_LIMIT);
}

/* ---- Finished ---- */

static void on_result(struct migration *migration, const struct message_result *m)
{
    const char *result = vf_result_to_string(m->result);

    if (!vf_error_to_string(m->error) || !result || m->result != (uint32_t)vf_error_to_result(m->error) ||
        !message_text_ok(m->text, sizeof(m->text))) {
        helper_side_kill(&migration->helper, "reported a result that cannot be");
        return;
    }
    finish(migration, m->error, m->text);
}

/* The peer knows, or never will. */
static void end_farewell(struct migration *migration)
{
    if (migration->ending.stage == ENDING_FAREWELL)
        set_ending(migration, ENDING_TOLD);
    migration_save(migration);
    drop_helper(migration);
}

/* ---- What the helper says ---- */

static void on_message(struct helper_link *link, const union message *m, int fd, void *userdata)
{
    struct migration *migration = userdata;

    fd_closep(&fd); /* a relay hands us none; the table sees to it */
    if (!helper_side_hears(&migration->helper, m)) {
        if (m->header.type == MESSAGE_FEATURES)
            supply_hand_over(migration);
        return;
    }
    /* Finished, but its helper still says farewell to the peer: for that it may dial, and no more. */
    if (state_of(migration) == STATE_FINISHED && m->header.type != MESSAGE_NEED_PEER) {
        if (m->header.type == MESSAGE_RESULT)
            end_farewell(migration);
        return;
    }
    switch (m->header.type) {
    case MESSAGE_NEED_PEER:
        peer_dials_ask(&migration->dials, &m->need_peer);
        break;
    case MESSAGE_NEED_QEMU:
        on_need_qemu(migration, &m->need_qemu);
        break;
    case MESSAGE_STATE:
        on_state(migration, &m->state_changed);
        break;
    case MESSAGE_PEER_OUTCOME:
        telling_peer_outcome(&migration->telling, &m->peer_outcome.outcome);
        break;
    case MESSAGE_RESULT:
        on_result(migration, &m->result);
        break;
    case MESSAGE_KEPT:
        supply_kept(migration, &m->kept);
        break;
    case MESSAGE_LOG:
        migration_log_helper(&migration->entry.identity, &m->log, &migration->helper.logs);
        break;
    default:
        helper_link_kill(link, "sent a message that a relay may not send");
    }
}

static void on_gone(struct helper_link *link, const char *why, void *userdata)
{
    struct migration *migration = userdata;
    const char *unit = migration->entry.identity.unit;
    char text[640];

    if (state_of(migration) == STATE_FINISHED) {
        end_farewell(migration);
        return;
    }
    if (migration->ending.stage != ENDING_NO) {
        finish_told(migration);
        return;
    }
    snprintf(text, sizeof(text),
             "Its helper %s%s%s. The QEMUs have lost their connections; start the migration anew.", why,
             unit[0] != '\0' ? "; its unit was " : "", unit);
    finish(migration, VF_ERROR_HELPER_FAILED, text);
}

static void on_unit(struct helper_link *link, void *userdata)
{
    struct migration *migration = userdata;
    struct identity *identity = &migration->entry.identity;

    snprintf(identity->unit, sizeof(identity->unit), "%s", helper_link_unit(link));
    if (identity->unit[0] == '\0')
        return;
    migration_save(migration);
    migration_log(identity, LOG_DEBUG, NULL, "Its helper is %s.", identity->unit);
    if (migration->stored) /* else it is told with all the rest of a new one */
        tell_changed(migration, CHANGE_UNIT);
}

const struct helper_handlers migration_helper_handlers = {
    .message = on_message, .gone = on_gone, .unit = on_unit};
