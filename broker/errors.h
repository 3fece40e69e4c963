/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Errors for the bus. Whatever a text was made of (a caller's words, cut where they were too long), what
 * leaves here is printable UTF-8: sd-bus sends nothing else, and a call without an answer is the worst one.
 */

#include <systemd/sd-bus.h>

#include "common/error.h"

/* Sets an error of ours and returns its (negative) errno, as sd_bus_error_setf(3). */
int error_set(sd_bus_error *ret, enum vf_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for org.freedesktop.DBus.Error.InvalidArgs. */
int error_invalid(sd_bus_error *ret, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for any name. */
int error_named(sd_bus_error *ret, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define error_denied(ret, ...) error_named(ret, SD_BUS_ERROR_ACCESS_DENIED, __VA_ARGS__)
