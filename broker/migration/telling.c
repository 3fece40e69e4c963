/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/telling.h"

#include <errno.h>

#include "broker/errors.h"
#include "broker/migration/accounts.h"
#include "broker/migration/internal.h"
#include "broker/migration/log.h"
#include "broker/migration/news.h"
#include "broker/migration/persist.h"
#include "common/clock.h"

enum {
    HOLD = 5000000,    /* µs after a report, for which the end waits for the outcome */
    PEER_TOLD_MAX = 16 /* outcomes that a helper may say that its peer has told */
};

/* What goes through the tunnel is the source's to say, and only a helper that knows these messages gets them.
 */
static bool source_speaks(const struct migration *migration)
{
    return migration->entry.identity.role == ROLE_OUTGOING &&
           (migration->telling.features & HELPER_OUTCOMES) &&
           migration->entry.identity.state != STATE_FINISHED;
}

int telling_progress(struct migration *migration, const struct progress *progress, sd_bus_error *error)
{
    static const struct rate_limit often = {.per_second = 4, .burst = 8};
    const uint64_t rate = stats_page_rate(&migration->helper.page);
    union message m = {.hold.usec = HOLD};

    if (!rate_take(&migration->telling.reports, &often, 1, turn_now(migration->services->event)))
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "Migration %s takes four reports of progress a second. Report less often.",
                         migration->entry.identity.id_text);
    report_update(&migration->status.report, progress, rate);
    if (source_speaks(migration))
        helper_side_send(&migration->helper, MESSAGE_HOLD, &m, -1);
    news_tell(migration, &migration->progress_news, CHANGE_PROGRESS);
    return 0;
}

static void tell_helper(struct migration *migration)
{
    const struct report *report = &migration->status.report;
    union message m = {.outcome.outcome = report->outcome};

    if (report->by == REPORT_BY_OWNER && source_speaks(migration))
        helper_side_send(&migration->helper, MESSAGE_OUTCOME, &m, -1);
}

static void set_outcome(struct migration *migration, const struct outcome *outcome, enum report_by by)
{
    struct report *report = &migration->status.report;

    if (!report_may_set(report, outcome, by))
        return;
    report->outcome = *outcome;
    report->by = by;
    if (migration->entry.identity.state == STATE_FINISHED)
        accounts_add(migration);
    migration_save(migration);
    migration_log_outcome(&migration->entry.identity, report);
    migration->services->events->changed(migration->services->userdata, migration, CHANGE_OUTCOME);
}

int telling_outcome(struct migration *migration, const struct outcome *outcome, sd_bus_error *error)
{
    static const struct rate_limit often = {.per_second = 1, .burst = 8};

    if (!rate_take(&migration->telling.outcomes, &often, 1, turn_now(migration->services->event)))
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "The outcome of migration %s was told too often. It is to be told once.",
                         migration->entry.identity.id_text);
    set_outcome(migration, outcome, REPORT_BY_OWNER);
    tell_helper(migration);
    return 0;
}

void telling_features(struct migration *migration, uint32_t features)
{
    union message m = {.hold.usec = 0};

    migration->telling.features = features;
    if (!(features & HELPER_OUTCOMES))
        return;
    helper_side_send(&migration->helper, MESSAGE_HOLD, &m, -1);
    tell_helper(migration);
}

void telling_peer_outcome(struct migration *migration, const struct outcome *outcome)
{
    if (migration->entry.identity.role != ROLE_INCOMING || !message_outcome_ok(outcome) ||
        migration->telling.n_peer++ == PEER_TOLD_MAX) {
        helper_side_kill(&migration->helper, "told an outcome that cannot be");
        return;
    }
    set_outcome(migration, outcome, REPORT_BY_PEER);
}
