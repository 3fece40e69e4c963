/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/keepalive.h"

#include <stdlib.h>
#include <string.h>

/* The last line "name = NUMBER" that is no comment; else what is there without one. */
static long read_number(const char *text, const char *name, long otherwise)
{
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *at = line + strspn(line, " \t");
        size_t n = strlen(name);
        char *end;
        long number;

        if (strncmp(at, name, n) != 0)
            continue;
        at += n;
        at += strspn(at, " \t");
        if (*at != '=')
            continue;
        number = strtol(at + 1, &end, 10);
        if (end != at + 1)
            otherwise = number;
    }
    return otherwise;
}

uint64_t keepalive_read(const char *text)
{
    long interval = read_number(text, "keepalive_interval", 5);
    long count = read_number(text, "keepalive_count", 5);

    return interval <= 0 || count < 0 ? KEEPALIVE_NEVER : (uint64_t)interval * ((uint64_t)count + 1);
}
