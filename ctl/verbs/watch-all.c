/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/watch-all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/standing.h"
#include "ctl/terminal/meter.h"
#include "ctl/verbs/list.h"
#include "ctl/verbs/table.h"

/* ---- On a terminal ---- */

#define BEGIN "\x1b[2J\x1b[?7l" /* clears it; what is longer than a row is cut, and not broken */
#define END   "\x1b[?7h"

static size_t rows_now(void)
{
    struct winsize size = {0};

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) >= 0 && size.ws_row > 0 ? size.ws_row : 24;
}

/* As many lines as there is room for; each clears what stood behind it. The last row stays free. */
static void draw(const char *text, size_t n)
{
    size_t rows = rows_now();

    fputs("\x1b[H", stdout);
    if (n == 0)
        fputs("No migrations. Ctrl-C ends this.\x1b[K\n", stdout);
    for (size_t row = 1; row < rows && *text != '\0'; row++) {
        size_t size = strcspn(text, "\n");

        printf("%.*s\x1b[K\n", (int)size, text);
        text += size + (text[size] == '\n');
    }
    fputs("\x1b[J", stdout);
}

static int show_table(struct side *side, json_object *list, struct trouble *trouble)
{
    _cleanup_free_ char *text = NULL;
    struct table_columns columns;
    size_t n;

    if (table_read_columns(NULL, &columns, trouble) < 0 ||
        table_make(side, &columns, list, true, terminal_has_colour(STDOUT_FILENO), &text, &n, trouble) < 0)
        return -1;
    draw(text, n);
    return 0;
}

/* ---- Elsewhere ---- */

/* said: an object of the words that were said last, by path; those of this look take its place. */
static int say_lines(json_object **said, json_object *list)
{
    json_object *now = json_object_new_object();

    for (size_t i = 0; now && i < json_object_array_length(list); i++) {
        json_object *record = json_object_array_get_idx(list, i);
        const char *path = record_text(record, "Path"), *word = standing_word(record);
        char line[PROGRESS_LINE_MAX];
        struct progress progress;

        json_object_object_add(now, path, record_string(word));
        if (strcmp(record_text(*said, path), word) == 0)
            continue;
        standing_progress(record, &progress);
        progress_format(&progress, 0, false, line);
        printf("%s %s\n", record_text(record, "Role"), line);
    }
    json_object_put(*said);
    *said = now;
    return now ? 0 : -1;
}

static int watch(struct side *side, bool smart, struct trouble *trouble)
{
    struct ctl *ctl = side->ctl;
    _cleanup_json_ json_object *said = NULL;

    while (ctl->interrupts == 0) {
        _cleanup_json_ json_object *list = NULL;

        ctl->resized = false;
        if (list_read(side, &list, trouble) < 0)
            return -1;
        if (ctl->arguments.json != JSON_OFF)
            record_print_json(ctl, list);
        else if (smart ? show_table(side, list, trouble) < 0 : say_lines(&said, list) < 0)
            return smart ? -1 : trouble_no_memory(trouble);
        if (ctl_flush(trouble) < 0 || ctl_pause(ctl, SECOND, trouble) < 0)
            return -1;
    }
    return STATUS_DONE;
}

int watch_all(struct ctl *ctl, struct trouble *trouble)
{
    const bool smart = ctl->arguments.json == JSON_OFF && terminal_is_smart(STDOUT_FILENO);
    _cleanup_(side_close) struct side side = {0};
    int r;

    if (side_open(ctl, &side, trouble) < 0 || ctl_catch_signals(ctl, trouble) < 0)
        return -1;
    fputs(smart ? BEGIN : "", stdout);
    r = watch(&side, smart, trouble);
    fputs(smart ? END : "", stdout);
    return r;
}
