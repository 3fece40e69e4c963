/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/shell.h"

#include <stdio.h>
#include <string.h>

static bool is_plain(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+@";

    return word[0] != '\0' && word[strspn(word, plain)] == '\0';
}

/* Appends a piece; false where there is no room for it and the NUL. */
static bool put(char *command, size_t size, size_t *n, const char *piece)
{
    size_t length = strlen(piece);

    if (*n + length >= size)
        return false;
    memcpy(command + *n, piece, length);
    *n += length;
    return true;
}

bool shell_append(char *command, size_t size, const char *word)
{
    size_t before = strlen(command), n = before;
    bool quoted = !is_plain(word), fits = n == 0 || put(command, size, &n, " ");

    fits = fits && put(command, size, &n, quoted ? "'" : "");
    for (; fits && *word; word++)
        fits = put(command, size, &n, *word == '\'' ? "'\\''" : (const char[]){*word, '\0'});
    fits = fits && put(command, size, &n, quoted ? "'" : "");
    command[fits ? n : before] = '\0';
    return fits;
}

const char *shell_word(const char *word, char ret[static SHELL_COMMAND_MAX])
{
    ret[0] = '\0';
    return shell_append(ret, SHELL_COMMAND_MAX, word) ? ret : "…";
}

const char *shell_vmferryctl(const char *verb, const char *operand, const char *rest,
                             char ret[static SHELL_COMMAND_MAX])
{
    char word[SHELL_COMMAND_MAX];
    const char *quoted = shell_word(operand, word), *blank = rest[0] ? " " : "";
    int n = operand[0] == '-'
                ? snprintf(ret, SHELL_COMMAND_MAX, "vmferryctl %s%s%s -- %s", verb, blank, rest, quoted)
                : snprintf(ret, SHELL_COMMAND_MAX, "vmferryctl %s %s%s%s", verb, quoted, blank, rest);

    return n < SHELL_COMMAND_MAX ? ret : "vmferryctl …";
}
