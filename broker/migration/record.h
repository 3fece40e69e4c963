/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a broker that is started again has to know of a migration, as bytes: a header (magic, version, the
 * lowest version that can read it, length) and fields (tag u16, length u16, value), little-endian, numbers of
 * fixed width. A field that a reader does not know is skipped, one that is missing is zero or empty; so an
 * upgraded broker reads what an older one wrote, and the other way round. Tags are never given a new meaning.
 * Pure; total over any bytes.
 */

#include <stddef.h>
#include <stdint.h>

#include "broker/net/ticket.h"
#include "broker/sockets/qemu-socket.h"
#include "common/address.h"
#include "common/message.h"
#include "common/outcome.h"
#include "common/stats.h"

#define RECORD_VERSION  1
#define RECORD_SIZE_MAX 49152 /* bytes; none can be longer */
#define RECORD_TEXT_MAX 1024  /* bytes of its longest text but the ticket's, the NUL included */

/* Numbers are u32 or u64, so that a table can tell them; those of 0 and 1 are bools. */
struct record {
    uint64_t id;              /* not 0 */
    uint32_t role;            /* enum message_role */
    uint32_t security;        /* enum message_security */
    uint32_t state;           /* enum message_state */
    uint32_t result;          /* enum vf_result; that of error where it is finished, else none */
    uint32_t error;           /* enum vf_error */
    uint32_t uid;             /* of the caller that made it */
    uint32_t owner_uid;       /* of the sockets */
    uint32_t owner_gid;       /* UINT32_MAX: as it is */
    uint32_t owner_group;     /* bool */
    uint32_t expects_peers;   /* bool: holds the peer port */
    uint32_t farewell;        /* bool */
    uint32_t ending;          /* enum vf_error: it was told to end by this */
    uint32_t own_paths;       /* bits: of these streams the path is ours, and not one that the caller named */
    uint64_t started;         /* µs, CLOCK_REALTIME */
    uint64_t finished;        /* the same */
    uint64_t gives_up;        /* the same */
    uint64_t deadline;        /* µs, CLOCK_MONOTONIC: the end of what bounds its state; 0: nothing does */
    uint64_t expire;          /* µs */
    uint64_t resume_timeout;  /* µs */
    uint64_t bandwidth_limit; /* bytes/s */
    uint64_t expected_bytes;
    char vm[256]; /* not empty */
    char message[RECORD_TEXT_MAX];
    char peer[MESSAGE_ADDRESS_MAX];
    char ending_text[MESSAGE_TEXT_MAX];
    char directory[QEMU_SOCKET_PATH_MAX]; /* of the default sockets; "": none */
    char client_id[256];
    char tied_to[256];            /* a name on the bus */
    char unit[256];               /* of its helper */
    char ticket[TICKET_TEXT_MAX]; /* only while the same client-id may ask for it again */
    char layout[64];              /* NAME of 'libvirt:NAME'; "": none */
    char ticket_digest[65];       /* outgoing: ticket_digest() of the ticket that it is from; "": not known */
    uint32_t n_streams;           /* 1…MESSAGE_STREAMS_MAX */
    char streams[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX];
    uint32_t n_paths; /* as many */
    char paths[MESSAGE_STREAMS_MAX][QEMU_SOCKET_PATH_MAX];
    uint32_t n_endpoints;
    char endpoints[TICKET_ENDPOINTS_MAX][ADDRESS_TEXT_MAX];
    /* The last counters of a finished one; while it runs they are in the page. */
    uint64_t sent, received, round_trip;
    uint32_t reconnects;
    uint32_t n_channels;
    struct stats_channel channels[STATS_CHANNELS_MAX];
    /* What its owner reports: see report.h. */
    uint32_t phase; /* enum report_phase */
    uint32_t pass;
    uint64_t memory_total, memory_remaining, dirty_rate, expected_downtime, disk_total, disk_remaining;
    uint32_t fraction;
    uint64_t rate, remaining;
    uint32_t outcome; /* enum vf_outcome */
    uint32_t told_by; /* enum report_by */
    uint64_t downtime, total;
    char host[OUTCOME_HOST_MAX];
    char run_state[OUTCOME_RUN_STATE_MAX];
    char reason[OUTCOME_REASON_MAX];
    /* Its account: see registry.h. */
    uint32_t added; /* bool */
    uint64_t interrupted, interrupted_since;
};

enum record_verdict {
    RECORD_OK,
    RECORD_BAD,
    RECORD_TOO_NEW, /* of a version that cannot be read by this one */
};

/* How many bytes were written to ret. */
size_t record_encode(const struct record *record, uint8_t ret[static RECORD_SIZE_MAX]);

/* Unless it is good, *ret_why says what is wrong with it (static). */
enum record_verdict record_decode(const uint8_t *data, size_t size, struct record *ret, const char **ret_why);

/* A record beside its bytes, to be read or written. The ticket's secret that may be in it is wiped when it
 * goes. */
struct record_draft {
    struct record record;
    uint8_t data[RECORD_SIZE_MAX];
};

void record_draft_freep(struct record_draft **draft);
