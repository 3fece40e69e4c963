/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "outcome.h"

#include <stddef.h>

#include "words.h"

static const char *const names[VF_OUTCOME_MAX_] = {
    [VF_OUTCOME_NONE] = "",     [VF_OUTCOME_MOVED] = "moved",     [VF_OUTCOME_NOT_MOVED] = "not-moved",
    [VF_OUTCOME_LOST] = "lost", [VF_OUTCOME_UNKNOWN] = "unknown",
};

const char *vf_outcome_to_string(uint32_t outcome)
{
    return outcome < VF_OUTCOME_MAX_ ? names[outcome] : NULL;
}

enum vf_outcome vf_outcome_from_string(const char *text)
{
    return word_number(names, VF_OUTCOME_MAX_, text);
}
