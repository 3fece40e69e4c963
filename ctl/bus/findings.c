/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"

static const char *const verdicts[] = {"ok", "warn", "FAIL"};

void check_found(struct check *check, enum verdict verdict, const char *name, const char *remedy,
                 const char *format, ...)
{
    _cleanup_free_ char *raw = NULL, *text = NULL, *way = remedy ? record_clean(remedy) : NULL;
    json_object *finding = json_object_new_object();
    va_list args;
    int r;

    va_start(args, format);
    r = vasprintf(&raw, format, args);
    va_end(args);
    if (r < 0)
        raw = NULL;
    text = raw ? record_clean(raw) : NULL;
    check->failed = check->failed || verdict == VERDICT_FAIL;
    json_object_object_add(finding, "Name", json_object_new_string(name));
    json_object_object_add(finding, "Verdict", json_object_new_string(verdicts[verdict]));
    json_object_object_add(finding, "Text", json_object_new_string(text ? text : ""));
    json_object_object_add(finding, "Remedy", way ? json_object_new_string(way) : NULL);
    json_object_array_add(check->findings, finding);
    if (check->ctl->arguments.json != JSON_OFF)
        return;
    printf("%-4s  %-10s  %s\n", verdicts[verdict], name, text ? text : "");
    if (way)
        printf("                  → %s\n", way);
    fflush(stdout);
}
