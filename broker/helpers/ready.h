/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Helpers that are kept ready where systemd starts them, since that takes its time: as many as were needed at
 * once lately (spares.h).
 */

#include "broker/helpers/link.h"

/* From now on spares are kept, at most so many. Again, when that number changes. */
void helper_links_keep_spares(struct helper_links *links, unsigned max);

/* As helper_link_start(), but a spare where there is one. */
int helper_link_new(struct helper_links *links, const struct helper_handlers *handlers, void *userdata,
                    struct helper_link **ret);
