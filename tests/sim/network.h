/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is between the helpers, and the gate at the destination. */

#include "kernel.h"

void network_begin(void);

/* The source's end of a new connection, whose other end the gate accepts; NULL where there is no way. */
struct file *network_dial(void);

/* A connection of one that is no vmferry: says nothing, rubbish, or a preamble and then rubbish. */
void network_stranger(void);

bool network_is_due(void);
void network_turn(void);
uint64_t network_next(void);

/* All connections, or one of them, break; and none can be made for so long. */
void network_cut(bool all, uint64_t usec);

/* Nothing gets through for so long, and then all does. */
void network_stall(uint64_t usec);

/* Closes what strangers hold. */
void network_end(void);
