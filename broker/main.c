/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "broker/config/arguments.h"
#include "broker/config/settings.h"
#include "broker/log.h"
#include "broker/manager.h"
#include "common/cleanup.h"
#include "version.h" /* VMFERRY_HELPER_PATH */

/* EXIT_UNUSABLE: it cannot start here, and nothing is lost if systemd does not try again before the next
 * call. */
enum { EXIT_USAGE = 2, EXIT_UNUSABLE = 78 /* EX_CONFIG of sysexits.h */ };

static bool read_config(int argc, char **argv, struct config *config, struct arguments *arguments)
{
    struct config_mistakes mistakes = {0};

    if (!arguments_read(argc, argv, config, arguments))
        return false;
    log_open(arguments->log_level);
    return arguments_load(arguments, config, &mistakes) >= 0;
}

/* Where the sockets are, unless it was said. */
static bool set_runtime_dir(struct config *config)
{
    static char path[PATH_MAX], below[PATH_MAX + sizeof("/libvirt")];
    const char *xdg = getenv("XDG_RUNTIME_DIR");

    config->libvirt_dir = below;
    if (config->runtime_dir) {
        snprintf(below, sizeof(below), "%s/libvirt", config->runtime_dir);
        return true;
    }
    if (config->bus == BUS_SYSTEM) {
        config->runtime_dir = "/run/vmferry";
        config->libvirt_dir = "/run/libvirt/vmferry"; /* where Debian's AppArmor lets libvirt's QEMUs */
        return true;
    }
    if (!xdg || xdg[0] != '/') {
        fprintf(stderr, "vmferryd: $XDG_RUNTIME_DIR is not set. Give --runtime-dir=.\n");
        return false;
    }
    snprintf(path, sizeof(path), "%s/vmferry", xdg);
    snprintf(below, sizeof(below), "%s/libvirt", path);
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
    _cleanup_(config_clear) struct config config;
    struct arguments arguments = {.log_level = LOG_INFO};
    struct manager *manager;
    bool unneeded; /* under systemd, without anything stored */
    int r;

    config_init(&config);
    config.helper = VMFERRY_HELPER_PATH;
    if (!read_config(argc, argv, &config, &arguments) || !set_runtime_dir(&config))
        return EXIT_USAGE;
    umask(0022);
    raise_limits();
#if !defined(__SANITIZE_ADDRESS__)      /* LeakSanitizer has to attach */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* secrets are in this memory, for moments */
#endif
    unneeded = getenv("NOTIFY_SOCKET") && !getenv("LISTEN_FDS"); /* manager_new() takes the latter away */
    r = manager_new(&config, &arguments, &manager);
    if (r < 0)
        return unneeded ? EXIT_UNUSABLE : EXIT_FAILURE;
    r = manager_run(manager);
    manager_free(manager);
    return r == 0 || r == EXIT_IDLE ? r : EXIT_FAILURE;
}
