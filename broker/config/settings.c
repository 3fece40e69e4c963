/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/config/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"

#define MIB    ((uint64_t)1024 * 1024)
#define SECOND ((uint64_t)1000000)

#define NUMBER(field, least, most, standard)                                                         \
    .kind = SETTING_NUMBER, .offset = offsetof(struct config, field), .min = (least), .max = (most), \
    .number = (standard)
#define LARGE(field, least, most, scale, standard)                                                  \
    .kind = SETTING_LARGE, .offset = offsetof(struct config, field), .min = (least), .max = (most), \
    .unit = (scale), .number = (standard) / (scale)

static const struct setting settings[] = {
    {.key = "Listen",
     .option = "listen",
     .argument = "ENDPOINT",
     .help = "listen for peers here; may be given up to 16 times\n"
             "tcp:ADDRESS:PORT, tcp:*:PORT, unix:/PATH or vsock:CID:PORT",
     .initial = DEFAULT_LISTEN,
     .kind = SETTING_ENDPOINTS,
     .offset = offsetof(struct config, listen_list)},
    {.key = "AllowedDirectories",
     .option = "allowed-directories",
     .argument = "PATH",
     .help = "where the sockets of users may be; %U is the user's uid;\nmay be given up to 16 times",
     .initial = DEFAULT_ALLOWED,
     .kind = SETTING_PATHS,
     .offset = offsetof(struct config, allowed)},
    {.key = "LibvirtUser",
     .option = "libvirt-user",
     .argument = "USER",
     .help = "as whom libvirt runs QEMU: the first of these that there is;\nmay be given up to 16 times",
     .initial = DEFAULT_LIBVIRT_USER,
     .kind = SETTING_USERS,
     .offset = offsetof(struct config, libvirt_user)},
    {.key = "LibvirtSocketLabel",
     .option = "libvirt-socket-label",
     .argument = "LABEL",
     .help = "SELinux's label for the sockets of libvirt's QEMUs, such as\n"
             "system_u:system_r:svirt_socket_t:s0",
     .kind = SETTING_LABEL,
     .offset = offsetof(struct config, libvirt_label)},
    {.key = "AllowPlain",
     .option = "allow-plain",
     .argument = "BOOLEAN",
     .help = "whether migrations may be 'plain'",
     .number = 1,
     .kind = SETTING_BOOLEAN,
     .offset = offsetof(struct config, allow_plain)},
    {.key = "MaxMigrations",
     .option = "max-migrations",
     .argument = "N",
     .help = "that run at once",
     NUMBER(max_migrations, 1, 10000, DEFAULT_MAX_MIGRATIONS)},
    {.key = "MaxMigrationsPerUser",
     .option = "max-migrations-per-user",
     .argument = "N",
     .help = "of them, of one user other than root",
     NUMBER(max_per_user, 1, 10000, DEFAULT_MAX_PER_USER)},
    {.key = "MaxChannels",
     .option = "max-channels",
     .argument = "N",
     .help = "of one migration, 1 to 256",
     NUMBER(max_channels, 1, DEFAULT_MAX_CHANNELS, DEFAULT_MAX_CHANNELS)},
    {.key = "MaxChannelsPerUser",
     .option = "max-channels-per-user",
     .argument = "N",
     .help = "of all migrations of one user other than root",
     NUMBER(max_channels_per_user, 1, 1000000, DEFAULT_CHANNELS_PER_USER)},
    {.key = "MaxChannelsInAll",
     .option = "max-channels-in-all",
     .argument = "N",
     .help = "of all migrations",
     NUMBER(max_channels_in_all, 1, 1000000, DEFAULT_CHANNELS_IN_ALL)},
    {.key = "MaxWindowsPerUserMiB",
     .option = "max-windows-per-user",
     .argument = "MIB",
     .help = "of the channels of one user other than root together,\neach with the window",
     LARGE(max_windows_per_user, 1, 1048576, MIB, DEFAULT_WINDOWS_PER_USER *MIB)},
    {.key = "MaxCalls",
     .option = "max-calls",
     .argument = "N",
     .help = "whose callers are not known yet, at once",
     NUMBER(max_calls, 1, 100000, DEFAULT_MAX_CALLS)},
    {.key = "MaxCallsPerUser",
     .option = "max-calls-per-user",
     .argument = "N",
     .help = "of them, of one connection; for polkit, of one user",
     NUMBER(max_calls_per_user, 1, 100000, DEFAULT_CALLS_PER_USER)},
    {.key = "MaxGateConnections",
     .option = "max-gate-connections",
     .argument = "N",
     .help = "at the peer port that have said nothing yet, 1 to 1024",
     NUMBER(max_gate, 1, 1024, DEFAULT_GATE_PENDING)},
    {.key = "MaxSpareHelpers",
     .option = "max-spare-helpers",
     .argument = "N",
     .help = "kept ready where systemd starts them, 0 to 256; as many as\nwere used at once within the last "
             "minutes, and one at least",
     NUMBER(max_spares, 0, 256, DEFAULT_MAX_SPARES)},
    {.key = "WindowMiB",
     .option = "window",
     .argument = "MIB",
     .help = "kept of a channel until the peer acknowledges it, 1 to 1024;\nat least bandwidth × round trip",
     LARGE(window, 1, 1024, MIB, DEFAULT_WINDOW_MIB *MIB)},
    {.key = "WindowGrowthMiB",
     .option = "window-growth",
     .argument = "MIB",
     .help = "by which the windows of one migration may grow, all together,\nwhere the distance asks for it, "
             "0 to 1024",
     NUMBER(growth, 0, 1024, DEFAULT_GROWTH_MIB)},
    {.key = "QemuTimeoutSec",
     .option = "qemu-timeout",
     .argument = "SECONDS",
     .help = "for the destination QEMU to listen",
     LARGE(qemu_timeout, 1, 86400, SECOND, DEFAULT_QEMU_TIMEOUT)},
    {.key = "IdleTimeoutSec",
     .option = "idle-timeout",
     .argument = "SECONDS",
     .help = "with nothing to do, and the broker ends; 0: never;\nonly as a service of systemd's",
     LARGE(idle_timeout, 0, 86400, SECOND, DEFAULT_IDLE)},
    {.key = "ExpireSec",
     .option = "expire",
     .argument = "SECONDS",
     .help = "for the peer to connect, where the call does not say",
     LARGE(expire, 1, 86400, SECOND, DEFAULT_EXPIRE)},
    {.key = "ResumeTimeoutSec",
     .option = "resume-timeout",
     .argument = "SECONDS",
     .help = "for a lost network to come back, where the call does not say",
     LARGE(resume_timeout, 0, 86400, SECOND, DEFAULT_RESUME)},
};

const struct setting *setting_at(size_t index)
{
    return index < sizeof(settings) / sizeof(settings[0]) ? &settings[index] : NULL;
}

const struct setting *setting_find(const char *key)
{
    const struct setting *setting;

    for (size_t i = 0; (setting = setting_at(i)); i++)
        if (strcmp(setting->key, key) == 0)
            return setting;
    return NULL;
}

void setting_default(const struct setting *setting, char *ret, size_t size)
{
    if (setting->initial)
        snprintf(ret, size, "%s", setting->initial);
    else if (setting->kind == SETTING_BOOLEAN)
        snprintf(ret, size, "%s", setting->number ? "yes" : "no");
    else if (setting->kind == SETTING_LABEL)
        snprintf(ret, size, "none");
    else
        snprintf(ret, size, "%" PRIu64, setting->number);
}

static bool apply_number(const struct setting *setting, void *field, const char *text,
                         char why[static SETTING_WHY_MAX])
{
    size_t n = strlen(text);
    uint64_t v = n > 0 && n < 10 && strspn(text, "0123456789") == n ? strtoul(text, NULL, 10) : UINT64_MAX;

    if (v < setting->min || v > setting->max) {
        snprintf(why, SETTING_WHY_MAX, " is no number from %" PRIu64 " to %" PRIu64, setting->min,
                 setting->max);
        return false;
    }
    if (setting->kind == SETTING_LARGE)
        *(uint64_t *)field = v * setting->unit;
    else
        *(uint32_t *)field = (uint32_t)v;
    return true;
}

static bool apply_boolean(bool *field, const char *text, char why[static SETTING_WHY_MAX])
{
    static const char *const words[2][4] = {{"no", "false", "off", "0"}, {"yes", "true", "on", "1"}};

    for (size_t value = 0; value < 2; value++)
        for (size_t i = 0; i < 4; i++)
            if (strcasecmp(text, words[value][i]) == 0) {
                *field = value;
                return true;
            }
    snprintf(why, SETTING_WHY_MAX, " is neither yes nor no");
    return false;
}

/* Or "none". The policy alone knows whether there is such a one. */
static bool apply_label(char *field, const char *text, char why[static SETTING_WHY_MAX])
{
    for (const char *p = text; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~') {
            snprintf(why, SETTING_WHY_MAX, " is no label of SELinux");
            return false;
        }
    if (strlen(text) >= CONFIG_LABEL_MAX) {
        snprintf(why, SETTING_WHY_MAX, " is too long: a label has up to %d bytes", CONFIG_LABEL_MAX - 1);
        return false;
    }
    strcpy(field, strcmp(text, "none") == 0 ? "" : text);
    return true;
}

/* NULL, or what is wrong with a list's entry. */
static const char *check_entry(enum setting_kind kind, const char *text)
{
    struct endpoint endpoint;
    size_t n = strlen(text);

    if (kind == SETTING_ENDPOINTS)
        return endpoint_parse(text, &endpoint);
    if (kind == SETTING_USERS)
        return strchr(text, ':') ? "a user is named without a group" : NULL;
    if (text[0] != '/')
        return "the path is not absolute";
    if (n > 1 && text[n - 1] == '/')
        return "the path ends with a slash";
    for (const char *p = strchr(text, '%'); p; p = strchr(p + 2, '%'))
        if (p[1] != 'U')
            return "only %U, the uid, can follow a '%'";
    return NULL;
}

static void list_clear(struct config_list *list)
{
    while (list->n > 0)
        free(list->items[--list->n]);
}

static bool apply_list(const struct setting *setting, struct config_list *list, const char *text,
                       char why[static SETTING_WHY_MAX])
{
    static const size_t max = sizeof(list->items) / sizeof(list->items[0]);
    _cleanup_free_ char *copy = strdup(text);
    char *state = NULL, *found[sizeof(list->items) / sizeof(list->items[0])];
    size_t n = 0;

    if (text[0] == '\0') {
        list_clear(list);
        list->given = true;
        return true;
    }
    for (char *word = copy ? strtok_r(copy, " \t", &state) : NULL; word;
         word = strtok_r(NULL, " \t", &state)) {
        const char *wrong = check_entry(setting->kind, word);

        if (wrong) {
            snprintf(why, SETTING_WHY_MAX, ": %s", wrong);
            return false;
        }
        if (list->n + n == max) {
            snprintf(why, SETTING_WHY_MAX, " is one too many: the list has %zu already", max);
            return false;
        }
        found[n++] = word;
    }
    for (size_t i = 0; i < n; i++) {
        list->items[list->n] = strdup(found[i]);
        list->n += list->items[list->n] != NULL;
    }
    list->given = true;
    return true;
}

bool setting_apply(const struct setting *setting, struct config *config, const char *text,
                   char why[static SETTING_WHY_MAX])
{
    void *field = (char *)config + setting->offset;

    switch (setting->kind) {
    case SETTING_NUMBER:
    case SETTING_LARGE:
        return apply_number(setting, field, text, why);
    case SETTING_BOOLEAN:
        return apply_boolean(field, text, why);
    case SETTING_LABEL:
        return apply_label(field, text, why);
    default:
        return apply_list(setting, field, text, why);
    }
}

static bool list_is_equal(const struct config_list *a, const struct config_list *b)
{
    for (size_t i = 0; a->n == b->n && i < a->n; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return a->n == b->n;
}

bool setting_is_equal(const struct setting *setting, const struct config *a, const struct config *b)
{
    const char *left = (const char *)a + setting->offset, *right = (const char *)b + setting->offset;

    switch (setting->kind) {
    case SETTING_NUMBER:
        return memcmp(left, right, sizeof(uint32_t)) == 0;
    case SETTING_LARGE:
        return memcmp(left, right, sizeof(uint64_t)) == 0;
    case SETTING_BOOLEAN:
        return *left == *right;
    case SETTING_LABEL:
        return strcmp(left, right) == 0;
    default:
        return list_is_equal((const void *)left, (const void *)right);
    }
}

void config_init(struct config *config)
{
    const struct setting *setting;
    char text[256], why[SETTING_WHY_MAX];

    *config = (struct config){0};
    for (size_t i = 0; (setting = setting_at(i)); i++)
        if (!setting->initial) {
            setting_default(setting, text, sizeof(text));
            setting_apply(setting, config, text, why);
        }
}

void config_finish(struct config *config)
{
    const struct setting *setting;
    char why[SETTING_WHY_MAX];

    for (size_t i = 0; (setting = setting_at(i)); i++)
        if (setting->initial) {
            struct config_list *list = (void *)((char *)config + setting->offset);

            /* Without an endpoint nothing can come: an emptied list is the default again. */
            if (!list->given || (list->n == 0 && setting->kind == SETTING_ENDPOINTS))
                setting_apply(setting, config, setting->initial, why);
        }
    for (config->n_listen = 0; config->n_listen < config->listen_list.n; config->n_listen++) {
        config->listen[config->n_listen] = config->listen_list.items[config->n_listen];
        endpoint_parse(config->listen[config->n_listen], &config->endpoints[config->n_listen]);
    }
}

void config_clear(struct config *config)
{
    list_clear(&config->listen_list);
    list_clear(&config->allowed);
    list_clear(&config->libvirt_user);
}
