/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/config/arguments.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config/settings.h"
#include "broker/log.h"
#include "version.h"

enum { HELP_INDENT = 32 };

static void help_setting(const struct setting *setting)
{
    char name[64], initial[256];
    const char *line = setting->help;

    snprintf(name, sizeof(name), "  --%s=%s", setting->option, setting->argument);
    setting_default(setting, initial, sizeof(initial));
    printf("%-*s", HELP_INDENT, name);
    for (const char *end; (end = strchr(line, '\n')); line = end + 1)
        printf("%.*s\n%*s", (int)(end - line), line, HELP_INDENT, "");
    printf("%s (default %s)\n", line, initial);
}

static void help(void)
{
    const struct setting *setting;

    printf(
        "Usage: vmferryd [OPTION…]\n\n"
        "The broker of vmferry: negotiates live QEMU migrations and passes sockets to their helpers.\n\n"
        "  --user                        serve the user's bus instead of the system bus\n"
        "  --address=ADDRESS             serve the bus at this D-Bus address\n"
        "  --helper=PATH                 the helper (default %s)\n"
        "  --helper-socket=PATH          get helpers from systemd, by connecting here; none is forked\n"
        "  --giver-socket=PATH           let what connects here give sockets to other users, for a broker "
        "that\n"
        "                                has no right to\n"
        "  --runtime-dir=PATH            make the sockets below it (default /run/vmferry, or\n"
        "                                $XDG_RUNTIME_DIR/vmferry with --user or --address)\n"
        "  --config=PATH                 read this file and PATH.d/*.conf instead of the host's\n"
        "  -v, --verbose                 log more\n"
        "  -h, --help                    show this text\n"
        "  -V, --version                 show the version\n\n"
        "These stand above what vmferryd.conf says:\n\n",
        VMFERRY_HELPER_PATH);
    for (size_t i = 0; (setting = setting_at(i)); i++)
        help_setting(setting);
}

static bool set_path(const char *option, const char *text, const char **ret)
{
    if (text[0] != '/') {
        fprintf(stderr, "vmferryd: --%s=%s is not an absolute path.\n", option, text);
        return false;
    }
    *ret = text;
    return true;
}

enum {
    OPTION_USER = 256,
    OPTION_ADDRESS,
    OPTION_HELPER,
    OPTION_HELPER_SOCKET,
    OPTION_GIVER_SOCKET,
    OPTION_RUNTIME_DIR,
    OPTION_CONFIG,
    OPTION_SETTING, /* and as many as there are settings */
};

static const struct option plain_options[] = {
    {"user", no_argument, NULL, OPTION_USER},
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"helper", required_argument, NULL, OPTION_HELPER},
    {"helper-socket", required_argument, NULL, OPTION_HELPER_SOCKET},
    {"giver-socket", required_argument, NULL, OPTION_GIVER_SOCKET},
    {"runtime-dir", required_argument, NULL, OPTION_RUNTIME_DIR},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
};

enum { N_PLAIN = sizeof(plain_options) / sizeof(plain_options[0]), SETTINGS_MAX = 64 };

static bool note_setting(struct arguments *arguments, const struct setting *setting, const char *text)
{
    if (arguments->n_given == sizeof(arguments->given) / sizeof(arguments->given[0])) {
        fprintf(stderr, "vmferryd: There are too many options.\n");
        return false;
    }
    arguments->given[arguments->n_given].setting = setting;
    arguments->given[arguments->n_given++].text = text;
    return true;
}

/* One option; false after a message. */
static bool read_option(struct config *config, struct arguments *arguments, int c)
{
    switch (c) {
    case OPTION_USER:
        config->bus = BUS_USER;
        return true;
    case OPTION_ADDRESS:
        config->bus = BUS_ADDRESS;
        config->bus_address = optarg;
        return true;
    case OPTION_HELPER:
        return set_path("helper", optarg, &config->helper);
    case OPTION_HELPER_SOCKET:
        return set_path("helper-socket", optarg, &config->helper_socket);
    case OPTION_GIVER_SOCKET:
        return set_path("giver-socket", optarg, &config->giver_socket);
    case OPTION_RUNTIME_DIR:
        return set_path("runtime-dir", optarg, &config->runtime_dir);
    case OPTION_CONFIG:
        return set_path("config", optarg, &arguments->config);
    case 'v':
        arguments->log_level = LOG_DEBUG;
        return true;
    case 'h':
        help();
        exit(EXIT_SUCCESS);
    case 'V':
        puts(VMFERRY_VERSION);
        exit(EXIT_SUCCESS);
    default:
        if (c >= OPTION_SETTING)
            return note_setting(arguments, setting_at((size_t)(c - OPTION_SETTING)), optarg);
        return false; /* getopt has said it */
    }
}

bool arguments_read(int argc, char **argv, struct config *config, struct arguments *arguments)
{
    struct option options[N_PLAIN + SETTINGS_MAX + 1] = {0};
    const struct setting *setting;
    size_t i;
    int c;

    memcpy(options, plain_options, sizeof(plain_options));
    for (i = 0; i < SETTINGS_MAX && (setting = setting_at(i)); i++)
        options[N_PLAIN + i] =
            (struct option){setting->option, required_argument, NULL, (int)(OPTION_SETTING + i)};
    while ((c = getopt_long(argc, argv, "vhV", options, NULL)) >= 0)
        if (!read_option(config, arguments, c))
            return false;
    if (optind < argc) {
        fprintf(stderr, "vmferryd: takes no argument ('%s'). See --help.\n", argv[optind]);
        return false;
    }
    return true;
}

/* What the command line says of a list stands instead of the files' list. */
static bool apply(const struct arguments *arguments, struct config *config)
{
    char why[SETTING_WHY_MAX];

    for (size_t i = 0; i < arguments->n_given; i++)
        if (arguments->given[i].setting->initial)
            setting_apply(arguments->given[i].setting, config, "", why);
    for (size_t i = 0; i < arguments->n_given; i++)
        if (!setting_apply(arguments->given[i].setting, config, arguments->given[i].text, why)) {
            fprintf(stderr, "vmferryd: --%s=%s%s.\n", arguments->given[i].setting->option,
                    arguments->given[i].text, why);
            return false;
        }
    return true;
}

int arguments_load(const struct arguments *arguments, struct config *config, struct config_mistakes *mistakes)
{
    /* The files are of the system's broker; the others have one only if they are told so. */
    bool has_files = config->bus == BUS_SYSTEM || arguments->config;
    int r = has_files ? config_load(config, "", arguments->config, mistakes) : 0;

    if (r >= 0 && !apply(arguments, config))
        r = -EINVAL;
    if (r >= 0)
        config_finish(config);
    return r;
}

int arguments_load_again(const struct arguments *arguments, const struct config *now, struct config *ret,
                         struct config_mistakes *mistakes)
{
    int r;

    config_init(ret);
    ret->bus = now->bus;
    ret->bus_address = now->bus_address;
    ret->helper = now->helper;
    ret->helper_socket = now->helper_socket;
    ret->giver_socket = now->giver_socket;
    ret->runtime_dir = now->runtime_dir;
    ret->libvirt_dir = now->libvirt_dir;
    mistakes->refuse = true;
    r = arguments_load(arguments, ret, mistakes);
    if (r >= 0 && mistakes->n > 0)
        r = -EINVAL;
    if (r < 0)
        config_clear(ret);
    return r;
}
