/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ssh/words.h"

#include <string.h>

#define PREFIX "vmferryctl: "

void words_add(struct words *words, const char *data, size_t size)
{
    size_t drop;

    if (size > WORDS_MAX) {
        data += size - WORDS_MAX;
        size = WORDS_MAX;
    }
    drop = words->n + size > WORDS_MAX ? words->n + size - WORDS_MAX : 0;
    words->n -= drop;
    memmove(words->text, words->text + drop, words->n);
    memcpy(words->text + words->n, data, size);
    words->n += size;
}

struct line {
    const char *text;
    size_t n;
};

/* The next line from *at on, without blanks and CRs at its ends (ssh's lines end in CR LF). False at the end.
 */
static bool next_line(const struct words *words, size_t *at, struct line *ret)
{
    const char *end;

    if (*at >= words->n)
        return false;
    ret->text = words->text + *at;
    end = memchr(ret->text, '\n', words->n - *at);
    ret->n = end ? (size_t)(end - ret->text) : words->n - *at;
    *at += ret->n + (end != NULL);
    while (ret->n > 0 && strchr(" \t\r", ret->text[ret->n - 1]))
        ret->n--;
    while (ret->n > 0 && strchr(" \t\r", ret->text[0])) {
        ret->text++;
        ret->n--;
    }
    return true;
}

static bool begins(const struct line *line, const char *with)
{
    return line->n >= strlen(with) && memcmp(line->text, with, strlen(with)) == 0;
}

/*
 * ssh's frames around what is grave ("@@@@") carry nothing. What it says about the connection and not about
 * its failure begins with "Warning: " (a host key was added) or "** " (OpenSSH 10: no post-quantum key
 * exchange).
 */
static bool only_warns(const struct line *line)
{
    return begins(line, "@@") || begins(line, "** ") || begins(line, "Warning: ");
}

static void append(char *ret, size_t size, const struct line *line)
{
    size_t n = strlen(ret), room;

    if (line->n == 0 || n + 2 >= size)
        return;
    if (n > 0)
        ret[n++] = ' ';
    room = size - 1 - n;
    memcpy(ret + n, line->text, line->n < room ? line->n : room);
    ret[n + (line->n < room ? line->n : room)] = '\0';
}

bool words_reason(const struct words *words, char *ret, size_t size)
{
    struct line line, far = {0};
    bool warnings = true;

    ret[0] = '\0';
    for (size_t at = 0; next_line(words, &at, &line);) {
        if (begins(&line, PREFIX))
            far = (struct line){line.text + strlen(PREFIX), line.n - strlen(PREFIX)};
        warnings = warnings && (line.n == 0 || only_warns(&line));
    }
    if (far.text) {
        append(ret, size, &far);
        return true;
    }
    for (size_t at = 0; next_line(words, &at, &line);)
        if (warnings || !only_warns(&line))
            append(ret, size, &line);
    if (ret[0] != '\0' && ret[strlen(ret) - 1] == '.')
        ret[strlen(ret) - 1] = '\0';
    return false;
}
