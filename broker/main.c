/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "config.h"
#include "log.h"
#include "manager.h"
#include "version.h"

static void help(void)
{
    printf(
        "Usage: vmferryd [OPTION…]\n\n"
        "The broker of vmferry: negotiates live QEMU migrations and passes sockets to their helpers.\n\n"
        "  --user                        serve the user's bus instead of the system bus\n"
        "  --address=ADDRESS             serve the bus at this D-Bus address\n"
        "  --helper=PATH                 the helper (default %s)\n"
        "  --listen=ENDPOINT             listen for peers here; may be given up to %d times (default %s)\n"
        "                                tcp:ADDRESS:PORT, tcp:*:PORT, unix:/PATH or vsock:CID:PORT\n"
        "  --runtime-dir=PATH            make the sockets below it (default /run/vmferry, or\n"
        "                                $XDG_RUNTIME_DIR/vmferry with --user or --address)\n"
        "  --max-migrations=N            that run at once (default %d)\n"
        "  --max-migrations-per-user=N   of them, of one user other than root (default %d)\n"
        "  --max-channels=N              of one migration, 1 to %d (default %d)\n"
        "  --window=MIB                  kept of a channel until the peer acknowledges it, 1 to 1024 "
        "(default %d);\n"
        "                                at least bandwidth × round trip\n"
        "  --qemu-timeout=SECONDS        for the destination QEMU to listen (default %d)\n"
        "  -v, --verbose                 log more\n"
        "  -h, --help                    show this text\n"
        "  -V, --version                 show the version\n",
        VMFERRY_HELPER_PATH, CONFIG_LISTEN_MAX, DEFAULT_LISTEN, DEFAULT_MAX_MIGRATIONS, DEFAULT_MAX_PER_USER,
        DEFAULT_MAX_CHANNELS, DEFAULT_MAX_CHANNELS, DEFAULT_WINDOW_MIB, DEFAULT_QEMU_TIMEOUT / 1000000);
}

/* A number of min…max, or a message and false. */
static bool read_number(const char *option, const char *text, unsigned long min, unsigned long max,
                        uint32_t *ret)
{
    size_t n = strlen(text);
    unsigned long v =
        n > 0 && n < 10 && strspn(text, "0123456789") == n ? strtoul(text, NULL, 10) : ULONG_MAX;

    if (v < min || v > max) {
        fprintf(stderr, "vmferryd: --%s=%s is no number from %lu to %lu.\n", option, text, min, max);
        return false;
    }
    *ret = (uint32_t)v;
    return true;
}

static bool add_listen(struct config *config, const char *text)
{
    const char *why;

    if (config->n_listen == CONFIG_LISTEN_MAX) {
        fprintf(stderr, "vmferryd: --listen= is given more than %d times.\n", CONFIG_LISTEN_MAX);
        return false;
    }
    why = endpoint_parse(text, &config->endpoints[config->n_listen]);
    if (why) {
        fprintf(stderr, "vmferryd: --listen=%s: %s.\n", text, why);
        return false;
    }
    config->listen[config->n_listen++] = text;
    return true;
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
    OPTION_LISTEN,
    OPTION_RUNTIME_DIR,
    OPTION_MAX_MIGRATIONS,
    OPTION_MAX_PER_USER,
    OPTION_MAX_CHANNELS,
    OPTION_WINDOW,
    OPTION_QEMU_TIMEOUT,
};

static const struct option options[] = {
    {"user", no_argument, NULL, OPTION_USER},
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"helper", required_argument, NULL, OPTION_HELPER},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"runtime-dir", required_argument, NULL, OPTION_RUNTIME_DIR},
    {"max-migrations", required_argument, NULL, OPTION_MAX_MIGRATIONS},
    {"max-migrations-per-user", required_argument, NULL, OPTION_MAX_PER_USER},
    {"max-channels", required_argument, NULL, OPTION_MAX_CHANNELS},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"qemu-timeout", required_argument, NULL, OPTION_QEMU_TIMEOUT},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {0},
};

/* One option; false after a message. */
static bool read_option(struct config *config, int c, int *log_level)
{
    uint32_t number;

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
    case OPTION_LISTEN:
        return add_listen(config, optarg);
    case OPTION_RUNTIME_DIR:
        return set_path("runtime-dir", optarg, &config->runtime_dir);
    case OPTION_MAX_MIGRATIONS:
        return read_number("max-migrations", optarg, 1, 10000, &config->max_migrations);
    case OPTION_MAX_PER_USER:
        return read_number("max-migrations-per-user", optarg, 1, 10000, &config->max_per_user);
    case OPTION_MAX_CHANNELS:
        return read_number("max-channels", optarg, 1, DEFAULT_MAX_CHANNELS, &config->max_channels);
    case OPTION_WINDOW:
        if (!read_number("window", optarg, 1, 1024, &number))
            return false;
        config->window = (uint64_t)number * 1024 * 1024;
        return true;
    case OPTION_QEMU_TIMEOUT:
        if (!read_number("qemu-timeout", optarg, 1, 86400, &number))
            return false;
        config->qemu_timeout = (uint64_t)number * 1000000;
        return true;
    case 'v':
        *log_level = LOG_DEBUG;
        return true;
    default:
        return false; /* getopt has said it */
    }
}

static bool read_arguments(int argc, char **argv, struct config *config)
{
    int c, log_level = LOG_INFO;

    while ((c = getopt_long(argc, argv, "vhV", options, NULL)) >= 0) {
        if (c == 'h') {
            help();
            exit(EXIT_SUCCESS);
        }
        if (c == 'V') {
            puts(VMFERRY_VERSION);
            exit(EXIT_SUCCESS);
        }
        if (!read_option(config, c, &log_level))
            return false;
    }
    if (optind < argc) {
        fprintf(stderr, "vmferryd: takes no argument ('%s'). See --help.\n", argv[optind]);
        return false;
    }
    log_open(log_level);
    return config->n_listen > 0 || add_listen(config, DEFAULT_LISTEN);
}

/* Where the sockets are, unless it was said. */
static bool set_runtime_dir(struct config *config)
{
    static char path[PATH_MAX];
    const char *xdg = getenv("XDG_RUNTIME_DIR");

    if (config->runtime_dir)
        return true;
    if (config->bus == BUS_SYSTEM) {
        config->runtime_dir = "/run/vmferry";
        return true;
    }
    if (!xdg || xdg[0] != '/') {
        fprintf(stderr, "vmferryd: $XDG_RUNTIME_DIR is not set. Give --runtime-dir=.\n");
        return false;
    }
    snprintf(path, sizeof(path), "%s/vmferry", xdg);
    config->runtime_dir = path;
    return true;
}

/* As many FDs as there may be: at the limit, messages with FDs are cut, and the bus connection with them. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct config config = {
        .helper = VMFERRY_HELPER_PATH,
        .max_migrations = DEFAULT_MAX_MIGRATIONS,
        .max_per_user = DEFAULT_MAX_PER_USER,
        .max_channels = DEFAULT_MAX_CHANNELS,
        .window = (uint64_t)DEFAULT_WINDOW_MIB * 1024 * 1024,
        .qemu_timeout = DEFAULT_QEMU_TIMEOUT,
    };
    struct manager *manager;
    int r;

    if (!read_arguments(argc, argv, &config) || !set_runtime_dir(&config))
        return EXIT_FAILURE;
    umask(0022);
    raise_limits();
#if !defined(__SANITIZE_ADDRESS__)      /* LeakSanitizer has to attach */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* secrets are in this memory, for moments */
#endif
    r = manager_new(&config, &manager);
    if (r < 0)
        return EXIT_FAILURE;
    r = manager_run(manager);
    manager_free(manager);
    return r != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
