/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What verbs and options there are: one table of each. Reading (arguments.c), --help, the completions that
 * completion/generate.c makes, and the tests that hold the manual against them all go by these tables.
 * Nothing else of the program is needed for them, so that the generator can run where the program cannot.
 */

#include <stdbool.h>

/* For scripts, in --version: options of migrate that an older program may lack. */
#define OPTIONS_FEATURES "postcopy multifd disks resume ssh"

enum verb_id {
    VERB_LIST,
    VERB_STATUS,
    VERB_SHOW,
    VERB_WATCH,
    VERB_WAIT,
    VERB_CANCEL,
    VERB_LIMIT,
    VERB_FORGET,
    VERB_RECEIVE,
    VERB_SEND,
    VERB_MIGRATE,
    VERB_TUNNEL,
    VERB_CHECK,
    VERB_METRICS,
    VERB_STDIO, /* internal: the far end of an ssh connection, see verbs/stdio.h */
    VERB_MAX_,
};

/* What a completion offers for an operand called MIGRATION. */
enum migrations {
    MIGRATIONS_ALL,
    MIGRATIONS_FINISHED,
};

struct verb_rule {
    const char *name;
    const char *operands; /* for people; "[" begins what may be left out, "…" says that there may be more */
    int min, max;
    const char *help; /* NULL: internal, and said nowhere */
    enum migrations migrations;
};

enum option_id {
    OPTION_HOST,
    OPTION_USER,
    OPTION_ADDRESS,
    OPTION_JSON,
    OPTION_J,
    OPTION_QUIET,
    OPTION_VERBOSE,
    OPTION_NO_LEGEND,
    OPTION_NO_PAGER,
    OPTION_NO_ASK_PASSWORD,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_PROPERTY,
    OPTION_VALUE,
    OPTION_FORCE,
    OPTION_TIMEOUT,
    OPTION_NOTIFY,
    OPTION_QMP,
    OPTION_DST_QMP,
    OPTION_SSH,
    OPTION_POSTCOPY,
    OPTION_MULTIFD,
    OPTION_RESUME,
    OPTION_PAUSED,
    OPTION_BACKGROUND,
    OPTION_ATTACH,
    OPTION_DRY_RUN,
    OPTION_BANDWIDTH,
    OPTION_DOWNTIME_LIMIT,
    OPTION_TICKET_FILE,
    OPTION_SECURITY,
    OPTION_SOCKET,
    OPTION_SOCKET_OWNER,
    OPTION_ENDPOINT,
    OPTION_EXPIRE,
    OPTION_RESUME_TIMEOUT,
    OPTION_OUTPUT,
    OPTION_OPENMETRICS,
    OPTION_ALL,
    OPTION_COLUMNS,
    OPTION_DISKS,
    OPTION_CONNECT,
    OPTION_RPC,
    OPTION_LIBVIRT,
    OPTION_NAME,
    OPTION_TEMPORARY,
    OPTION_UNSAFE,
    OPTION_AUTO_CONVERGE,
    OPTION_DOMAIN,
    OPTION_MAX_,
};

/* What a completion offers for the value of an option, where it is not one of some words. */
#define VALUES_FILES "<files>"
#define VALUES_HOSTS "<hosts>"
#define VALUES_USERS "<users>"

#define OPTION_ALL_VERBS (~0U)

struct option_rule {
    const char *name;     /* NULL: it has a letter alone */
    char letter;          /* 0: none */
    const char *argument; /* NULL: takes none; "[WHEN]": may be left out, with its "=" */
    unsigned verbs;       /* a bit per verb */
    const char *help; /* of options that all verbs have for the completions alone; common_help has it, too */
    const char *values; /* words, or one of VALUES_*; NULL: nothing can be offered */
    bool many;          /* may be given again */
    bool brief;         /* --help of a verb only names it */
};

/* "[WHEN]", but not "[USER@]HOST". */
bool option_takes_none_or_one(const struct option_rule *rule);

extern const struct verb_rule verb_rules[VERB_MAX_];
extern const struct option_rule option_rules[OPTION_MAX_];
