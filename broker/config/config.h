/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the broker was told: by its configuration files, vmferryd.conf(5), and over these by its
 * command line. settings.c knows each setting, load.c reads the files, arguments.c the command line; the
 * defaults stand here, once. While the broker runs, the manager alone replaces it, as a whole, when it is
 * told to read the files again: others look into it each time anew, and keep no pointer to what is in it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"

#define CONFIG_LISTEN_MAX 16  /* entries of any list */
#define CONFIG_LABEL_MAX  256 /* bytes of a label of SELinux, its NUL included */

#define DEFAULT_LISTEN            "tcp:*:16520"
#define DEFAULT_ALLOWED           "/run/user/%U"
#define DEFAULT_LIBVIRT_USER      "libvirt-qemu qemu"
#define DEFAULT_MAX_MIGRATIONS    256
#define DEFAULT_MAX_PER_USER      64
#define DEFAULT_MAX_CHANNELS      256
#define DEFAULT_CHANNELS_PER_USER 1024
#define DEFAULT_WINDOWS_PER_USER  4096 /* MiB */
#define DEFAULT_CHANNELS_IN_ALL   4096
#define DEFAULT_MAX_CALLS         1024
#define DEFAULT_CALLS_PER_USER    512
#define DEFAULT_QEMU_TIMEOUT      30000000 /* µs */
#define DEFAULT_RESUME            60000000 /* µs */
#define DEFAULT_IDLE              60000000 /* µs */
#define DEFAULT_WINDOW_MIB        4
#define DEFAULT_GROWTH_MIB        28
#define DEFAULT_EXPIRE            60000000 /* µs */
#define DEFAULT_GATE_PENDING      512
#define DEFAULT_MAX_SPARES        24
#define DEFAULT_GATE_DEADLINE     5000      /* ms */
#define FINISHED_KEPT             600000000 /* µs for which a finished migration stays readable */
#define FINISHED_MAX              512       /* of which so many are kept */
#define CONNECTED_IDLE            600000000 /* µs for which a connected migration waits for its first channel */
#define EXPIRE_MIN                100000    /* µs */
#define EXPIRE_MAX                86400000000ULL /* µs: a day */

enum config_bus {
    BUS_SYSTEM,
    BUS_USER,
    BUS_ADDRESS,
};

/* A setting that is a list. */
struct config_list {
    char *items[CONFIG_LISTEN_MAX]; /* owned */
    size_t n;
    bool given; /* the default counts no more, even where nothing is left of the list */
};

struct config {
    enum config_bus bus;
    const char *bus_address;   /* BUS_ADDRESS */
    const char *helper;        /* absolute path of vmferry-helper */
    const char *helper_socket; /* absolute path of systemd's socket for helpers; NULL: forks */
    const char *giver_socket;  /* absolute path of systemd's socket for the giver; NULL: gives away itself */
    const char *runtime_dir;   /* absolute path under which the sockets are */
    const char *libvirt_dir;   /* the same for those of the layout 'libvirt' */
    struct config_list listen_list;
    const char *listen[CONFIG_LISTEN_MAX];        /* those of the list, or the default; by config_finish() */
    struct endpoint endpoints[CONFIG_LISTEN_MAX]; /* of listen */
    size_t n_listen;
    struct config_list
        allowed; /* directories for the sockets of callers that are not root; %U is their uid */
    struct config_list
        libvirt_user; /* the first one that this host has owns the sockets of libvirt's QEMUs */
    char libvirt_label[CONFIG_LABEL_MAX]; /* SELinux's, for the sockets of the layout 'libvirt'; "": none */
    bool allow_plain;
    uint32_t max_migrations;
    uint32_t max_per_user;
    uint32_t max_channels; /* of one migration */
    uint32_t max_channels_per_user;
    uint32_t max_channels_in_all;
    uint64_t max_windows_per_user; /* bytes; a channel counts as one window */
    uint32_t max_calls;            /* that wait until it is known who calls */
    uint32_t max_calls_per_user;
    uint32_t max_gate;       /* connections at the peer port that have said nothing yet */
    uint32_t max_spares;     /* helpers that wait for migrations, where systemd starts them */
    uint64_t window;         /* bytes */
    uint32_t growth;         /* MiB by which the windows of a migration may grow, all together */
    uint64_t qemu_timeout;   /* µs until a destination QEMU must accept */
    uint64_t idle_timeout;   /* µs without anything to do, under systemd; 0: never ends by itself */
    uint64_t expire;         /* µs; of a migration that does not say */
    uint64_t resume_timeout; /* µs; of a migration that does not say */
};
