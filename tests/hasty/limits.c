/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/limits.h"

#ifndef HASTE
#error "It would be a helper like any other."
#endif
