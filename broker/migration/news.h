/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a helper brings about is stored and told at once, unless that comes often: then the last state is,
 * some times a second. For each time costs the service manager, the bus and all that listen there.
 */

#include <systemd/sd-event.h>

#include "broker/rate.h"

struct migration;
struct news_pace;

/* Stores the migration and tells that this has changed. */
typedef void (*news_teller)(struct migration *migration, unsigned changed);

/* What was not told yet. */
struct news {
    const struct news_pace *pace;
    sd_event *event; /* borrowed */
    news_teller tell;
    struct migration *migration; /* to be told of */
    struct rate rate;
    sd_event_source *timer; /* owned; for what waits */
    unsigned changed;       /* enum migration_change: what waits */
};

extern const struct news_pace news_of_states, news_of_progress;

/* All 0 before; borrows event and migration. news_take() ends it. */
void news_init(struct news *news, const struct news_pace *pace, sd_event *event, news_teller tell,
               struct migration *migration);

/* Tells that this has changed, now or soon. */
void news_tell(struct news *news, unsigned changed);

/* Tells it now, however often that is; what waits goes on waiting. */
void news_tell_now(const struct news *news, unsigned changed);

/* What waits is told otherwise, or not at all: returns it. */
unsigned news_take(struct news *news);
