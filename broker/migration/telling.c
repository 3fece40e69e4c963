/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/telling.h"

#include <errno.h>

#include "broker/errors.h"
#include "broker/migration/accounts.h"
#include "broker/migration/log.h"
#include "common/clock.h"

enum {
    HOLD = 5000000,    /* µs after a report, for which the end waits for the outcome */
    PEER_TOLD_MAX = 16 /* outcomes that a helper may say that its peer has told */
};

void telling_init(struct telling *telling, const struct migration_services *services, struct entry *entry,
                  struct migration_status *status, struct helper_side *helper, struct news *news)
{
    telling->services = services;
    telling->entry = entry;
    telling->status = status;
    telling->helper = helper;
    telling->news = news;
}

/* What goes through the tunnel is the source's to say, and only a helper that knows these messages gets them.
 */
static bool source_speaks(const struct telling *telling)
{
    return telling->entry->identity.role == ROLE_OUTGOING && (telling->features & HELPER_OUTCOMES) &&
           telling->entry->identity.state != STATE_FINISHED;
}

int telling_progress(struct telling *telling, const struct progress *progress, sd_bus_error *error)
{
    static const struct rate_limit often = {.per_second = 4, .burst = 8};
    const uint64_t rate = stats_page_rate(&telling->helper->page);
    union message m = {.hold.usec = HOLD};

    if (!rate_take(&telling->reports, &often, 1, turn_now(telling->services->event)))
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "Migration %s takes four reports of progress a second. Report less often.",
                         telling->entry->identity.id_text);
    report_update(&telling->status->report, progress, rate);
    if (source_speaks(telling))
        helper_side_send(telling->helper, MESSAGE_HOLD, &m, -1);
    news_tell(telling->news, CHANGE_PROGRESS);
    return 0;
}

static void tell_helper(struct telling *telling)
{
    const struct report *report = &telling->status->report;
    union message m = {.outcome.outcome = report->outcome};

    if (report->by == REPORT_BY_OWNER && source_speaks(telling))
        helper_side_send(telling->helper, MESSAGE_OUTCOME, &m, -1);
}

static void set_outcome(struct telling *telling, const struct outcome *outcome, enum report_by by)
{
    struct report *report = &telling->status->report;

    if (!report_may_set(report, outcome, by))
        return;
    report->outcome = *outcome;
    report->by = by;
    if (telling->entry->identity.state == STATE_FINISHED)
        accounts_add(telling->services, telling->entry, telling->status);
    migration_log_outcome(&telling->entry->identity, report);
    news_tell_now(telling->news, CHANGE_OUTCOME);
}

int telling_outcome(struct telling *telling, const struct outcome *outcome, sd_bus_error *error)
{
    static const struct rate_limit often = {.per_second = 1, .burst = 8};

    if (!rate_take(&telling->outcomes, &often, 1, turn_now(telling->services->event)))
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "The outcome of migration %s was told too often. It is to be told once.",
                         telling->entry->identity.id_text);
    set_outcome(telling, outcome, REPORT_BY_OWNER);
    tell_helper(telling);
    return 0;
}

void telling_features(struct telling *telling, uint32_t features)
{
    union message m = {.hold.usec = 0};

    telling->features = features;
    if (!(features & HELPER_OUTCOMES))
        return;
    helper_side_send(telling->helper, MESSAGE_HOLD, &m, -1);
    tell_helper(telling);
}

void telling_peer_outcome(struct telling *telling, const struct outcome *outcome)
{
    if (telling->entry->identity.role != ROLE_INCOMING || !message_outcome_ok(outcome) ||
        telling->n_peer++ == PEER_TOLD_MAX) {
        helper_side_kill(telling->helper, "told an outcome that cannot be");
        return;
    }
    set_outcome(telling, outcome, REPORT_BY_PEER);
}
