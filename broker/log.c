/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#include "common/message.h"

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

bool log_wants(int priority)
{
    return priority <= priority_max;
}

enum { FIELDS_MAX = 10, TEXT_MAX = 1024, FIELD_MAX = 512 };

/* The fields of one entry. */
struct entry {
    struct iovec fields[FIELDS_MAX];
    char texts[FIELDS_MAX][FIELD_MAX];
    int n;
};

static void add_field(struct entry *entry, const char *name, const char *value)
{
    char *text = entry->texts[entry->n];

    if (!value || value[0] == '\0')
        return;
    snprintf(text, FIELD_MAX, "%s=%s", name, value);
    entry->fields[entry->n++] = (struct iovec){text, strlen(text)};
}

static void send_to_journal(int priority, const struct log_about *about, const char *text)
{
    char message[TEXT_MAX + sizeof("MESSAGE=")], number[4];
    struct entry entry = {.n = 1};

    snprintf(message, sizeof(message), "MESSAGE=%s", text);
    snprintf(number, sizeof(number), "%d", priority & 7);
    entry.fields[0] = (struct iovec){message, strlen(message)};
    add_field(&entry, "PRIORITY", number);
    add_field(&entry, "MESSAGE_ID", about->message_id);
    add_field(&entry, "VMFERRY_MIGRATION", about->id);
    add_field(&entry, "VMFERRY_VM", about->vm);
    add_field(&entry, "VMFERRY_ROLE", about->role);
    add_field(&entry, "VMFERRY_ERROR", about->error);
    add_field(&entry, "VMFERRY_UID", about->uid);
    add_field(&entry, "VMFERRY_METHOD", about->method);
    add_field(&entry, "OBJECT_SYSTEMD_UNIT", about->unit);
    sd_journal_sendv(entry.fields, entry.n);
}

void log_about_v(int priority, const struct log_about *about, const char *format, va_list args)
{
    char text[TEXT_MAX];
    int n = 0;

    if (!log_wants(priority))
        return;
    if (about->id)
        n = snprintf(text, sizeof(text), "%s (%s): ", about->id, about->vm ? about->vm : "");
    vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
    if (strlen(text) + 1 == sizeof(text))
        message_text_end(text); /* the journal shows no line that is not UTF-8 */
    if (to_journal)
        send_to_journal(priority, about, text);
    else
        fprintf(stderr, "vmferryd: %s\n", text);
}

void log_about(int priority, const struct log_about *about, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_about_v(priority, about, format, args);
    va_end(args);
}

void log_event(int priority, const char *id, const char *vm, const char *format, ...)
{
    const struct log_about about = {.id = id, .vm = vm};
    va_list args;

    va_start(args, format);
    log_about_v(priority, &about, format, args);
    va_end(args);
}

void log_start_failed(const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_event(LOG_ERR, NULL, NULL, "%s", text);
    sd_notifyf(0, "STATUS=%s", text);
}
