/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Our errors as D-Bus errors. */

#include <systemd/sd-bus.h>

#include "common/error.h"

/* Sets an error of ours and returns its (negative) errno, as sd_bus_error_setf(3). */
int error_set(sd_bus_error *ret, enum vf_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
