/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What bounds a relay and the gate: the numbers that the manual pages name. Times are in µs. */

#include <stddef.h>

#include "common/stats.h"

/* The gate */
#define GATE_PENDING_MAX 1024 /* what START_GATE may ask for at most */

/* Peer connections */
#define PEERS_MAX     (STATS_CHANNELS_MAX + 64) /* that are not there yet, at once */
#define PEER_DEADLINE 10000000                  /* in which one must be there */
#define LATE_EACH     15000   /* in which one without a mark may be told that its ticket is used, */
#define LATE_BURST    256     /* but so many at once */
#define DIALS_MAX     8       /* of a connection that fails before its proof, until that counts, */
#define DIALS_FOR     4000000 /* and in no more time than this */
#define DIAL_AGAIN    10000   /* until the next one, doubled each time */

/* The control connection */
#define CONTROL_RING   ((size_t)128 * 1024) /* bytes of frames that wait; far more than is ever on the way */
#define SILENCE_MAX    10                   /* ticks without a word: it is lost */
#define SILENCE_RESUME 4        /* the same where channels survive it: a false alarm costs little */
#define TRIP           10000000 /* after which the destination, too, measures the round trip again */

/* Channels */
#define ACK_DELAY   10000                     /* that an acknowledgement may wait for more to acknowledge */
#define PACE_ROUND  5000                      /* in which each channel has its share of the bandwidth limit */
#define DIAL_GRACE  100000                    /* until a silent channel is connected to QEMU all the same */
#define GROWTH_MAX  1024                      /* MiB by which windows may grow, whatever the broker says */
#define WINDOW_BACK ((size_t)1 * 1024 * 1024) /* bytes that are kept from the destination, at most */

/* The migration */
#define TICK           1000000        /* between the source's pings, and over which the rate is taken */
#define TICK_GRACE     250000         /* that the destination waits longer for one */
#define LINGER         2000000        /* for the last frame to reach the peer */
#define RECOVERY       86400000000ULL /* in which to recover a paused post-copy: a day */
#define OUTCOMES_MAX   8              /* that a source may tell, one after the other */
#define REJECTIONS_MAX 3       /* in a row, until it is believed that the peer has given the migration up */
#define REDIAL_FIRST   200000  /* until the peer is dialled again after a loss, doubled up to */
#define REDIAL_MAX     5000000 /* this, give or take a quarter */
