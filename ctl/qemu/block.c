/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/block.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"

/* ---- What there is ---- */

static bool take(char *field, size_t size, const char *text)
{
    if (strlen(text) >= size)
        return false;
    message_text_set(field, size, text);
    return true;
}

static json_object *member(json_object *object, const char *name)
{
    json_object *value = NULL;

    return json_object_object_get_ex(object, name, &value) && json_object_is_type(value, json_type_object)
               ? value
               : NULL;
}

static bool truth(json_object *object, const char *name)
{
    json_object *value;

    return json_object_object_get_ex(object, name, &value) && json_object_get_boolean(value);
}

/* "json:{…}" for what no path can say. */
static const char *path_of(const char *filename)
{
    return filename[0] == '/' ? filename : "";
}

bool block_read_disk(json_object *entry, struct block_disk *ret)
{
    json_object *inserted = member(entry, "inserted"), *image = inserted ? member(inserted, "image") : NULL;
    const char *node, *name = record_text(entry, "device"),
                      *filename = image ? record_text(image, "filename") : "";
    const char *colon = filename[0] == '/' ? NULL : strchr(filename, ':');

    *ret = (struct block_disk){0};
    if (!inserted)
        return false;
    node = record_text(inserted, "node-name");
    ret->read_only = truth(inserted, "ro");
    if (colon && (size_t)(colon - filename) < sizeof(ret->driver))
        memcpy(ret->driver, filename, (size_t)(colon - filename));
    else
        strcpy(ret->driver, "file");
    return node[0] && take(ret->node, sizeof(ret->node), node) &&
           take(ret->name, sizeof(ret->name), name[0] ? name : node) &&
           take(ret->qdev, sizeof(ret->qdev), record_text(entry, "qdev")) &&
           take(ret->file, sizeof(ret->file), path_of(filename));
}

int block_list(struct qmp *qmp, struct block_disk *ret, unsigned max, struct trouble *trouble)
{
    _cleanup_json_ json_object *list = NULL;
    unsigned n = 0;

    if (qmp_execute(qmp, "query-block", NULL, &list, trouble) < 0)
        return -1;
    for (size_t i = 0; json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        struct block_disk disk;

        if (!block_read_disk(json_object_array_get_idx(list, i), &disk))
            continue;
        if (n == max)
            return trouble_set(trouble, STATUS_FAILED, "%s has more than %u disks.", qmp_name(qmp), max);
        ret[n++] = disk;
    }
    return (int)n;
}

/* ---- The copy ---- */

static json_object *text(const char *text)
{
    return json_object_new_string(text);
}

static json_object *unix_address(const char *socket)
{
    json_object *address = json_object_new_object();

    json_object_object_add(address, "type", text("unix"));
    json_object_object_add(address, "path", text(socket));
    return address;
}

int block_serve(struct qmp *qmp, const char *socket, struct trouble *trouble)
{
    json_object *arguments = json_object_new_object(), *address = json_object_new_object(),
                *data = json_object_new_object();

    json_object_object_add(data, "path", text(socket));
    json_object_object_add(address, "type", text("unix"));
    json_object_object_add(address, "data", data);
    json_object_object_add(arguments, "addr", address);
    return qmp_execute(qmp, "nbd-server-start", arguments, NULL, trouble);
}

int block_export(struct qmp *qmp, const char *node, const char *export, struct trouble *trouble)
{
    json_object *arguments = json_object_new_object();

    json_object_object_add(arguments, "type", text("nbd"));
    json_object_object_add(arguments, "id", text(export));
    json_object_object_add(arguments, "name", text(export));
    json_object_object_add(arguments, "node-name", text(node));
    json_object_object_add(arguments, "writable", json_object_new_boolean(true));
    return qmp_execute(qmp, "block-export-add", arguments, NULL, trouble);
}

int block_serve_end(struct qmp *qmp, struct trouble *trouble)
{
    return qmp_execute(qmp, "nbd-server-stop", NULL, NULL, trouble);
}

static int add_target(struct qmp *qmp, const char *socket, const char *export, struct trouble *trouble)
{
    json_object *arguments = json_object_new_object();

    json_object_object_add(arguments, "driver", text("nbd"));
    json_object_object_add(arguments, "node-name", text(export));
    json_object_object_add(arguments, "export", text(export));
    json_object_object_add(arguments, "server", unix_address(socket));
    json_object_object_add(arguments, "discard", text("unmap"));
    return qmp_execute(qmp, "blockdev-add", arguments, NULL, trouble);
}

int block_mirror(struct qmp *qmp, const char *node, const char *socket, const char *export,
                 struct trouble *trouble)
{
    json_object *arguments;

    if (add_target(qmp, socket, export, trouble) < 0)
        return -1;
    arguments = json_object_new_object();
    json_object_object_add(arguments, "job-id", text(export));
    json_object_object_add(arguments, "device", text(node));
    json_object_object_add(arguments, "target", text(export));
    json_object_object_add(arguments, "sync", text("full"));
    /* It stays, with its error, until it is removed. */
    json_object_object_add(arguments, "auto-dismiss", json_object_new_boolean(false));
    return qmp_execute(qmp, "blockdev-mirror", arguments, NULL, trouble);
}

/* ---- How far it is ---- */

static enum block_job_state state_of(const char *status)
{
    if (strcmp(status, "ready") == 0)
        return BLOCK_JOB_READY;
    return strcmp(status, "concluded") == 0 || strcmp(status, "null") == 0 ? BLOCK_JOB_ENDED : BLOCK_JOB_RUNS;
}

void block_read_job(json_object *list, const char *job, struct block_job *ret)
{
    *ret = (struct block_job){0};
    for (size_t i = 0; json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        json_object *one = json_object_array_get_idx(list, i);

        if (strcmp(record_text(one, "id"), job) != 0)
            continue;
        ret->state = state_of(record_text(one, "status"));
        ret->done = record_number(one, "current-progress");
        ret->total = record_number(one, "total-progress");
        message_text_set(ret->error, sizeof(ret->error), record_text(one, "error"));
        return;
    }
}

int block_jobs(struct qmp *qmp, json_object **ret, struct trouble *trouble)
{
    return qmp_execute(qmp, "query-jobs", NULL, ret, trouble);
}

/* ---- Its end ---- */

static int execute_with(struct qmp *qmp, const char *command, const char *key, const char *value,
                        struct trouble *trouble)
{
    json_object *arguments = json_object_new_object();

    json_object_object_add(arguments, key, text(value));
    return qmp_execute(qmp, command, arguments, NULL, trouble);
}

int block_export_remove(struct qmp *qmp, const char *export, struct trouble *trouble)
{
    return execute_with(qmp, "block-export-del", "id", export, trouble); /* mode "safe" is the default */
}

int block_job_finish(struct qmp *qmp, const char *job, struct trouble *trouble)
{
    return execute_with(qmp, "block-job-cancel", "device", job, trouble);
}

void block_job_stop(struct qmp *qmp, const char *job)
{
    execute_with(qmp, "job-cancel", "id", job, NULL);
}

void block_job_remove(struct qmp *qmp, const char *job)
{
    execute_with(qmp, "job-dismiss", "id", job, NULL);
}

void block_node_remove(struct qmp *qmp, const char *node)
{
    execute_with(qmp, "blockdev-del", "node-name", node, NULL);
}
