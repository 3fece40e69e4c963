/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How a test sees that something of vmferryctl has failed as it was to. */

#include "test-util.h"

#include "ctl/trouble.h"

/* With this status, and these words. Clears the trouble. */
static inline void assert_trouble(struct trouble *trouble, int r, int status, const char *text)
{
    assert_int_equal(r, -1);
    assert_int_equal(trouble->status, status);
    if (!strstr(trouble->text, text))
        fail_msg("'%s' is not in: %s", text, trouble->text);
    trouble_clear(trouble);
}
