/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One migration as the broker sees it. migration-setup.c makes it, or migration-restore.c makes it again;
 * migration.c tells its story from then on, in the order of its states; stream.c makes the connections to the
 * local QEMU; migration-dbus.c is its face on the bus.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-bus.h>

#include "broker/helpers/link.h"
#include "broker/helpers/process.h"
#include "broker/helpers/stats-page.h"
#include "broker/manager.h"
#include "broker/migration/options.h"
#include "broker/net/dial.h"
#include "broker/net/ticket.h"
#include "broker/sockets/qemu-socket.h"
#include "broker/sockets/supplied.h"
#include "broker/store.h"
#include "common/error.h"
#include "common/message.h"

#define MIGRATION_PATH_MAX 64
#define WAITERS_MAX        64 /* Wait() calls on one migration at once */
#define SUPPLIED_MAX       64 /* sockets by OpenStream and AddStream that no channel has taken yet, a stream */

/* One named socket of QEMU's. */
struct stream {
    struct migration *migration;
    uint32_t index;
    char path[QEMU_SOCKET_PATH_MAX];
    /* Outgoing: QEMU connects to us. */
    int listener; /* owned; −1: none */
    sd_event_source *accept;
    /* Incoming: we connect to QEMU, for one channel at a time. */
    bool dialling;
    uint32_t channel;
    uint64_t deadline;     /* µs */
    uint64_t pause;        /* µs until the next try */
    int dial;              /* owned; by which that is tried, and which is in the FD store before; −1 */
    uint32_t dial_channel; /* for which that is */
    sd_event_source *retry;
    struct {
        int fd;          /* owned */
        bool ours;       /* nobody else holds it, so that its flags stay as they are */
        uint32_t number; /* in the FD store */
    } supplied[SUPPLIED_MAX];
    size_t n_supplied;
};

/* A peer connection that the helper asked for. */
struct peer_dial {
    TAILQ_ENTRY(peer_dial) entry;
    struct migration *migration;
    uint32_t serial;
    enum peer_kind kind;
    struct dial *dial;      /* owned; NULL: waits for AddPeerConnection */
    sd_event_source *timer; /* bounds that wait */
};

struct migration {
    TAILQ_ENTRY(migration) entry;
    LIST_ENTRY(migration) same_bucket;
    struct manager *manager; /* borrowed */
    enum message_role role;
    enum message_state state;
    enum vf_result result;
    enum vf_error error;
    uint64_t id;
    char id_text[17];
    char path[MIGRATION_PATH_MAX]; /* on the bus */
    char *vm;                      /* owned */
    char *message;                 /* owned; why it ended as it did; NULL: nothing to say */
    char peer[MESSAGE_ADDRESS_MAX];
    uid_t uid; /* whose call made it */
    struct socket_owner owner;
    struct options options; /* owned; endpoints: what is announced, or dialled */
    char *ticket; /* owned; incoming, until a peer has come: the text, for the same client-id again */
    enum message_security security;
    uint64_t started;  /* µs, CLOCK_REALTIME */
    uint64_t finished; /* µs, CLOCK_REALTIME */
    char *directory;   /* owned; of the default sockets; NULL: none was made */
    struct stream streams[MESSAGE_STREAMS_MAX];
    struct helper_link *helper;        /* owned */
    char helper_unit[HELPER_UNIT_MAX]; /* stays known when the helper has gone; "": none, or not yet */
    bool expects_peers;                /* holds the peer port */
    uint32_t n_helper_logs;
    uint32_t n_interruptions;
    uint32_t n_strangers;   /* connections of others to its sockets */
    uint32_t n_over_quota;  /* connections beyond MaxChannelsPerUser=, MaxChannelsInAll= */
    struct stats_page page; /* the helper's counters */
    struct supplied supplied;
    TAILQ_HEAD(, peer_dial) dials;
    uint32_t n_dials;
    enum vf_error ending;     /* it was told to end by this; its helper has yet to confirm */
    char *ending_text;        /* owned */
    bool farewell;            /* finished, but its helper goes on to tell the peer */
    sd_event_source *timer;   /* what bounds the state it is in */
    uint64_t deadline;        /* when that is; µs, CLOCK_MONOTONIC; 0: nothing does */
    bool stored;              /* it is in the FD store, and what changes is told there */
    uint32_t record_number;   /* of its last record there */
    uint32_t supplied_number; /* of the last socket that was supplied */
    bool restored; /* another broker had made it, and its helper has yet to say in which state it is */
    uint64_t sync; /* its helper has yet to answer SYNC with this: what it asked before is void; 0: it has */
    sd_bus_slot *tie_slot; /* whether that is still there */
    char *tied_to;         /* owned; tie-to-caller: its name on the bus; NULL: not tied */
    sd_bus_message *waiters[WAITERS_MAX];
    size_t n_waiters;
};

/*
 * PrepareIncoming: makes the migration with its sockets and its helper, opens the port; ret_ticket holds the
 * ticket. Takes what options hold. ≥ 0, or negative with error set: then nothing is left.
 */
int migration_prepare(struct manager *manager, const char *vm, struct options *options, uid_t uid,
                      struct migration **ret, sd_bus_error *error);

/* StartOutgoing: the same from the ticket; dials. */
int migration_start(struct manager *manager, const char *vm, const char *ticket, struct options *options,
                    uid_t uid, struct migration **ret, sd_bus_error *error);

/* The gate has a peer connection for it; borrows fd. */
void migration_peer_arrived(struct migration *migration, enum peer_kind kind, int fd);

/* Ends it by this error, through its helper; the state is finished when that has confirmed. */
void migration_stop(struct migration *migration, enum vf_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The caller goes, it goes (tie-to-caller). ≥ 0 or a negative errno. */
int migration_tie(struct migration *migration, sd_bus_message *m);

/* A client has gone from the bus: it waits no more, and what is tied to it ends. */
void migration_client_gone(struct migration *migration, const char *name);

/* What the helper asked for; one that cannot take it would wait for ever, and is ended. Borrows fd. */
void migration_answer(struct migration *migration, enum message_type type, union message *m, int fd);

void migration_set_limit(struct migration *migration, uint64_t bytes_per_second);

/* A socketpair for a stream; ret is the caller's. ≥ 0, or negative with error set. */
int migration_open_stream(struct migration *migration, uint32_t stream, int *ret, sd_bus_error *error);

/* AddStream: a caller's connection to QEMU; borrows fd. ≥ 0, or negative with error set. */
int migration_add_stream(struct migration *migration, uint32_t stream, int fd, sd_bus_error *error);

/* AddPeerConnection: a caller's connection to the peer; borrows fd. ≥ 0, or negative with error set. */
int migration_add_peer(struct migration *migration, int fd, sd_bus_error *error);

/* The oldest of those that wait for a channel, the caller's; −1: none. */
int migration_take_peer(struct migration *migration);
void migration_drop_peers(struct migration *migration);

/* A finished one is forgotten: the object is gone. */
void migration_forget(struct migration *migration);

/* Gives up all that is the broker's, without a word on the bus: for one that could not be made, and at the
 * end. */
void migration_free(struct migration *migration);

/* ---- migration-setup.c: for migration-restore.c ---- */

/* One with nothing in it but its names; takes what options hold. 0 or a negative errno. */
int migration_new(struct manager *manager, enum message_role role, uint64_t id, const char *vm,
                  struct options *options, uid_t uid, struct migration **ret);

/* ---- migration.c: for those two ---- */

/* Sets the timer again that bounds its state, at its deadline. */
void migration_arm(struct migration *migration);

/* The end of one that can have no helper any more. */
void migration_lost(struct migration *migration, const char *why);

/* Bounds the time until its peer comes. */
void migration_await_peer(struct migration *migration);

/* What its helper says, and that it is gone. */
extern const struct helper_handlers migration_helper_handlers;

/* ---- migration-log.c ---- */

/* message_id: LOG_* of log.h, or NULL. */
void migration_log(const struct migration *migration, int priority, const char *message_id,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));

/* For migration.c: that it is finished; what its helper wants to be told; in which unit that runs. */
void migration_log_result(const struct migration *migration, const char *text);
void migration_log_helper(struct migration *migration, const struct message_log *m);
void migration_on_helper_unit(struct helper_link *link, void *userdata);

/* ---- migration-store.c ---- */

/* The name in the store of something that is this migration's. */
void migration_store_name(const struct migration *migration, char ret[static STORE_NAME_MAX],
                          const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A socket of it that waits to be needed: room stays for the next record of each that runs. Borrows fd. */
void migration_store_socket(const struct migration *migration, const char *name, int fd);

/* It is made: from here on it outlives the broker. */
void migration_store(struct migration *migration);

/* Stores what it is now, in place of what was stored before; before anybody is told. */
void migration_save(struct migration *migration);

/* What is over goes from the store: the helper and its page, or all. Sockets go where they are closed. */
void migration_unstore_helper(struct migration *migration);
void migration_unstore(struct migration *migration);

/* Room in the store for one more; the oldest finished ones pay. ≥ 0, or negative with error set. */
int migration_make_room(struct manager *manager, uint32_t n_streams, sd_bus_error *error);

/* ---- migration-restore.c ---- */

/* Makes all that was stored again. What is left over in the store belongs to nobody. */
void migration_restore_all(struct manager *manager);

/* Once the bus is there: what is tied to clients that went meanwhile ends. */
void migration_check_ties(struct manager *manager);

/* ---- ticketing.c: for migration-setup.c ---- */

/* Makes the ticket of an incoming migration, and its secret. ≥ 0, or negative with error set. */
int ticket_issue(struct migration *migration, uint8_t secret[static MESSAGE_SECRET_SIZE],
                 sd_bus_error *error);

/* Reads a ticket and holds it against this host, the clock and the options. ≥ 0, or negative with error set.
 */
int ticket_accept(struct manager *manager, const char *text, const struct options *options,
                  struct ticket *ret, sd_bus_error *error);

/* ---- peer-dial.c: for migration.c ---- */

/* Dials the peer for the helper, which gets the connection or the reason why there is none. */
void peer_dial_start(struct migration *migration, const struct message_need_peer *m);
void peer_dial_free(struct peer_dial *dial);

/* Hands the peer connections that managers brought to those that wait for one. */
void peer_dial_supply(struct migration *migration);

/* ---- stream.c: for migration.c ---- */

/* The paths of its sockets, with a directory of its own where the caller gave none. ≥ 0, or negative with
 * error set. */
int streams_make_paths(struct migration *migration, sd_bus_error *error);

/* Outgoing: listens. ≥ 0, or negative with error set. */
int stream_listen(struct stream *stream, sd_bus_error *error);

/* Outgoing: accepts on the listener that there is. 0 or a negative errno. */
int stream_accept(struct stream *stream);

/* Incoming: connects to QEMU for this channel, with retries until the deadline; the outcome goes to the
 * helper. */
void stream_connect(struct stream *stream, uint32_t channel);

/* A connection to QEMU that is there already; takes fd. ours: nobody else holds it. */
int stream_supply(struct stream *stream, int fd, bool ours, sd_bus_error *error);

/* The same for one that was supplied to the broker before this one, under this number. Takes fd. */
void stream_restore(struct stream *stream, int fd, bool ours, uint32_t number);

/* The same for one that was connecting for this channel, or connected. Takes fd. */
void stream_restore_dial(struct stream *stream, int fd, uint32_t channel);

void stream_close(struct stream *stream);

/* ---- migration-dbus.c ---- */

int migration_export(struct manager *manager);

/* The migration that a message is for; NULL with error set. */
struct migration *migration_find_for(struct manager *manager, sd_bus_message *m, sd_bus_error *error);
void migration_emit_changed(struct migration *migration, const char *property, ...) __attribute__((sentinel));
void migration_emit_new(struct migration *migration);
void migration_emit_removed(struct migration *migration);

/* Answers one Wait(), or all that wait. */
void migration_reply_result(struct migration *migration, sd_bus_message *m);
const char *migration_role_text(const struct migration *migration);
const char *migration_state_text(const struct migration *migration);
