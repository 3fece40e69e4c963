/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command line. It stands above the files, each time that these are read. */

#include <stdbool.h>
#include <stddef.h>

#include "broker/config/config.h"
#include "broker/config/load.h"

struct setting;

struct arguments {
    const char *config; /* NULL: the host's files */
    int log_level;
    struct {
        const struct setting *setting;
        const char *text;
    } given[256];
    size_t n_given;
};

/* Reads the command line, whose texts stay borrowed; what is not a setting goes into config at once. False
 * after a message. --help and --version end the process. */
bool arguments_read(int argc, char **argv, struct config *config, struct arguments *arguments);

/* Fills config, which config_init() and arguments_read() began, from the files and the command line. 0, or a
 * negative errno after a message. */
int arguments_load(const struct arguments *arguments, struct config *config,
                   struct config_mistakes *mistakes);

/*
 * The same at a broker that runs with the configuration `now`: the files are read anew, and a mistake in them
 * refuses all of them. 0, and ret is to be cleared; or a negative errno after logging what mistakes->first
 * says.
 */
int arguments_load_again(const struct arguments *arguments, const struct config *now, struct config *ret,
                         struct config_mistakes *mistakes);
