/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void migration_log(const struct identity *identity, int priority, const char *message_id, const char *format,
                   ...)
{
    const struct log_about about = {
        .message_id = message_id,
        .id = identity->id_text,
        .vm = identity->vm,
        .role = role_text(identity->role),
        .error = identity->error != VF_ERROR_NONE ? vf_error_to_string(identity->error) : NULL,
        .unit = identity->unit,
    };
    va_list args;

    va_start(args, format);
    log_about_v(priority, &about, format, args);
    va_end(args);
}

void migration_log_result(const struct identity *identity, enum vf_result result, const char *text,
                          const struct stats *stats)
{
    static const struct {
        int priority;
        const char *message_id;
    } lines[] = {
        [VF_RESULT_DONE] = {LOG_INFO, LOG_FINISHED},
        [VF_RESULT_FAILED] = {LOG_ERR, LOG_FAILED},
        [VF_RESULT_CANCELLED] = {LOG_INFO, LOG_CANCELLED},
        [VF_RESULT_TIMED_OUT] = {LOG_WARNING, LOG_FAILED},
    };
    const bool good = identity->error == VF_ERROR_NONE;
    const char *word = result == VF_RESULT_DONE ? "carried" : vf_result_to_string(result);

    migration_log(identity, lines[result].priority, lines[result].message_id,
                  "%s: %s%s%" PRIu64 " bytes sent, %" PRIu64 " received.", word, good ? "" : text,
                  good ? "" : " ", stats ? stats->sent : 0, stats ? stats->received : 0);
}

void migration_log_outcome(const struct identity *identity, const struct report *report)
{
    static const struct {
        int priority;
        const char *message_id, *text;
    } lines[VF_OUTCOME_MAX_] = {
        [VF_OUTCOME_MOVED] = {LOG_INFO, LOG_MOVED, "The VM has moved"},
        [VF_OUTCOME_NOT_MOVED] = {LOG_NOTICE, LOG_NOT_MOVED, "The VM was not moved"},
        [VF_OUTCOME_LOST] = {LOG_ERR, LOG_LOST, "The VM is lost"},
        [VF_OUTCOME_UNKNOWN] = {LOG_WARNING, LOG_UNKNOWN, "What became of the VM is not known"},
    };
    const struct outcome *outcome = &report->outcome;
    const size_t n = strlen(outcome->reason);
    char times[96] = "";

    if (outcome->total > 0)
        snprintf(times, sizeof(times), " It took %" PRIu64 " ms, and stood still for %" PRIu64 " ms of it.",
                 outcome->total / 1000, outcome->downtime / 1000);
    migration_log(identity, lines[outcome->outcome].priority, lines[outcome->outcome].message_id,
                  "%s (told by %s)%s%s%s%s", lines[outcome->outcome].text,
                  report->by == REPORT_BY_PEER ? "the source's owner" : "its owner", n > 0 ? ": " : "",
                  outcome->reason, n > 0 && outcome->reason[n - 1] == '.' ? "" : ".", times);
}

void migration_log_helper(const struct identity *identity, const struct message_log *m,
                          struct helper_logs *logs)
{
    int priority =
        m->priority < LOG_ERR || m->priority > LOG_DEBUG ? LOG_ERR : (int)m->priority; /* as it claims */

    if (log_wants(priority) && message_text_ok(m->text, sizeof(m->text)) &&
        log_sample(priority == LOG_DEBUG ? &logs->debugging : &logs->lines, "what a helper says"))
        migration_log(identity, priority, NULL, "helper: %s", m->text);
}
