/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/terminal/meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PLAIN (10 * SECOND)

bool terminal_is_smart(int fd)
{
    const char *term = getenv("TERM");

    return term && term[0] && strcmp(term, "dumb") != 0 && isatty(fd);
}

bool terminal_has_colour(int fd)
{
    const char *no_color = getenv("NO_COLOR");

    return terminal_is_smart(fd) && !(no_color && no_color[0]);
}

void meter_open(struct meter *meter, struct ctl *ctl)
{
    *meter = (struct meter){.ctl = ctl,
                            .terminal = terminal_is_smart(STDERR_FILENO),
                            .colour = terminal_has_colour(STDERR_FILENO)};
}

static size_t columns_now(void)
{
    struct winsize size = {0};

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) >= 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void meter_clear(struct meter *meter)
{
    size_t columns = columns_now();

    if (meter->drawn == 0)
        return;
    /* A terminal that became narrower has broken the line into several. */
    if (meter->drawn > columns)
        fprintf(stderr, "\x1b[%zuA", (meter->drawn - 1) / columns);
    fputs("\r\x1b[J", stderr);
    meter->drawn = 0;
}

static void draw(struct meter *meter, const struct progress *progress)
{
    char line[PROGRESS_LINE_MAX];
    size_t columns = columns_now(), width;

    /* The last column stays free, for many terminals break the line when it is written to. */
    width = progress_format(progress, columns > 1 ? columns - 1 : 1, meter->colour, line);
    meter_clear(meter);
    fputs(line, stderr);
    meter->drawn = width;
}

static void say(struct meter *meter, const struct progress *progress)
{
    char line[PROGRESS_LINE_MAX];
    uint64_t now = ctl_now();

    if (strcmp(meter->phase, progress->phase) == 0 && now < meter->said_at + PLAIN)
        return;
    progress_format(progress, 0, false, line);
    fprintf(stderr, "%s\n", line);
    meter->said_at = now;
    snprintf(meter->phase, sizeof(meter->phase), "%s", progress->phase);
}

void meter_update(struct meter *meter, const struct progress *progress)
{
    meter->ctl->resized = false;
    if (meter->ctl->arguments.quiet)
        return;
    if (meter->terminal)
        draw(meter, progress);
    else
        say(meter, progress);
    fflush(stderr);
}
