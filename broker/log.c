/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

static bool to_journal;
static int priority_max = LOG_INFO;

/* systemd says in JOURNAL_STREAM which file stderr is when it leads to the journal, systemd.exec(5). */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) >= 0 &&
           st.st_dev == device && st.st_ino == inode;
}

void log_open(int max_priority)
{
    to_journal = stderr_is_journal();
    priority_max = max_priority;
}

bool log_sample(uint32_t *count)
{
    if (*count == UINT32_MAX)
        return false;
    ++*count;
    return *count <= LOG_SAMPLE_ALL || (*count & (*count - 1)) == 0;
}

void log_event(int priority, const char *id, const char *vm, const char *format, ...)
{
    char text[1024];
    va_list args;

    if (priority > priority_max)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (to_journal)
        sd_journal_send("MESSAGE=%s", text, "PRIORITY=%i", priority, "VMFERRY_MIGRATION=%s", id ? id : "",
                        "VMFERRY_VM=%s", vm ? vm : "", NULL);
    else if (id)
        fprintf(stderr, "vmferryd: %s (%s): %s\n", id, vm ? vm : "", text);
    else
        fprintf(stderr, "vmferryd: %s\n", text);
}
