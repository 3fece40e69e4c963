/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "broker/config/config.h"

#define CONFIG_MISTAKE_MAX 1024

/* What is wrong in the files. */
struct config_mistakes {
    bool refuse; /* the caller takes nothing of files that have one; else the rest of them counts */
    unsigned n;
    char first[CONFIG_MISTAKE_MAX]; /* with its file and line, without a full stop */
};

/*
 * Reads the configuration file and its drop-ins: with path that one, which must be there, and path.d/;
 * without, those of the host, all paths of which begin with root ("" but for tests). Each mistake is logged
 * with file and line. 0, or a negative errno after logging it.
 */
int config_load(struct config *config, const char *root, const char *path, struct config_mistakes *mistakes);
