/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "errors.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(sd_bus_error *ret, enum vf_error error, const char *format, ...)
{
    char name[64];
    va_list args;
    int r;

    snprintf(name, sizeof(name), ERROR_PREFIX "%s", vf_error_to_string(error));
    va_start(args, format);
    r = sd_bus_error_setfv(ret, name, format, args);
    va_end(args);
    return r;
}
