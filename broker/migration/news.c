/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/news.h"

#include "common/clock.h"
#include "common/timer.h"

struct news_pace {
    struct rate_limit often;
    uint64_t pause; /* µs until what waits is told */
};

const struct news_pace news_of_states = {.often = {.per_second = 2, .burst = 10}, .pause = 500000};
const struct news_pace news_of_progress = {.often = {.per_second = 1, .burst = 1}, .pause = 1000000};

void news_init(struct news *news, const struct news_pace *pace, sd_event *event, news_teller tell,
               struct migration *migration)
{
    news->pace = pace;
    news->event = event;
    news->tell = tell;
    news->migration = migration;
}

void news_tell_now(const struct news *news, unsigned changed)
{
    news->tell(news->migration, changed);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct news *news = userdata;
    unsigned changed = news->changed;

    /* Cleared before it is told: what the telling brings up is news of its own. */
    news->changed = 0;
    rate_take(&news->rate, &news->pace->often, 1, turn_now(news->event));
    if (changed != 0)
        news_tell_now(news, changed);
    return 0;
}

void news_tell(struct news *news, unsigned changed)
{
    /* The bucket never gets fuller while something waits: what comes then waits, too. */
    if ((news->changed == 0 && rate_take(&news->rate, &news->pace->often, 1, turn_now(news->event))) ||
        timer_arm_once(news->event, &news->timer, news->pace->pause, on_timer, news) < 0)
        news_tell_now(news, changed);
    else
        news->changed |= changed;
}

unsigned news_take(struct news *news)
{
    unsigned changed = news->changed;

    news->timer = sd_event_source_disable_unref(news->timer);
    news->changed = 0;
    return changed;
}
