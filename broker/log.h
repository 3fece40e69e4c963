/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One line an event: to the journal where stderr leads there, with the migration's id in VMFERRY_MIGRATION=
 * and the VM in VMFERRY_VM=; else to stderr, with the id in front. Never a secret, never a ticket.
 */

#include <syslog.h>

/* id and vm may be NULL. */
void log_event(int priority, const char *id, const char *vm, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* To be called first; lines above this priority (syslog(3)) are dropped. */
void log_open(int max_priority);
