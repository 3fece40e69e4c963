/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a helper brings about is stored and told at once, unless that comes often: then the last state is,
 * some times a second. For each time costs the service manager, the bus and all that listen there.
 */

struct migration;

/* Stores the migration and tells that this has changed, now or soon. */
void news_tell(struct migration *migration, unsigned changed);

/* What waits is told otherwise, or not at all: returns that. */
unsigned news_take(struct migration *migration);
