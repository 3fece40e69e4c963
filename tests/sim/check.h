/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A helper sends this message to its broker: at this moment what it says must be true. */
void check_message(int side, const void *data);

/* A source that was cancelled while it was cut off has told its peer, unless something else went wrong since.
 */
void check_farewell(void);
