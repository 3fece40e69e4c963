/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The messages between broker and helper: one fixed-width struct a SEQPACKET datagram, at most one FD with
 * it. The table in message.c says of each which side sends it, its size, how many FDs it carries and in which
 * phase of the helper it may come. A message that is not so ends that helper's migration, and only that one
 * (the model is OpenSSH's monitor).
 *
 * Nothing here depends on what was said before beyond the phase, so a restarted broker goes on with the same
 * socket: it says SYNC, and ignores requests until SYNCED, after which the helper repeats those that were
 * not answered. Texts are NUL-terminated, printable UTF-8 and are checked by message_text_ok().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/outcome.h"

#define MESSAGE_VERSION     1
#define MESSAGE_TEXT_MAX    320 /* bytes of a message for people, its NUL included */
#define MESSAGE_ADDRESS_MAX 128 /* bytes of a peer's address, its NUL included */
#define MESSAGE_STREAMS_MAX 16  /* streams of one migration */
#define MESSAGE_STREAM_MAX  32  /* bytes of a stream's name, its NUL included */
#define MESSAGE_SECRET_SIZE 32
#define WINDOW_MIN          ((uint64_t)64 * 1024)
#define WINDOW_MAX          ((uint64_t)1024 * 1024 * 1024)
#define MESSAGE_CHANNEL_NEW UINT32_MAX /* a QEMU connection whose channel the helper numbers */

enum message_type {
    /* broker → helper */
    MESSAGE_START_RELAY = 1, /* the helper is a relay for this migration; FD: the stats page */
    MESSAGE_START_GATE = 2,  /* the helper is the gate */
    MESSAGE_LISTENER = 3,    /* gate: accept here too; FD: a listening socket */
    MESSAGE_REJECT = 4,      /* gate: tell this peer why and close; FD: the peer connection */
    MESSAGE_PEER = 5,        /* relay: a peer connection; FD: connected stream socket */
    MESSAGE_PEER_FAILED = 6, /* relay: the peer connection that was asked for cannot be had */
    MESSAGE_QEMU = 7,        /* relay: a connection to the local QEMU; FD: connected stream socket */
    MESSAGE_QEMU_FAILED = 8, /* relay: the connection to QEMU that was asked for cannot be had */
    MESSAGE_LIMIT = 9,       /* relay: new bandwidth limit */
    MESSAGE_END = 10,        /* relay: end now with this error (cancel, expiry) */
    MESSAGE_PIPE = 11, /* relay: to splice a channel's bytes to QEMU through; FD: a pipe, read and write */
    MESSAGE_SYNC = 12, /* relay: this broker is a new one, and knows of nothing that was asked for */
    /* Only to a helper that has said HELPER_OUTCOMES, and the first of them before it may say PEER_OUTCOME.
     */
    MESSAGE_HOLD = 13,        /* relay: this broker takes PEER_OUTCOME; the owner is about to say more */
    MESSAGE_OUTCOME = 14,     /* relay, source: what became of the VM: for the peer */
    MESSAGE_OFFER = 15,       /* what the broker that starts the helper can do besides; FEATURES answers */
    MESSAGE_PEER_MARKED = 16, /* relay: as PEER, one whose preamble has a mark */
    /* Only to a helper that has said OFFER_KEEPS. */
    MESSAGE_KEEP = 17, /* relay: a socket that was supplied and waits to be needed; FD: that socket */
    MESSAGE_USE = 18,  /* relay: it is the answer to NEED_PEER or NEED_QEMU */
    /* helper → broker */
    MESSAGE_READY = 32,     /* in the sandbox; nothing from outside was read before */
    MESSAGE_ARRIVED = 33,   /* gate: a peer connection with a good preamble; FD: that connection */
    MESSAGE_NEED_PEER = 34, /* relay: dial the peer once more; of a PEER's serial: another endpoint of it */
    MESSAGE_NEED_QEMU = 35, /* relay: connect to the local QEMU for this channel */
    MESSAGE_STATE = 36,     /* relay: the migration is now in this state */
    MESSAGE_RESULT = 37,    /* relay: over; nothing follows but LOG */
    MESSAGE_LOG = 38,       /* one line for the broker's log */
    MESSAGE_SYNCED = 39, /* relay: the answer to SYNC; what follows is its state and all that it waits for */
    MESSAGE_PEER_OUTCOME = 40,   /* relay, destination: what the source's owner says that became of the VM */
    MESSAGE_FEATURES = 41,       /* relay: what it uses of the OFFER; again after SYNCED */
    MESSAGE_ARRIVED_MARKED = 42, /* gate: as ARRIVED, one whose preamble has a mark */
    MESSAGE_KEPT = 43, /* relay: after SYNCED, for each socket that it was told to KEEP and still has */
};

/* What a helper can do that those of before could not; bits, in STATE. */
enum helper_features {
    HELPER_OUTCOMES = 1 << 0, /* takes HOLD and OUTCOME */
};

/* Phases of a helper, as both sides count them; bits, for the table says in which ones a message may come. */
enum message_phase {
    PHASE_NEW = 1 << 0,   /* before START_* */
    PHASE_RELAY = 1 << 1, /* after START_RELAY */
    PHASE_GATE = 1 << 2,  /* after START_GATE */
    PHASE_ENDED = 1 << 3, /* after RESULT */
};

enum message_role {
    ROLE_INCOMING = 0,
    ROLE_OUTGOING = 1,
};

enum message_security {
    SECURITY_TLS = 0,
    SECURITY_PLAIN = 1,
};

/* The kinds of peer connections; also the preamble's field of that name. */
enum peer_kind {
    PEER_ANY = 0, /* only to a relay: the preamble is still to be read */
    PEER_CONTROL = 1,
    PEER_CHANNEL = 2,
    PEER_RESUME = 3, /* the control connection of a migration that lost its last one */
};

enum message_state {
    STATE_WAITING = 0,
    STATE_CONNECTED = 1,
    STATE_ACTIVE = 2,
    STATE_INTERRUPTED = 3,
    STATE_FINISHED = 4,
    STATE_MAX_,
};

/*
 * What came after version 1 of these messages. A helper may be older than the broker, which has taken it
 * over, or newer, where it was installed meanwhile: so it is offered what the broker knows, and answers what
 * it knows of that. Only a broker that has started a helper offers it something.
 */
enum message_offers {
    OFFER_MARKS = 1 << 0, /* PEER_MARKED, ARRIVED_MARKED */
    OFFER_KEEPS = 1 << 1, /* KEEP, USE, KEPT */
    OFFERS_KNOWN = OFFER_MARKS | OFFER_KEEPS,
};

/* What a preamble says beside the id: it cannot be made up from the id alone (helper/protocol/mark.h). */
struct message_mark {
    uint64_t mac;    /* as it came: 8 bytes */
    uint32_t number; /* 0: there is none */
    uint32_t reserved;
};

struct message_header {
    uint32_t type;    /* enum message_type */
    uint32_t version; /* MESSAGE_VERSION */
};

struct message_start_relay {
    struct message_header header;
    uint64_t id;
    uint64_t bandwidth_limit; /* bytes/s, 0 = none */
    uint64_t resume_timeout;  /* µs for which channels survive a loss of the network; 0 = none does */
    uint64_t window;          /* bytes of a flow out of QEMU that may be without an acknowledgement */
    uint32_t role;            /* enum message_role */
    uint32_t security;        /* enum message_security */
    uint32_t max_channels;    /* 1…STATS_CHANNELS_MAX */
    uint32_t n_streams;       /* 1…MESSAGE_STREAMS_MAX */
    uint8_t secret[MESSAGE_SECRET_SIZE];
    char streams[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX];
};

struct message_start_gate {
    struct message_header header;
    uint32_t max_pending;   /* connections that may be without their preamble at once */
    uint32_t deadline_msec; /* in which the preamble must be there */
};

struct message_listener {
    struct message_header header;
};

struct message_reject {
    struct message_header header;
    uint32_t error; /* enum vf_error: what the peer is told */
    uint32_t reserved;
};

struct message_peer {
    struct message_header header;
    uint32_t serial;   /* of the NEED_PEER that this answers; 0 = it came in through the gate or a manager */
    uint32_t kind;     /* enum peer_kind */
    uint32_t shared;   /* another process holds the socket too, and may change its flags */
    uint16_t endpoint; /* by which of the peer's it was made, from 1 on; 0: by none of them */
    uint16_t others;   /* endpoints that can be tried for this NEED_PEER besides, if it is not the peer's */
};

struct message_peer_failed {
    struct message_header header;
    uint32_t serial;
    uint32_t error; /* enum vf_error */
    char text[MESSAGE_TEXT_MAX];
};

struct message_qemu {
    struct message_header header;
    uint32_t channel; /* of the NEED_QEMU that this answers, or MESSAGE_CHANNEL_NEW */
    uint32_t stream;  /* index */
    uint32_t shared;  /* as in message_peer */
    uint32_t reserved;
};

struct message_qemu_failed {
    struct message_header header;
    uint32_t channel;
    uint32_t stream;
    uint32_t error; /* enum vf_error */
    char text[MESSAGE_TEXT_MAX];
};

struct message_limit {
    struct message_header header;
    uint64_t bandwidth_limit; /* bytes/s, 0 = none */
};

struct message_end {
    struct message_header header;
    uint32_t error; /* enum vf_error, not none */
    uint32_t reserved;
    char text[MESSAGE_TEXT_MAX];
};

/* What a pipe is for. 1, and a pipe for a source, may come from brokers of before: helpers close those. */
enum pipe_use {
    PIPE_MOVE = 0, /* to splice what is on its way to QEMU through */
};

struct message_pipe {
    struct message_header header;
    uint32_t channel;
    uint32_t use; /* enum pipe_use */
};

/* The upper half of the cookie of a broker that knows FEATURES and KEPT: only to such a one are they said
 * again. An older broker, whose cookie is 64 random bits, ends a migration for a message that it does not
 * know. */
#define SYNC_KNOWS_FEATURES ((uint64_t)0x766d6679)

struct message_sync {
    struct message_header header;
    uint64_t cookie; /* not 0; tells the answer to this broker from one that the broker before did not read */
};

struct message_hold {
    struct message_header header;
    uint64_t usec; /* source: for so long from now a migration that has carried all is not said to be done */
};

/* OUTCOME and PEER_OUTCOME */
struct message_outcome {
    struct message_header header;
    struct outcome outcome;
};

struct message_offer {
    struct message_header header;
    uint32_t features; /* enum message_offers, bits */
    uint32_t growth;   /* MiB by which the windows of a source's channels may grow, all together; brokers of
                          before say 0 */
};

struct message_peer_marked {
    struct message_peer peer; /* its header is this one's */
    struct message_mark mark;
};

/* What a socket waits for. */
enum kept_for {
    KEPT_FOR_QEMU = 0, /* destination: to be a channel's connection to QEMU */
    KEPT_FOR_PEER = 1, /* source: to be a connection to the peer */
};

/* KEEP and KEPT */
struct message_keep {
    struct message_header header;
    uint64_t number; /* not 0; of all that this helper was told to keep */
    uint32_t what;   /* enum kept_for */
    uint32_t stream; /* index; of a connection to QEMU */
    uint32_t shared; /* as in message_peer */
    uint32_t reserved;
};

struct message_use {
    struct message_header header;
    uint64_t number;
    uint32_t request; /* the NEED_PEER's serial, or the NEED_QEMU's channel */
    uint32_t kind;    /* enum peer_kind; of a connection to the peer */
};

struct message_ready {
    struct message_header header;
};

struct message_arrived {
    struct message_header header;
    uint64_t id;
    uint32_t kind; /* enum peer_kind */
    uint32_t reserved;
};

struct message_need_peer {
    struct message_header header;
    uint32_t serial; /* not 0 */
    uint32_t kind;   /* enum peer_kind */
};

struct message_need_qemu {
    struct message_header header;
    uint32_t channel;
    uint32_t stream; /* index */
};

struct message_state_changed {
    struct message_header header;
    uint32_t state;                 /* enum message_state: connected, active or interrupted */
    uint32_t features;              /* enum helper_features */
    char peer[MESSAGE_ADDRESS_MAX]; /* the control connection's other end */
    char text[MESSAGE_TEXT_MAX];    /* interrupted: why */
};

struct message_result {
    struct message_header header;
    uint32_t result; /* enum vf_result, not none */
    uint32_t error;  /* enum vf_error; none exactly where the result is done */
    char text[MESSAGE_TEXT_MAX];
};

struct message_log {
    struct message_header header;
    uint32_t priority; /* syslog(3) */
    uint32_t reserved;
    char text[MESSAGE_TEXT_MAX];
};

struct message_synced {
    struct message_header header;
    uint64_t cookie; /* of the SYNC */
};

struct message_features {
    struct message_header header;
    uint32_t features; /* of those that were offered */
    uint32_t reserved;
};

struct message_arrived_marked {
    struct message_arrived arrived; /* its header is this one's */
    struct message_mark mark;
};

union message {
    struct message_header header;
    struct message_start_relay start_relay;
    struct message_start_gate start_gate;
    struct message_listener listener;
    struct message_reject reject;
    struct message_peer peer;
    struct message_peer_failed peer_failed;
    struct message_qemu qemu;
    struct message_qemu_failed qemu_failed;
    struct message_limit limit;
    struct message_end end;
    struct message_pipe pipe;
    struct message_sync sync;
    struct message_hold hold;
    struct message_outcome outcome;
    struct message_outcome peer_outcome;
    struct message_offer offer;
    struct message_peer_marked peer_marked;
    struct message_keep keep;
    struct message_use use;
    struct message_ready ready;
    struct message_arrived arrived;
    struct message_need_peer need_peer;
    struct message_need_qemu need_qemu;
    struct message_state_changed state_changed;
    struct message_result result;
    struct message_log log;
    struct message_synced synced;
    struct message_features features;
    struct message_arrived_marked arrived_marked;
    struct message_keep kept;
};

enum message_direction {
    TO_HELPER,
    TO_BROKER,
};

/* "NEED_QEMU", for logs; "?" for a number that is no message. */
const char *message_name(uint32_t type);

/*
 * Sends one message; sets its header. Borrows fd (-1 for none). Never blocks. Negative errno as
 * fd_pass_send(), -EINVAL when type and fd do not fit the table.
 */
int message_send(int sock, enum message_type type, union message *m, int fd);

/*
 * Receives one message and holds it against the table: direction, size, number of FDs, phase (one bit of enum
 * message_phase). Returns 1 with *ret filled and *ret_fd the caller's (-1 where it carries none), 0 when the
 * other side is gone, -EAGAIN when there is none, -ECONNRESET when the other side is gone with messages of
 * ours unread: what it said before is still there. -EBADMSG when it is not what the table says: then nothing
 * is open and the helper must be given up. -EMFILE when its FD could not be had, as fd_pass_recv(): the
 * message is gone. In both cases ret->header.type tells which it was, for the log.
 */
int message_recv(int sock, enum message_direction direction, unsigned phase, union message *ret, int *ret_fd);

/*
 * The same, but the message stays where it is, to be received once what it says has had its effect: so it is
 * not lost where the receiver dies in between. *ret_type tells which it is, before it is held against the
 * table; 1 where there is one.
 */
int message_peek_type(int sock, uint32_t *ret_type);
int message_peek(int sock, enum message_direction direction, unsigned phase, union message *ret);

/*
 * Whether a text field is terminated within its size and holds only printable UTF-8: no control characters
 * (C0, DEL, C1), line separators, or format controls such as those that turn the direction of the text.
 */
bool message_text_ok(const char *text, size_t size);

/*
 * Copies a text into a field: cut at the end of a character where it is too long, with a '?' for each
 * character that is not printable and for each byte that is not UTF-8. The one function that cleans texts
 * from outside; the result is never longer than the text.
 */
void message_text_set(char *field, size_t size, const char *text);

/* Ends a text that was cut to a size before the character that was cut, if one was. */
void message_text_end(char *text);

/* Whether an outcome that another process sent can be: one that is not none, with good texts. */
bool message_outcome_ok(const struct outcome *outcome);

/* A stream's name: 1…31 of a-z, 0-9, '-', and a letter first. */
bool stream_name_ok(const char *name);
