/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/news.h"

#include "broker/migration/internal.h"
#include "broker/migration/persist.h"
#include "common/clock.h"
#include "common/timer.h"

enum { PAUSE = 500000 /* µs until what waits is told */ };

static const struct rate_limit often = {.per_second = 2, .burst = 10};

static void tell(struct migration *migration, unsigned changed)
{
    migration_save(migration);
    migration->services->events->changed(migration->services->userdata, migration, changed);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct migration *migration = userdata;
    unsigned changed = migration->news.changed;

    migration->news.changed = 0;
    if (changed != 0)
        tell(migration, changed);
    return 0;
}

void news_tell(struct migration *migration, unsigned changed)
{
    struct news *news = &migration->news;
    sd_event *event = migration->services->event;

    /* The bucket never gets fuller while something waits: what comes then waits, too. */
    if ((news->changed == 0 && rate_take(&news->rate, &often, 1, turn_now(event))) ||
        timer_arm_once(event, &news->timer, PAUSE, on_timer, migration) < 0)
        tell(migration, changed);
    else
        news->changed |= changed;
}

unsigned news_take(struct migration *migration)
{
    unsigned changed = migration->news.changed;

    migration->news.timer = sd_event_source_disable_unref(migration->news.timer);
    migration->news.changed = 0;
    return changed;
}
