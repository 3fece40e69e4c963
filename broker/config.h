/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the broker was told at its start. main.c fills it and says so in --help; the defaults stand here,
 * once. */

#include <stdint.h>

#include "endpoint.h"

#define CONFIG_LISTEN_MAX 16

#define DEFAULT_LISTEN         "tcp:*:16520"
#define DEFAULT_MAX_MIGRATIONS 256
#define DEFAULT_MAX_PER_USER   64
#define DEFAULT_MAX_CHANNELS   256
#define DEFAULT_QEMU_TIMEOUT   30000000 /* µs */
#define DEFAULT_RESUME         60000000 /* µs */
#define DEFAULT_WINDOW_MIB     4
#define DEFAULT_EXPIRE         60000000 /* µs */
#define DEFAULT_GATE_PENDING   512
#define DEFAULT_GATE_DEADLINE  5000      /* ms */
#define FINISHED_KEPT          600000000 /* µs for which a finished migration stays readable */
#define FINISHED_MAX           512       /* of which so many are kept */
#define CONNECTED_IDLE         600000000 /* µs for which a connected migration waits for its first channel */
#define EXPIRE_MIN             100000    /* µs */
#define EXPIRE_MAX             86400000000ULL /* µs: a day */

enum config_bus {
    BUS_SYSTEM,
    BUS_USER,
    BUS_ADDRESS,
};

struct config {
    enum config_bus bus;
    const char *bus_address; /* BUS_ADDRESS */
    const char *helper;      /* absolute path of vmferry-helper */
    const char *runtime_dir; /* absolute path under which the sockets are */
    const char *listen[CONFIG_LISTEN_MAX];
    struct endpoint endpoints[CONFIG_LISTEN_MAX]; /* of listen */
    size_t n_listen;
    uint32_t max_migrations;
    uint32_t max_per_user;
    uint32_t max_channels;
    uint64_t window;       /* bytes */
    uint64_t qemu_timeout; /* µs until a destination QEMU must accept */
};
