/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/print-ticket.h"

#include <stdio.h>

#include "common/cleanup.h"

static void print_json(const struct ctl *ctl, const struct tunnel *tunnel, const char *ticket)
{
    _cleanup_json_ json_object *object = json_object_new_object();

    json_object_object_add(object, "Id", record_string(tunnel_id(tunnel)));
    json_object_object_add(object, "Vm", record_string(tunnel->vm));
    json_object_object_add(object, "Path", record_string(tunnel->path));
    if (!ctl->arguments.libvirt) /* which finds its socket by itself */
        json_object_object_add(object, "Socket", record_string(tunnel->socket));
    json_object_object_add(object, "Ticket", ticket ? record_string(ticket) : NULL);
    record_print_json(ctl, object);
}

int print_ticket(const struct ctl *ctl, const struct tunnel *tunnel, const char *ticket,
                 struct trouble *trouble)
{
    if (ctl->arguments.json != JSON_OFF)
        print_json(ctl, tunnel, ticket);
    else if (ticket)
        puts(ticket);
    return ctl_flush(trouble);
}
