/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/terminal/meter.h"
#include "ctl/terminal/pager.h"
#include "ctl/verbs/table.h"

/* ---- What there is ---- */

/* Of a broker that has no List yet. */
static int read_each(struct side *side, json_object *list, struct trouble *trouble)
{
    _cleanup_free_ struct found *found = NULL;
    size_t n = 0;

    if (find_all(side, &found, &n, trouble) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        json_object *record;

        /* One that was forgotten meanwhile is left out. */
        if (record_read(side, found[i].path, MIGRATION_INTERFACE, &record, NULL) < 0)
            continue;
        json_object_object_add(record, "Path", record_string(found[i].path));
        json_object_array_add(list, record);
    }
    return 0;
}

int list_read(struct side *side, json_object **ret, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    _cleanup_json_ json_object *list = NULL;

    if (side_call(side, BROKER_PATH, BROKER_NAME, "List", &reply, NULL, "", "a{sv}", 0) < 0 ||
        record_of_message(reply, &list) < 0 || !json_object_is_type(list, json_type_array)) {
        *ret = json_object_new_array();
        return read_each(side, *ret, trouble);
    }
    *ret = json_object_get(list);
    return 0;
}

static int print_table(struct side *side, const struct table_columns *columns, json_object *list,
                       struct trouble *trouble)
{
    const struct ctl *ctl = side->ctl;
    _cleanup_free_ char *text = NULL;
    size_t n = json_object_array_length(list), shown;

    if (table_make(side, columns, list, ctl->arguments.all, terminal_has_colour(STDOUT_FILENO), &text, &shown,
                   trouble) < 0)
        return -1;
    pager_open(ctl);
    printf("%s%s", text, shown > 0 ? "\n" : "");
    if (!ctl->arguments.no_legend)
        printf("%s%zu migration%s%s.\n", shown > 0 ? "\n" : "", shown, shown == 1 ? "" : "s",
               n > shown ? ", and finished ones (--all)" : "");
    pager_close();
    return 0;
}

int verb_list(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_json_ json_object *list = NULL;
    struct table_columns columns;

    if (table_read_columns(ctl->arguments.columns, &columns, trouble) < 0 ||
        side_open(ctl, &side, trouble) < 0 || list_read(&side, &list, trouble) < 0)
        return -1;
    if (ctl->arguments.json != JSON_OFF) {
        record_print_json(ctl, list);
        return STATUS_DONE;
    }
    return print_table(&side, &columns, list, trouble) < 0 ? -1 : STATUS_DONE;
}
