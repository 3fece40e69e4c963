/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One line an event, with the migration's id and VM in front: to the journal where stderr leads there, where
 * both are fields, too; else to stderr. Never a secret, never a ticket.
 */

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

/*
 * MESSAGE_IDs, whose meaning units/vmferry.catalog tells an admin: journalctl -x. Each is for one event.
 */
#define LOG_PREPARED  "a19c0ebb03bd419391ce31ffb1aafcfc" /* a migration was made, on either side */
#define LOG_CONNECTED "34ab4a1890ad40eeb3ae56c5a04d6980" /* the helpers have proved each other */
#define LOG_FINISHED  "503adfddefb945309eed6693a6dbf29b" /* done: all was carried */
#define LOG_FAILED    "d0bfef21e9fa4376b4fcbd12b72c89aa" /* failed, or timed out */
#define LOG_CANCELLED "3e97180b998949f395148cd6b0d00348"
#define LOG_MOVED     "a78a8f662f824d7cb382ec9478d2c88a" /* an outcome was told, as the next three */
#define LOG_NOT_MOVED "d3fe3bf59167438998ea2450822a34da"
#define LOG_LOST      "dfaa8121ec314d18a8f0c17f1ebad1c0"
#define LOG_UNKNOWN   "304f3faa0bc5474da7a9015bcaf94261"
#define LOG_DENIED    "48fc35c0b00e4f92afde641dadfce05f" /* a call was not permitted */

/* What a line is about; NULL: nothing of that kind. In the journal each is a field of its own. */
struct log_about {
    const char *message_id;
    const char *id;     /* VMFERRY_MIGRATION= */
    const char *vm;     /* VMFERRY_VM= */
    const char *role;   /* VMFERRY_ROLE= */
    const char *error;  /* VMFERRY_ERROR=, without the prefix */
    const char *unit;   /* OBJECT_SYSTEMD_UNIT=: the line is shown with that unit's own */
    const char *uid;    /* VMFERRY_UID= */
    const char *method; /* VMFERRY_METHOD= */
};

void log_about(int priority, const struct log_about *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void log_about_v(int priority, const struct log_about *about, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

/* id and vm may be NULL. */
void log_event(int priority, const char *id, const char *vm, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* An error that keeps the broker from starting: logged, and told to systemd as the unit's status. */
void log_start_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* To be called first; lines above this priority (syslog(3)) are dropped. */
void log_open(int max_priority);

bool log_wants(int priority);
