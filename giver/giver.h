/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The giver changes owners, and nothing else. It is the one part of vmferry with CAP_CHOWN, and opens
 * nothing: it sees a file only by the descriptor that the broker sends (common/give.h). What may be given
 * away is the name of a socket, its only one, or a directory, that belongs to the user who connected, as the
 * kernel says it (SO_PEERCRED), and of whose mode others have nothing. So an attacker with the broker in hand
 * can give away what is the broker's anyway, but can take no other user's file.
 */

/* Serves one connection; borrows sock. 0 when the other side has gone, or a negative errno. */
int giver_serve(int sock);
