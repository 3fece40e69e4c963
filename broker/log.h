/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One line an event: to the journal where stderr leads there, with the migration's id in VMFERRY_MIGRATION=
 * and the VM in VMFERRY_VM=; else to stderr, with the id in front. Never a secret, never a ticket.
 */

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

/* id and vm may be NULL. */
void log_event(int priority, const char *id, const char *vm, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Whether an event that others can bring about at will is to be logged: the first 16, then the 32nd,
 * 64th … of them, so that a flood of them does not become one of lines.
 */
#define LOG_SAMPLE_ALL 16
bool log_sample(uint32_t *count);

/* To be called first; lines above this priority (syslog(3)) are dropped. */
void log_open(int max_priority);
