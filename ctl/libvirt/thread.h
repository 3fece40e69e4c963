/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The calls of libvirt that take their time, in a thread of their own, while the loop turns. */

#include "ctl/loop.h"

struct thread;

/*
 * Runs run(argument) in a thread. *ret is NULL where there is none, with a trouble. What argument points to
 * must live until thread_end(), or for ever where the thread is left.
 */
int thread_begin(struct ctl *ctl, void (*run)(void *argument), void *argument, struct thread **ret,
                 struct trouble *trouble);

bool thread_is_over(const struct thread *thread);

/* Joins it; call this only when it is over. NULL: nothing. */
void thread_end(struct thread *thread);

/* Lets it run until the program ends. */
void thread_leave(struct thread *thread);

/* Begins one and turns until it is over. Ctrl-C does not end it: what libvirt does is bounded by its
 * time-outs. */
int thread_run(struct ctl *ctl, void (*run)(void *argument), void *argument, struct trouble *trouble);
