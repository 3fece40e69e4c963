/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/table.h"

#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "ctl/bus/standing.h"
#include "ctl/units.h"

#define CELL_MAX 512

enum cell { VM, ROLE, PEER, STATE, PHASE, PROGRESS, RATE, AGE, OUTCOME, OWNER, ID, UID, N_CELLS };

_Static_assert((int)N_CELLS == (int)TABLE_COLUMNS, "");

static const struct {
    const char *name;
    int flags;
} columns[N_CELLS] = {
    [VM] = {"VM", 0},
    [ROLE] = {"ROLE", 0},
    [PEER] = {"PEER", 0},
    [STATE] = {"STATE", 0},
    [PHASE] = {"PHASE", 0},
    [PROGRESS] = {"PROGRESS", SCOLS_FL_RIGHT},
    [RATE] = {"RATE", SCOLS_FL_RIGHT},
    [AGE] = {"AGE", SCOLS_FL_RIGHT},
    [OUTCOME] = {"OUTCOME", 0},
    [OWNER] = {"OWNER", 0},
    [ID] = {"ID", 0},
    [UID] = {"UID", 0},
};

static int add_column(struct table_columns *shown, const char *name, size_t size, struct trouble *trouble)
{
    for (enum cell i = 0; i < N_CELLS && shown->n < N_CELLS; i++)
        if (strlen(columns[i].name) == size && strncasecmp(columns[i].name, name, size) == 0) {
            shown->cells[shown->n++] = (int)i;
            return 0;
        }
    return trouble_set(trouble, STATUS_USAGE,
                       "--columns=: '%.*s' is no column, or one too many. There are VM, ROLE, PEER, STATE, "
                       "PHASE, PROGRESS, RATE, AGE, OUTCOME, OWNER, ID and UID.",
                       (int)size, name);
}

int table_read_columns(const char *text, struct table_columns *ret, struct trouble *trouble)
{
    *ret = (struct table_columns){0};
    for (enum cell i = 0; !text && i < UID; i++)
        ret->cells[ret->n++] = (int)i;
    while (text) {
        size_t size = strcspn(text, ",");

        if (add_column(ret, text, size, trouble) < 0)
            return -1;
        text = text[size] == ',' ? text + size + 1 : NULL;
    }
    return 0;
}

/* ---- One line ---- */

/* A uid of another host has its own names there. */
static void write_owner(const struct side *side, json_object *record, char *cell)
{
    const uint64_t uid = record_number(record, "OwnerUid");
    const struct passwd *user = side->host ? NULL : getpwuid((uid_t)uid);

    if (user)
        snprintf(cell, CELL_MAX, "%s", user->pw_name);
    else
        snprintf(cell, CELL_MAX, "%" PRIu64, uid);
}

static void write_cell(const struct side *side, json_object *record, enum cell which, char *cell)
{
    static const char *const texts[N_CELLS] = {
        [VM] = "Vm", [ROLE] = "Role", [PEER] = "Peer", [STATE] = "State", [PHASE] = "Phase", [ID] = "Id"};
    const bool finished = standing_is_finished(record);
    const uint64_t now = wall_now();
    struct progress progress;
    char text[UNITS_TEXT_MAX] = "";

    standing_progress(record, &progress);
    cell[0] = '\0';
    if (texts[which])
        snprintf(cell, CELL_MAX, "%s", which == PHASE && finished ? "" : record_text(record, texts[which]));
    if (which == PROGRESS && !finished && progress.fraction >= 0)
        snprintf(cell, CELL_MAX, "%d %%", (int)(progress.fraction * 100));
    if (which == RATE && !finished) {
        format_size(progress.rate, text);
        snprintf(cell, CELL_MAX, "%s/s", text);
    }
    if (which == AGE) {
        format_span(record_number(record, finished ? "FinishedUsec" : "StartedUsec"), now, text);
        snprintf(cell, CELL_MAX, "%s", text);
    }
    if (which == OUTCOME)
        snprintf(cell, CELL_MAX, "%s", standing_outcome(record));
    if (which == UID)
        snprintf(cell, CELL_MAX, "%" PRIu64, record_number(record, "OwnerUid"));
    if (which == OWNER)
        write_owner(side, record, cell);
}

static int add_line(struct libscols_table *table, const struct table_columns *shown, const struct side *side,
                    json_object *record)
{
    struct libscols_line *line = scols_table_new_line(table, NULL);
    char cell[CELL_MAX];

    if (line && standing_is_finished(record) && scols_line_set_color(line, "\x1b[2m") < 0) /* dim */
        return -1;
    for (size_t i = 0; line && i < shown->n; i++) {
        write_cell(side, record, (enum cell)shown->cells[i], cell);
        if (scols_line_set_data(line, i, cell) < 0)
            return -1;
    }
    return line ? 0 : -1;
}

/* ---- The table ---- */

static struct libscols_table *make_table(const struct ctl *ctl, const struct table_columns *shown,
                                         bool colour)
{
    struct libscols_table *table = scols_new_table();

    for (size_t i = 0; table && i < shown->n; i++)
        if (!scols_table_new_column(table, columns[shown->cells[i]].name, 0,
                                    columns[shown->cells[i]].flags)) {
            scols_unref_table(table);
            return NULL;
        }
    if (table)
        scols_table_enable_noheadings(table, ctl->arguments.no_legend);
    if (table)
        scols_table_enable_colors(table, colour);
    return table;
}

int table_make(const struct side *side, const struct table_columns *which, json_object *list, bool all,
               bool colour, char **ret, size_t *ret_n, struct trouble *trouble)
{
    struct libscols_table *table = make_table(side->ctl, which, colour);
    size_t n = json_object_array_length(list), shown = 0;
    int r = table ? 0 : -1;

    *ret = NULL;
    for (int finished = 0; finished <= (all ? 1 : 0); finished++)
        for (size_t i = 0; r >= 0 && i < n; i++) {
            json_object *record = json_object_array_get_idx(list, i);

            if (standing_is_finished(record) != (finished != 0))
                continue;
            r = add_line(table, which, side, record);
            shown++;
        }
    if (r >= 0 && shown > 0)
        r = scols_print_table_to_string(table, ret);
    else if (r >= 0)
        r = (*ret = strdup("")) ? 0 : -1;
    if (table)
        scols_unref_table(table);
    *ret_n = shown;
    return r < 0 ? trouble_no_memory(trouble) : 0;
}
