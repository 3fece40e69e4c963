/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Words for a shell: commands for the one at another host, and those that a message tells a user to paste.
 * Names of VMs, hosts and paths are data, and may have been chosen by others: this is the one place that
 * quotes them.
 */

#include <stdbool.h>
#include <stddef.h>

#define SHELL_COMMAND_MAX 4096 /* bytes, the NUL included */

/* Appends a word to a command, after a blank, quoted where a shell would read it otherwise. False where there
 * is no room: then the command is as it was. */
bool shell_append(char *command, size_t size, const char *word);

/* The word alone, for a message, in ret; "…" where there is no room. */
const char *shell_word(const char *word, char ret[static SHELL_COMMAND_MAX]);

/*
 * "vmferryctl VERB OPERAND REST" for a message. An operand that looks like an option comes last, after "--".
 * rest: options that are no data; may be "".
 */
const char *shell_vmferryctl(const char *verb, const char *operand, const char *rest,
                             char ret[static SHELL_COMMAND_MAX]);
