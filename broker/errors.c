/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"

static int set(sd_bus_error *ret, const char *name, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

static int set(sd_bus_error *ret, const char *name, const char *format, va_list args)
{
    _cleanup_free_ char *text = NULL, *printable = NULL;

    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        return sd_bus_error_set_const(ret, SD_BUS_ERROR_NO_MEMORY,
                                      "There is no memory for the error's text.");
    }
    printable = malloc(strlen(text) + 1);
    if (!printable)
        return sd_bus_error_set_const(ret, SD_BUS_ERROR_NO_MEMORY,
                                      "There is no memory for the error's text.");
    message_text_set(printable, strlen(text) + 1, text);
    return sd_bus_error_set(ret, name, printable);
}

int error_set(sd_bus_error *ret, enum vf_error error, const char *format, ...)
{
    char name[64];
    va_list args;
    int r;

    snprintf(name, sizeof(name), ERROR_PREFIX "%s", vf_error_to_string(error));
    va_start(args, format);
    r = set(ret, name, format, args);
    va_end(args);
    return r;
}

int error_invalid(sd_bus_error *ret, const char *format, ...)
{
    va_list args;
    int r;

    va_start(args, format);
    r = set(ret, SD_BUS_ERROR_INVALID_ARGS, format, args);
    va_end(args);
    return r;
}

int error_named(sd_bus_error *ret, const char *name, const char *format, ...)
{
    va_list args;
    int r;

    va_start(args, format);
    r = set(ret, name, format, args);
    va_end(args);
    return r;
}
