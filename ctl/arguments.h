/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command line, read by the tables of options.h. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "ctl/options.h"
#include "ctl/trouble.h"

#define ARGUMENTS_MANY_MAX 16 /* of an option that may be given again */

enum json_mode {
    JSON_OFF,
    JSON_SHORT,
    JSON_PRETTY,
    JSON_SEQUENCE, /* an object a second, each on a line, and one at the end */
};

enum postcopy_mode {
    POSTCOPY_NO,
    POSTCOPY_NOW,   /* as soon as memory flows */
    POSTCOPY_AFTER, /* after some seconds, if it is not done by then */
    POSTCOPY_AUTO,  /* where pre-copy does not come to an end; and a paused one is recovered by itself */
};

struct text_list {
    const char *texts[ARGUMENTS_MANY_MAX];
    unsigned n;
};

struct arguments {
    enum verb_id verb;
    char **operands;
    int n_operands;
    bool help, version;
    bool verb_given; /* false: VERB_LIST was assumed */
    /* all verbs */
    const char *host, *address;
    bool openmetrics, all;
    const char *columns; /* of list; NULL: the usual ones */
    bool user, no_pager, no_legend, quiet, no_ask_password;
    enum json_mode json;
    /* some verbs */
    struct text_list properties, endpoints;
    bool value, force, resume, ssh, verbose, dry_run, background, attach;
    bool libvirt, temporary, unsafe, auto_converge, paused;
    const char *disks; /* NULL: none; "": all; else their names, with commas */
    const char *connect, *rpc, *name, *domain;
    const char *qmp, *dst_qmp, *socket, *socket_owner, *security, *ticket_file, *output;
    enum postcopy_mode postcopy;
    uint64_t postcopy_after;  /* µs */
    uint64_t multifd;         /* 0: none */
    uint64_t bandwidth;       /* bytes/s, 0: as fast as it goes */
    uint64_t downtime_limit;  /* µs, 0: as QEMU has it */
    uint64_t expire, timeout; /* µs, 0: not given */
    uint64_t resume_timeout;  /* µs */
    bool notify;
    uint64_t notify_after; /* µs */
    bool has_resume_timeout;
};

/* 0, or -1 with a trouble of STATUS_USAGE. May reorder argv; what it returns points into it. */
int arguments_parse(int argc, char **argv, struct arguments *ret, struct trouble *trouble);

/* Whether it is a domain of libvirt that is to move. */
bool arguments_want_libvirt(const struct arguments *arguments);

/* The text of --help: of the verb where one was given, else of the program. Both fit 80 × 24. */
void arguments_help(FILE *file, const struct arguments *arguments);
