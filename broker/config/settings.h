/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Each thing that can be set: its name in the configuration file and on the command line, its range, its
 * default and what --help says of it. One table for all of them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/config/config.h"

#define SETTING_WHY_MAX 256

enum setting_kind {
    SETTING_NUMBER,    /* uint32_t */
    SETTING_LARGE,     /* uint64_t; the text counts in units */
    SETTING_BOOLEAN,   /* bool */
    SETTING_ENDPOINTS, /* struct config_list */
    SETTING_PATHS,     /* struct config_list */
    SETTING_USERS,     /* struct config_list */
    SETTING_LABEL,     /* char[CONFIG_LABEL_MAX] */
};

struct setting {
    const char *key;      /* in the file */
    const char *option;   /* on the command line */
    const char *argument; /* what --help calls the value */
    const char *help;     /* lines after the first are indented there */
    const char *initial;  /* a list's default; else NULL */
    uint64_t number;      /* the default of all others, in units */
    uint64_t min, max;    /* in units */
    uint64_t unit;        /* of SETTING_LARGE */
    enum setting_kind kind;
    size_t offset; /* in struct config */
};

/* The index-th one; NULL behind the last. */
const struct setting *setting_at(size_t index);

/* By its name in the file; NULL where there is none. */
const struct setting *setting_find(const char *key);

/*
 * Sets it from a text: a number, a boolean (yes, no, true, false, on, off, 1, 0), or entries to add to a
 * list, with blanks between them; an empty text empties the list. Or false, and why says what is wrong, to be
 * written behind the text ("… is no number from 1 to 9"); then nothing has changed.
 */
bool setting_apply(const struct setting *setting, struct config *config, const char *text,
                   char why[static SETTING_WHY_MAX]);

/* Whether two finished configurations have it alike. */
bool setting_is_equal(const struct setting *setting, const struct config *a, const struct config *b);

/* The default as text. */
void setting_default(const struct setting *setting, char *ret, size_t size);

/* The defaults of all settings. config_clear() in the end. */
void config_init(struct config *config);

/* To be called when all has been set. */
void config_finish(struct config *config);
void config_clear(struct config *config);
