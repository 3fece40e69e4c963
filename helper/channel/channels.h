/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The channels of a migration: each is one connection of QEMU's, the two flows over it, and the peer
 * connection that carries them. All functions are for the first thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/message.h"
#include "helper/carrier/carrier.h"
#include "helper/channel/events.h"

/* 0 or a negative errno. */
int channels_new(const struct channels_options *options, const struct channel_events *events, void *userdata,
                 struct channels **ret);
struct channels *channels_free(struct channels *channels);

/* ---- The session ---- */

/* Both sides have greeted on the control connection of this number, from 1 on. Source: tells of all channels.
 */
void channels_connect(struct channels *channels, unsigned connection);

/* It is lost, and all peer connections with it: closes those, and keeps what QEMU has sent. */
void channels_disconnect(struct channels *channels);

/* Closes all, and their QEMUs' connections, after a loss that lasts: what the peer may know of has to come
 * again before the migration can be done. A destination has ended well what it has said CLOSE of. */
void channels_give_up(struct channels *channels);

/* Looks once more at what is lost: see awaits_cancel() in events.h. */
void channels_look_again(struct channels *channels);

/* The migration has ended: the QEMUs learn of it at once, the peer only after it was told why. */
void channels_quit(struct channels *channels);

/* Bandwidth limit in bytes/s, 0 for none. */
void channels_set_limit(struct channels *channels, uint64_t limit);

/* The peer allows no more than so many channels; its main stream is ours of this index. */
void channels_limit_number(struct channels *channels, uint32_t max);
void channels_set_main_stream(struct channels *channels, uint32_t stream);

/* All channels have ended at both sides, or at least at this one; the main stream had one, and so had each
 * stream of which one was given up, in its place. */
bool channels_are_complete(const struct channels *channels);

bool channels_is_any_living(const struct channels *channels);
bool channels_is_any_open(const struct channels *channels);

/* There has been a channel. */
bool channels_has_any_been(const struct channels *channels);

/* ---- The broker ---- */

/* Source: QEMU has connected; takes fd. */
void channels_add_qemu(struct channels *channels, uint32_t stream, int fd, bool shared);

/* Destination: the connection to QEMU that was asked for; takes fd. */
void channels_on_qemu(struct channels *channels, uint32_t number, uint32_t stream, int fd, bool shared);

/* It cannot be had: false where a channel goes on waiting for one. */
bool channels_on_qemu_failed(struct channels *channels, uint32_t number, uint32_t stream);

/* Destination: asks for the connections to QEMU that are due. */
void channels_dial(struct channels *channels);

/* A pipe for a channel of a destination; takes fd. */
void channels_on_pipe(struct channels *channels, const struct message_pipe *m, int fd);

/* ---- The peer ---- */

/*
 * Source: a connection that was to be a channel's has failed before its proof. It is dialled again, alone,
 * for others may have taken its place there: false where that was done often enough.
 */
bool channels_dial_again(struct channels *channels, uint32_t number);

bool channels_lives(struct channels *channels, uint32_t number);
bool channels_is_connected(struct channels *channels, uint32_t number);

/* Bytes that a channel has received; 0 where there is none of this number. */
uint64_t channels_received(struct channels *channels, uint32_t number);

/*
 * The peer has received so much of a channel, and goes on from there: 1; 0 where there is none of this
 * number; -EBADMSG where it cannot be; -EEXIST where the channel has a peer connection, and nothing changes.
 */
int channels_resume(struct channels *channels, uint32_t number, uint64_t received);

/* Takes the peer connection of a channel, on which the channel hellos have crossed. */
void channels_set_peer(struct channels *channels, uint32_t number, struct carrier *carrier);
