/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the log says of a migration, and of the helper that carries it. */

#include "broker/log-sample.h"
#include "broker/log.h"
#include "broker/migration/identity.h"
#include "broker/migration/report.h"
#include "common/stats.h"

/* message_id: LOG_* of broker/log.h, or NULL. */
void migration_log(const struct identity *identity, int priority, const char *message_id, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));

/* It is finished; stats: its counters, or NULL. */
void migration_log_result(const struct identity *identity, enum vf_result result, const char *text,
                          const struct stats *stats);

/* The outcome was told. */
void migration_log_outcome(const struct identity *identity, const struct report *report);

/* Which of a helper's lines are logged: those for --verbose hide no others. */
struct helper_logs {
    struct log_sample lines, debugging;
};

/* A line of its helper's. */
void migration_log_helper(const struct identity *identity, const struct message_log *m,
                          struct helper_logs *logs);
