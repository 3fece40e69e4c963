/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/config/load.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/config/settings.h"
#include "broker/log.h"
#include "common/cleanup.h"
#include "version.h"

enum { DROP_INS_MAX = 256, N_PLACES = 3 };

#define FILE_NAME "vmferryd.conf"
#define SECTION   "Broker"

/* The administrator's come before those of the moment, and these before those of packages. */
static const char *const places[N_PLACES] = {VMFERRY_SYSCONFDIR "/vmferry", "/run/vmferry",
                                             VMFERRY_VENDORDIR "/vmferry"};

/* A file while it is read. */
struct reading {
    struct config *config;
    struct config_mistakes *mistakes;
    const char *path;
    FILE *file;
    char *line; /* owned; getline(3)'s */
    size_t size;
    unsigned number; /* of the line, from 1 on */
};

/* A file was wrong: one sentence without its full stop. */
static void mistake(struct config_mistakes *mistakes, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void mistake(struct config_mistakes *mistakes, const char *format, ...)
{
    char text[CONFIG_MISTAKE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (mistakes->n++ == 0)
        strcpy(mistakes->first, text);
    log_event(LOG_WARNING, NULL, NULL, mistakes->refuse ? "%s." : "%s. It is ignored.", text);
}

static void filep(FILE **file)
{
    if (*file)
        fclose(*file);
}

/*
 * The library's fgets(): it calls this once a line, which is how we know the line that its handler is called
 * for. A line that begins with blanks would be a continuation for the library; it is none for us.
 */
static char *read_line(char *buffer, int size, void *stream)
{
    struct reading *reading = stream;
    ssize_t n = getline(&reading->line, &reading->size, reading->file);
    const char *text = reading->line;

    if (n < 0)
        return NULL;
    reading->number++;
    text += strspn(text, " \t");
    if (strlen(reading->line) != (size_t)n || strlen(text) >= (size_t)size) {
        mistake(reading->mistakes, "%s:%u: The line %s", reading->path, reading->number,
                strlen(text) >= (size_t)size ? "is too long; spread lists over several" : "holds a NUL");
        text = "\n";
    }
    strcpy(buffer, text);
    return buffer;
}

static int on_value(void *userdata, const char *section, const char *name, const char *value)
{
    struct reading *reading = userdata;
    const struct setting *setting = setting_find(name);
    char why[SETTING_WHY_MAX];

    if (strcmp(section, SECTION) != 0)
        mistake(reading->mistakes, "%s:%u: '%s' is in the section [%s]; only [" SECTION "] is known",
                reading->path, reading->number, name, section);
    else if (!setting)
        mistake(reading->mistakes, "%s:%u: There is no setting '%s'", reading->path, reading->number, name);
    else if (!setting_apply(setting, reading->config, value, why))
        mistake(reading->mistakes, "%s:%u: %s=%s%s", reading->path, reading->number, name, value, why);
    return 1;
}

static int read_file(struct config *config, const char *path, struct config_mistakes *mistakes)
{
    /* Not blocking: it could be a FIFO. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    _cleanup_(filep) FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    struct reading reading = {.config = config, .mistakes = mistakes, .path = path, .file = file};
    struct stat st;
    int r;

    if (!file) {
        r = -errno;
        fd_closep(&fd);
        return r;
    }
    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISCHR(st.st_mode)) /* a link to /dev/null: masked */
        return 0;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -EISDIR : -ENOTSUP;
    r = ini_parse_stream(read_line, &reading, on_value, &reading);
    free(reading.line);
    if (r > 0)
        mistake(mistakes, "%s:%d: That is neither a [section] nor KEY=VALUE", path, r);
    return r < 0 ? -ENOMEM : 0;
}

/* Reads one where it is there, and says where it cannot be read. */
static bool try_file(struct config *config, const char *path, struct config_mistakes *mistakes)
{
    int r = read_file(config, path, mistakes);

    if (r < 0 && r != -ENOENT)
        mistake(mistakes, "Cannot read %s: %s", path, strerror(-r));
    return r != -ENOENT;
}

struct drop_in {
    char name[NAME_MAX + 1];
    size_t directory;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct drop_in *)a)->name, ((const struct drop_in *)b)->name);
}

/* Adds a directory's *.conf, but for names that an earlier one has. */
static size_t list_drop_ins(const char *path, size_t directory, struct drop_in *list, size_t n,
                            struct config_mistakes *mistakes)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        size_t length = strlen(entry->d_name);
        bool known = false;

        if (entry->d_name[0] == '.' || length < 6 || strcmp(entry->d_name + length - 5, ".conf") != 0)
            continue;
        for (size_t i = 0; i < n; i++)
            known = known || strcmp(list[i].name, entry->d_name) == 0;
        if (known)
            continue;
        if (n == DROP_INS_MAX) {
            mistake(mistakes, "%s: '%s' is in excess of %d drop-ins", path, entry->d_name, DROP_INS_MAX);
            break;
        }
        strcpy(list[n].name, entry->d_name);
        list[n++].directory = directory;
    }
    if (dir)
        closedir(dir);
    return n;
}

/* In the order of their names, whatever directory they are in. */
static int load_drop_ins(struct config *config, const char (*directories)[PATH_MAX], size_t n_directories,
                         struct config_mistakes *mistakes)
{
    _cleanup_free_ struct drop_in *list = calloc(DROP_INS_MAX, sizeof(*list));
    size_t n = 0;

    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < n_directories; i++)
        n = list_drop_ins(directories[i], i, list, n, mistakes);
    qsort(list, n, sizeof(*list), compare_names);
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX];

        if (snprintf(path, sizeof(path), "%s/%s", directories[list[i].directory], list[i].name) <
            (int)sizeof(path))
            try_file(config, path, mistakes);
    }
    return 0;
}

int config_load(struct config *config, const char *root, const char *path, struct config_mistakes *mistakes)
{
    char directories[N_PLACES][PATH_MAX], file[PATH_MAX];
    bool found = false;
    int r;

    if (path) {
        r = read_file(config, path, mistakes);
        if (r < 0) {
            if (mistakes->n++ == 0)
                snprintf(mistakes->first, sizeof(mistakes->first), "Cannot read %s: %s", path, strerror(-r));
            log_event(LOG_ERR, NULL, NULL, "Cannot read %s: %s. See --config=.", path, strerror(-r));
            return r;
        }
        snprintf(directories[0], sizeof(directories[0]), "%s.d", path);
        return load_drop_ins(config, (const char(*)[PATH_MAX])directories, 1, mistakes);
    }
    for (size_t i = 0; i < N_PLACES; i++) {
        snprintf(file, sizeof(file), "%s%s/" FILE_NAME, root, places[i]);
        found = found || try_file(config, file, mistakes);
        snprintf(directories[i], sizeof(directories[i]), "%s%s/" FILE_NAME ".d", root, places[i]);
    }
    return load_drop_ins(config, (const char(*)[PATH_MAX])directories, N_PLACES, mistakes);
}
