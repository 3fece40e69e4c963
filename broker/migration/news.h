/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a helper brings about is stored and told at once, unless that comes often: then the last state is,
 * some times a second. For each time costs the service manager, the bus and all that listen there.
 */

struct migration;
struct news;
struct news_pace;

extern const struct news_pace news_of_states, news_of_progress;

/* Stores the migration and tells that this has changed, now or soon. news: one of the migration's two. */
void news_tell(struct migration *migration, struct news *news, unsigned changed);

/* What waits in both is told otherwise, or not at all: returns that. */
unsigned news_take(struct migration *migration);
