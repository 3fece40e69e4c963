/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

/* What the log says of a migration, and of the helper that carries it. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/log.h"

void migration_log(const struct migration *migration, int priority, const char *message_id,
                   const char *format, ...)
{
    const struct log_about about = {
        .message_id = message_id,
        .id = migration->id_text,
        .vm = migration->vm,
        .role = migration_role_text(migration),
        .error = migration->error != VF_ERROR_NONE ? vf_error_to_string(migration->error) : NULL,
        .unit = migration->helper_unit,
    };
    va_list args;

    va_start(args, format);
    log_about_v(priority, &about, format, args);
    va_end(args);
}

void migration_log_result(const struct migration *migration, const char *text)
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
    const struct stats *stats = migration->page.stats;

    migration_log(migration, lines[migration->result].priority, lines[migration->result].message_id,
                  "%s: %s%s%" PRIu64 " bytes sent, %" PRIu64 " received.",
                  vf_result_to_string(migration->result), migration->error != VF_ERROR_NONE ? text : "",
                  migration->error != VF_ERROR_NONE ? " " : "", stats ? stats->sent : 0,
                  stats ? stats->received : 0);
}

void migration_log_helper(struct migration *migration, const struct message_log *m)
{
    int priority =
        m->priority < LOG_ERR || m->priority > LOG_DEBUG ? LOG_ERR : (int)m->priority; /* as it claims */

    if (message_text_ok(m->text, sizeof(m->text)) && log_sample(&migration->n_helper_logs))
        migration_log(migration, priority, NULL, "helper: %s", m->text);
}

void migration_on_helper_unit(struct helper_link *link, void *userdata)
{
    struct migration *migration = userdata;

    snprintf(migration->helper_unit, sizeof(migration->helper_unit), "%s", helper_link_unit(link));
    if (migration->helper_unit[0] == '\0')
        return;
    migration_save(migration);
    migration_log(migration, LOG_DEBUG, NULL, "Its helper is %s.", migration->helper_unit);
    migration_emit_changed(migration, "HelperUnit", NULL);
}
