/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/terminal/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "ctl/units.h"

enum { PIECES = 9, PIECE_MAX = 320 };

/* In the order in which they stand; importance: the highest goes first when there is no room. */
enum piece { VM, PHASE, PERCENT, BYTES, RATE, DIRTY, LEFT, RECONNECTS, NOTE };
static const unsigned char importance[PIECES] = {
    [VM] = 0,         [PHASE] = 1, [NOTE] = 2,  [PERCENT] = 3, [RATE] = 4,
    [RECONNECTS] = 5, [LEFT] = 6,  [BYTES] = 7, [DIRTY] = 8,
};

/* Columns that a text takes; its bytes where the locale does not know it. */
static size_t width_of(const char *text)
{
    wchar_t wide[PIECE_MAX];
    size_t n = mbstowcs(wide, text, PIECE_MAX);
    int width = n == (size_t)-1 || n == PIECE_MAX ? -1 : wcswidth(wide, n);

    return width < 0 ? strlen(text) : (size_t)width;
}

/* Cuts the text to so many columns, at the end of a character, and marks it. */
static void shorten(char *text, size_t columns)
{
    const char *mark = mbstowcs(NULL, "…", 0) == 1 ? "…" : ".";
    size_t n = strlen(text);

    if (width_of(text) <= columns)
        return;
    while (n > 0 && width_of(text) + 1 > columns) {
        do
            n--;
        while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80);
        text[n] = '\0';
    }
    if (columns > 0)
        strcpy(text + n,
               mark); /* there is room: at least one character went, or the piece has some to spare */
}

static void write_pieces(const struct progress *p, char pieces[static PIECES][PIECE_MAX])
{
    char size[UNITS_TEXT_MAX];
    int percent = p->fraction >= 0 && p->fraction < 1 ? (int)(p->fraction * 100) : 99;

    snprintf(pieces[VM], PIECE_MAX - 4, "%s", p->vm);
    snprintf(pieces[PHASE], PIECE_MAX - 4, "%s", p->phase);
    if (p->done)
        snprintf(pieces[PERCENT], PIECE_MAX, "100 %%");
    else if (p->fraction >= 0)
        snprintf(pieces[PERCENT], PIECE_MAX, "%d %%", percent);
    format_size(p->bytes, size);
    snprintf(pieces[BYTES], PIECE_MAX, "%s", size);
    format_size(p->rate, size);
    snprintf(pieces[RATE], PIECE_MAX, "%s/s", size);
    if (p->has_memory && p->dirty > 0) {
        format_size(p->dirty, size);
        snprintf(pieces[DIRTY], PIECE_MAX, "dirty %s/s", size);
    }
    if (p->has_memory && !p->done) {
        format_size(p->remaining, size);
        snprintf(pieces[LEFT], PIECE_MAX, "left %s", size);
    }
    if (p->reconnects > 0)
        snprintf(pieces[RECONNECTS], PIECE_MAX, "%" PRIu32 " reconnect%s", p->reconnects,
                 p->reconnects == 1 ? "" : "s");
    if (p->note)
        snprintf(pieces[NOTE], PIECE_MAX - 4, "%s", p->note);
}

static size_t total(char pieces[static PIECES][PIECE_MAX])
{
    size_t sum = 0;

    for (unsigned i = 0; i < PIECES; i++)
        if (pieces[i][0])
            sum += width_of(pieces[i]) + (sum > 0 ? 2 : 0);
    return sum;
}

/* Makes it fit: what matters least goes first, then the VM's name gets shorter, then all the rest does. */
static void fit(char pieces[static PIECES][PIECE_MAX], size_t columns)
{
    for (unsigned least = PIECES - 1; least > 1 && total(pieces) > columns; least--)
        for (unsigned i = 0; i < PIECES; i++)
            if (importance[i] == least)
                pieces[i][0] = '\0';
    for (unsigned i = VM; i <= PHASE; i++) {
        size_t now = total(pieces), own = width_of(pieces[i]), over = now > columns ? now - columns : 0;

        if (over > 0)
            shorten(pieces[i], own > over ? own - over : i == PHASE ? 0 : 1);
    }
}

static const char *colour_of(const struct progress *p)
{
    if (strcmp(p->phase, "interrupted") == 0 || strcmp(p->phase, "paused") == 0)
        return "\x1b[33m";                                                          /* yellow */
    return p->done || strcmp(p->phase, "post-copy") == 0 ? "\x1b[32m" : "\x1b[36m"; /* green; cyan */
}

size_t progress_format(const struct progress *progress, size_t columns, bool colour,
                       char ret[static PROGRESS_LINE_MAX])
{
    char pieces[PIECES][PIECE_MAX] = {0};
    size_t at = 0, width;

    write_pieces(progress, pieces);
    if (columns > 0)
        fit(pieces, columns);
    width = total(pieces);
    ret[0] = '\0';
    for (unsigned i = 0; i < PIECES && at < PROGRESS_LINE_MAX; i++) {
        bool coloured = colour && i == PHASE;

        if (pieces[i][0] == '\0')
            continue;
        at += (size_t)snprintf(ret + at, PROGRESS_LINE_MAX - at, "%s%s%s%s", at > 0 ? "  " : "",
                               coloured ? colour_of(progress) : "", pieces[i], coloured ? "\x1b[0m" : "");
    }
    return width;
}
