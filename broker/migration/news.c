/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/news.h"

#include "broker/migration/internal.h"
#include "broker/migration/persist.h"
#include "common/clock.h"
#include "common/timer.h"

struct news_pace {
    struct rate_limit often;
    uint64_t pause; /* µs until what waits is told */
};

const struct news_pace news_of_states = {.often = {.per_second = 2, .burst = 10}, .pause = 500000};
const struct news_pace news_of_progress = {.often = {.per_second = 1, .burst = 1}, .pause = 1000000};

static void tell(struct migration *migration, unsigned changed)
{
    migration_save(migration);
    migration->services->events->changed(migration->services->userdata, migration, changed);
}

static void tell_what_waits(struct migration *migration, struct news *news)
{
    unsigned changed = news->changed;

    news->changed = 0;
    rate_take(&news->rate, &news->pace->often, 1, turn_now(migration->services->event));
    if (changed != 0)
        tell(migration, changed);
}

static int on_state_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;

    tell_what_waits(migration, &migration->news);
    return 0;
}

static int on_progress_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;

    tell_what_waits(migration, &migration->progress_news);
    return 0;
}

void news_tell(struct migration *migration, struct news *news, unsigned changed)
{
    sd_event *event = migration->services->event;
    sd_event_time_handler_t handler = news == &migration->news ? on_state_timer : on_progress_timer;

    /* The bucket never gets fuller while something waits: what comes then waits, too. */
    if ((news->changed == 0 && rate_take(&news->rate, &news->pace->often, 1, turn_now(event))) ||
        timer_arm_once(event, &news->timer, news->pace->pause, handler, migration) < 0)
        tell(migration, changed);
    else
        news->changed |= changed;
}

static unsigned take(struct news *news)
{
    unsigned changed = news->changed;

    news->timer = sd_event_source_disable_unref(news->timer);
    news->changed = 0;
    return changed;
}

unsigned news_take(struct migration *migration)
{
    return take(&migration->news) | take(&migration->progress_news);
}
