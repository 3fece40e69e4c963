/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One migration in its helper: the control connection, the channels and the peer connections that have not
 * proved themselves yet. Everything of it lives in tables of fixed size inside this struct, so that nothing
 * that an event handler holds can be freed under it; the struct goes when the event loop has ended.
 *
 *     session.c        from START to RESULT: what the broker says, the ends of a migration
 *     interruption.c   a lost connection to the peer: dialling again, and giving up
 *     sync.c           what it asks of the broker, and again of one that has come anew
 *     peer.c           a peer connection until it has proved itself
 *     peer-failure.c   what the migration comes to when one fails at the source
 *     control.c        the control connection: frames, acknowledgements
 *     heartbeat.c      what is done once a second: pings, the rate, who has been silent for too long
 *     control-end.c    the last words on it
 *     channel.c        one connection of QEMU's and the two flows over it
 *     channel-announce.c what the source tells of its channels
 *     channel-dial.c   the destination's connections to QEMU, one at a time
 *     channel-pace.c   the bandwidth limit
 *     channel-worker.c the channels whose bytes another thread moves
 *
 * All of it is the first thread's. What a worker may touch too, once a channel is its own, are the channel's
 * flows, what its carriers hold, and what stands under "with its worker" below: with the worker's lock.
 */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "carrier.h"
#include "common/error.h"
#include "common/stats.h"
#include "flow.h"
#include "link.h"
#include "pacer.h"
#include "proof.h"
#include "protocol.h"

#define SESSION_PEERS_MAX      (STATS_CHANNELS_MAX + 64) /* peer connections that are not there yet, at once */
#define SESSION_PEER_DEADLINE  10000000                  /* µs in which one must be there */
#define SESSION_CONTROL_RING   ((size_t)128 * 1024)      /* far more than is ever on the way */
#define SESSION_TICK           1000000 /* µs between the source's pings, and over which the rate is taken */
#define SESSION_TICK_GRACE     250000  /* µs that the destination waits longer for one */
#define SESSION_TRIP           10000000 /* µs after which the destination, too, measures the round trip again */
#define SESSION_SILENCE_MAX    10       /* ticks without a word on the control connection: it is lost */
#define SESSION_SILENCE_RESUME 4        /* the same where channels survive it: a false alarm costs little */
#define SESSION_ACK_DELAY      10000    /* µs that an acknowledgement may wait for more to acknowledge */
#define SESSION_ROUND          5000     /* µs in which each channel has its share of the bandwidth limit */
#define SESSION_GRACE          100000  /* µs until a silent channel is connected to QEMU all the same */
#define SESSION_LINGER         2000000 /* µs for the last frame to reach the peer */
#define SESSION_RECOVERY       86400000000ULL /* µs in which to recover a paused post-copy: a day */
#define SESSION_REJECTIONS     3 /* in a row, until it is believed that the peer has given the migration up */
#define SESSION_REDIAL_FIRST   200000  /* µs until the peer is dialled again after a loss, doubled up to */
#define SESSION_REDIAL_MAX     5000000 /* this, give or take a quarter */

struct session;

enum peer_stage {
    PEER_UNUSED,
    PEER_PREAMBLE, /* connecting: the preamble goes out */
    PEER_GREETING, /* accepting, from a manager: the preamble comes in; the gate reads all others */
    PEER_PROOF,    /* the handshake of its security */
    PEER_HELLO,    /* channel: the channel hellos cross */
    PEER_PARKED,   /* channel: proved, but its OPEN is still on the way on the control connection */
    PEER_LINGER,   /* accepting: it was told that it is refused, and may read that */
};

struct peer {
    struct session *session;
    enum peer_stage stage;
    enum peer_kind kind;
    bool connecting;
    bool shared;
    bool hello_sent;
    uint32_t serial; /* connecting: of the NEED_PEER */
    uint32_t channel;
    uint64_t since; /* µs */
    size_t preamble_sent;
    struct carrier *carrier; /* owned */
    struct ring in, out;     /* for the channel hellos, and for the refusal */
};

enum channel_stage {
    CHANNEL_UNUSED,
    CHANNEL_OPENING, /* one of its two connections is missing */
    CHANNEL_OPEN,
    CHANNEL_CLOSED, /* its numbers stay in the stats page; the slot may be used again */
};

enum dial_stage {
    DIAL_NOT_YET,
    DIAL_ASKED, /* the broker was asked to connect to QEMU */
    DIAL_DONE,
};

struct channel {
    struct session *session;
    enum channel_stage stage;
    uint32_t number;
    uint32_t stream;
    enum dial_stage dial;    /* destination */
    bool announced;          /* source: OPEN was sent and a peer connection asked for */
    bool graced;             /* destination: it has been silent for long enough */
    bool close_sent;         /* both flows are proved at this side */
    bool close_received;     /* and at the other */
    bool close_again;        /* the other may say so once more, since the connection was lost */
    bool open_again;         /* destination: the source may name it once more, likewise */
    bool known;              /* the peer may know of it, and have taken bytes for it from its QEMU */
    bool stale;              /* it was here when the peer gave up what it had, and not attached since */
    uint32_t serial;         /* source: of the NEED_PEER */
    struct carrier *qemu;    /* owned */
    struct carrier *carrier; /* owned: the peer connection */
    sd_event_source *grace;
    /* with its worker: */
    struct flow out, in;
    uint64_t sent, received;   /* what the stats page has of it; atomic */
    enum flow_verdict verdict; /* not FLOW_OK: nothing is moved any more */
    struct flow *failed;       /* then: which one */
    bool paced;                /* the bandwidth limit holds it back, and nothing waits for QEMU */
    uint64_t ack;              /* atomic: the last acknowledgement that the worker is to hear of */
    const char *lie;           /* why that cannot be true */
};

struct control {
    struct carrier *carrier; /* owned; NULL while there is none */
    struct ring in, out;
    bool greeted;      /* the peer's HELLO is there */
    bool close_sent;   /* CLOSE of the whole was sent */
    unsigned silence;  /* ticks */
    uint64_t pinged;   /* when the ping that is not answered yet was sent; 0 = none */
    uint64_t measured; /* when the last one was answered; 0: none was */
    bool corked;       /* what is said waits for more */
    uint32_t n_streams;
    char streams[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX]; /* the source's, in its order */
};

/* A bit a slot of the table of channels; atomic. */
struct channel_bits {
    uint64_t words[STATS_CHANNELS_MAX / 64];
};

struct session {
    sd_event *event;   /* borrowed */
    struct link *link; /* borrowed */
    uint64_t id;
    enum message_role role;
    enum message_security security;
    enum message_state state;
    uint32_t max_channels;
    uint32_t n_streams;
    char streams[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX];
    uint8_t control_key[KEY_SIZE]; /* of the ticket: serves one control connection */
    uint8_t channel_key[KEY_SIZE]; /* derived from the current control connection's session */
    uint8_t resume_key[KEY_SIZE];  /* derived from the first one's: for those that follow when it is lost */
    bool adopted;                  /* there has been a control connection */
    bool adopted_again;            /* and the current one is not the first */
    uint32_t farewell;             /* source, cut off: enum vf_error that is still to be told to the peer */
    bool broken;                   /* it is lost; session_interrupt() will clean up from the loop */
    char why[MESSAGE_TEXT_MAX];    /* it was lost */
    uint32_t control_serial;       /* source: of the NEED_PEER for the first control connection */
    uint32_t resume_serial;        /* source: of the NEED_PEER for the next one; 0: none is on its way */
    uint64_t redial;               /* µs until the next try */
    uint32_t n_rejections;         /* of the connections that were to follow, in a row */
    uint64_t resume_timeout;       /* µs */
    size_t window;                 /* bytes */
    struct stats *stats;           /* mapped; shared with the broker */
    struct ring_pool pool;
    int next_pipe;         /* source, owned: for the next channel; −1: none */
    struct keep next_keep; /* source, owned: goes with it */
    struct pacer pacer;
    struct control control;
    struct channel channels[STATS_CHANNELS_MAX];
    struct workers *workers;                   /* borrowed */
    struct worker *owners[STATS_CHANNELS_MAX]; /* of the channels; NULL: the first thread. Atomic */
    struct channel_bits news;                  /* channels of which a worker has told something, */
    struct channel_bits owing;                 /* those to acknowledge, */
    struct channel_bits acked; /* and those with an acknowledgement that their worker is to hear of */
    bool acks_later;           /* atomic: the ack timer runs */
    sd_event_source *news_source;
    uint32_t n_living; /* of these */
    struct peer peers[SESSION_PEERS_MAX];
    uint32_t next_channel;
    uint32_t next_serial;
    bool ktls_told;        /* the log says that the kernel does the channels' TLS */
    bool ktls_broken;      /* it failed half way */
    uint32_t n_refused;    /* peer connections that failed to prove themselves, for the log */
    uint32_t main_stream;  /* the source's first */
    uint32_t lost_streams; /* bits: a channel was given up, and none has ended well in its place */
    uint32_t dialling; /* destination, bits: the broker was asked for a connection to this stream's QEMU */
    bool given_up; /* after a loss, and nothing has come in the channels' place; resume_timer bounds that */
    bool main_closed; /* a channel of the main stream has ended well */
    bool done_said;   /* source: CLOSE of all was sent, on this control connection or an earlier one */
    bool over;        /* the result stands; only the last frame may still be on its way */
    uint64_t rated;   /* bytes of all channels, both ways, at the last tick */
    uint64_t ticked;  /* when that was */
    sd_event_source *tick, *ack_timer, *pace_timer, *linger, *cleanup, *redial_timer, *resume_timer;
};

/* ---- session.c ---- */

/* A new session for START_RELAY; takes stats_fd in any case, borrows workers and null (/dev/null, or −1). 0
 * or a negative errno. */
int session_new(sd_event *event, struct link *link, struct workers *workers,
                const struct message_start_relay *start, int stats_fd, int null, struct session **ret);
struct session *session_free(struct session *session);

/* µs, CLOCK_MONOTONIC, of this turn of the event loop. */
uint64_t session_now(const struct session *session);

/* µs, CLOCK_MONOTONIC, of this moment. For any thread. */
uint64_t session_exact_now(void);

void session_set_state(struct session *session, enum message_state state);

/*
 * The one end of a migration: error is none where the ledgers prove it done. The local QEMUs learn of it at
 * once, the peer where tell_peer, the broker by RESULT; then the event loop ends. Later calls change nothing.
 */
void session_end(struct session *session, enum vf_error error, bool tell_peer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The result stands, or the connection to the peer is lost: nothing is to be read, sent or waited for now. */
static inline bool session_halted(const struct session *session)
{
    return session->over || session->broken;
}

/* Every channel has ended on both sides, and the first stream had one. */
bool session_complete(const struct session *session);

/* ---- interruption.c ---- */

/*
 * The connection to the peer is lost. The source dials again; the channels keep QEMU's connections and go on
 * where they were, if that succeeds before the resume time-out. After it the local QEMUs lose their
 * connections: a pre-copy fails, a post-copy is paused. But the migration goes on waiting, with its
 * listeners, and QEMU's next connections (migrate-recover, migrate resume) are new channels of it. Takes
 * effect from the event loop.
 */
void session_interrupt(struct session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same at once, for a handler of neither the control connection nor a channel. */
void session_clean_up(struct session *session);

/* Source: the connection that was to follow could not be had; tries again later. */
void session_redial(struct session *session);

/* ---- sync.c ---- */

/* Asks the broker for what only it can bring: a peer connection (source), the connection to a channel's QEMU
 * (destination). False: the broker is gone. */
bool sync_need_peer(struct session *session, enum peer_kind kind, uint32_t serial);
bool sync_need_qemu(const struct channel *channel);

/* Tells the broker the state (again). */
void sync_tell_state(struct session *session);

/* Answers SYNC: what the state is, and all that was asked for and has not come. */
void sync_answer(struct session *session, uint64_t cookie);

/* Whether it waits for something that only a broker can bring. */
bool sync_waits(const struct session *session);

/* Source: whether this peer connection was asked for and has not come. */
bool sync_awaits_peer(const struct session *session, uint32_t kind, uint32_t serial);

/* ---- peer.c ---- */

/* A peer connection from the broker; takes fd. */
void peer_start(struct session *session, const struct message_peer *m, int fd);

/* The OPEN of this channel is there: adopts the peer connection that came before it. */
void peer_unpark(struct session *session, struct channel *channel);

/* Gives it up when its deadline is past; now in µs. */
void peer_expire(struct peer *peer, uint64_t now);

void peer_clear(struct peer *peer);

/* ---- peer-failure.c ---- */

/* Source: a connection that it made failed with r, a negative errno. The peer is still to be cleared. */
void peer_connecting_failed(struct peer *peer, int r);

/* ---- control.c ---- */

/* Takes carrier, which has proved itself. */
void control_adopt(struct session *session, struct carrier *carrier);
void control_send(struct session *session, const struct frame *frame);
void control_ack_later(struct session *session);

/* Ends the migration: the peer sent what cannot be true of this channel. */
void control_lie(struct session *session, uint32_t channel, const char *what);
void control_clear(struct session *session);

/* The connection is lost: ends the session if the peer had said why. Nothing else that it said counts. */
void control_last_word(struct session *session);

/* After the end: only what is still to be sent, and the peer's EOF. */
void control_linger(struct session *session);

/* ---- heartbeat.c ---- */

/* 0 or a negative errno. */
int heartbeat_start(struct session *session);

/* The peer's PING; the answer to ours: false where it is none. */
void heartbeat_on_ping(struct session *session, uint64_t cookie);
bool heartbeat_on_pong(struct session *session, uint64_t cookie);

/* ---- channel.c ---- */

struct channel *channel_find(struct session *session, uint32_t number);

/* A new channel in a free slot; NULL with the limit reached or without memory. */
struct channel *channel_new(struct session *session, uint32_t number, uint32_t stream);

/* Takes fd. */
void channel_set_qemu(struct channel *channel, int fd, bool shared);

/* Takes carrier, on which the channel hellos have crossed. */
void channel_set_carrier(struct channel *channel, struct carrier *carrier);

static inline bool channel_lives(const struct channel *channel)
{
    return channel->stage == CHANNEL_OPENING || channel->stage == CHANNEL_OPEN;
}

/* Source: once there is a control connection, tells the peer of the channel and asks for its connection. */
void channel_announce(struct channel *channel);

/* Destination: asks for the connection to QEMU if it is this channel's turn. */
void channel_dial(struct session *session, uint32_t stream);

/* Moves what can be moved, says what is to be said, waits for what is to be waited for. After any event. */
void channel_update(struct channel *channel);

/* The same after an event that brings nothing to be moved but for what a poll will tell. */
void channel_settle(struct channel *channel);
void channel_update_all(struct session *session);

/* Begins a new round of the bandwidth limit; or sees to it that one begins when there is something to be had.
 */
void channel_share_out(struct session *session);
void channel_pace(struct session *session);

/* Destination: the broker has answered. The channel that takes the connection; NULL: none does any more. */
struct channel *channel_dialled(struct session *session, uint32_t number, uint32_t stream);

/* Sends the acknowledgement that is due, if any; or sees to it that it is sent in time. */
void channel_ack(struct channel *channel);
void channel_ack_in_time(struct channel *channel);

/* Both flows have ended and are proved by this side's ledger. */
bool channel_ended(const struct channel *channel);

/* The peer connection is lost; what QEMU has sent is kept, and its connection too. */
void channel_detach(struct channel *channel);

/* Source, after a loss: says of every channel what it is, for the peer may have missed it. */
void channel_announce_all(struct session *session);

/* Source: ends the migration when nothing is left of it. */
void channel_end_if_complete(struct session *session);

/* The migration has ended: QEMU loses its connection at once, the peer only after it was told why. */
void channel_quit(struct channel *channel);

/* Closes its connections. */
void channel_close(struct channel *channel);

/* The same for one that has not ended well, here or at the peer: the migration is done only after another one
 * of its stream has. */
void channel_give_up(struct channel *channel);

/* Both flows have ended, and there was something in them. One that carried nothing only looked whether we
 * listen. */
bool channel_has_carried(const struct channel *channel);

/* What may be a worker's: moves at most about budget bytes each way, and waits for what is to be waited for.
 */
void channel_move(struct channel *channel, uint64_t now, size_t budget);

/* And whether the first thread has to act upon what came of it, or to acknowledge. */
bool channel_has_news(const struct channel *channel);
bool channel_owes_ack(const struct channel *channel);

/* ---- channel-worker.c ---- */

/* To what a channel and its worker share; for worker_unlockp(). */
struct worker *channel_lock(const struct channel *channel);

bool channel_has_worker(const struct channel *channel);

/* The peer has acknowledged so much of a channel that has a worker; waits for nobody. */
void channel_on_ack(struct channel *channel, uint64_t delivered);

/* What was acknowledged and its worker has not heard of yet, with the lock held; false when there is nothing.
 * Somebody must settle the channel then. */
bool channel_take_ack(struct channel *channel);

/* Makes whose the channel is wait for this carrier of it, with the lock held; ready is for the first thread.
 * 0 or a negative errno. */
int channel_attach(struct channel *channel, struct carrier *carrier, carrier_ready_t ready);

/* Gives an open channel to a worker, unless the first thread has no other. 0, also where it could not be had
 * and the channel stays; or a negative errno. */
int channel_share(struct channel *channel, carrier_ready_t ready);

/* Takes it from its worker, with the lock held; its carriers are gone, or nothing is waited for any more. */
void channel_take_back(struct channel *channel);

/* 0 or a negative errno. */
int channel_listen_to_workers(struct session *session);
