/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What goes wrong, on its way up: one message for people and the exit status that goes with it. The function
 * that finds a trouble sets it and returns -1, its callers pass it on, and only ctl_run() prints it.
 */

#include <stdint.h>
#include <systemd/sd-bus.h>

enum {
    STATUS_DONE = 0,
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
    STATUS_CANCELLED = 3,
    STATUS_TIMED_OUT = 4,
    STATUS_DENIED = 5,
    STATUS_BOTH_RUN = 6, /* the VM runs on both hosts, or may */
};

/* In the text of a call to an object that is not there (any more). */
#define TROUBLE_GONE "it is gone"

struct trouble {
    int status; /* 0: none */
    char *text; /* printable; NULL: nothing more is to be said */
};

/* Sets it unless one is set already. trouble may be NULL. What is not printable becomes '?'. Returns -1. */
int trouble_set(struct trouble *trouble, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * The same for a D-Bus call that failed; doing is what could not be done ("Cannot list the migrations"). The
 * status follows from the error's name.
 */
int trouble_set_bus(struct trouble *trouble, const sd_bus_error *error, const char *doing);

int trouble_no_memory(struct trouble *trouble);

/* The exit status for a migration's result ("done", "failed", …) and the name of its error. */
int trouble_status_of(const char *result, const char *error_name);

void trouble_clear(struct trouble *trouble);
