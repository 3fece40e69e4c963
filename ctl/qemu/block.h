/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * QEMU's disks: what it has, the copy (a mirror job to an NBD server) that takes one to another QEMU, and how
 * far that is. A name of a disk or node that QEMU gave is at most BLOCK_NAME_MAX - 1 bytes; longer ones are
 * refused.
 */

#include "ctl/qemu/qmp.h"

#define BLOCK_NAME_MAX 256

struct block_disk {
    char name[BLOCK_NAME_MAX]; /* what people call it: of -drive id=, else of its node */
    char qdev[BLOCK_NAME_MAX]; /* the device of the machine that has it; "" */
    char node[BLOCK_NAME_MAX]; /* its image */
    char driver[32];           /* of the image's file: "file", "rbd", … */
    char file[BLOCK_NAME_MAX]; /* its path; "" */
    bool read_only;
};

/* Pure: the disk that an entry of query-block tells of. False: none, there is no medium in it. */
bool block_read_disk(json_object *entry, struct block_disk *ret);

/* Those of a QEMU. Returns how many, at most max, or -1. */
int block_list(struct qmp *qmp, struct block_disk *ret, unsigned max, struct trouble *trouble);

/* The destination: an NBD server on a UNIX socket, and in it an image under a name. */
int block_serve(struct qmp *qmp, const char *socket, struct trouble *trouble);
int block_export(struct qmp *qmp, const char *node, const char *export, struct trouble *trouble);
/* Refused while a client is connected. */
int block_export_remove(struct qmp *qmp, const char *export, struct trouble *trouble);
int block_serve_end(struct qmp *qmp, struct trouble *trouble);

/* The source: the export as a node called like it, and the job of that name that copies to it. */
int block_mirror(struct qmp *qmp, const char *node, const char *socket, const char *export,
                 struct trouble *trouble);

enum block_job_state {
    BLOCK_JOB_NONE,
    BLOCK_JOB_RUNS,
    BLOCK_JOB_READY, /* all is copied, and what the guest writes now is copied soon after */
    BLOCK_JOB_ENDED,
};

struct block_job {
    enum block_job_state state;
    char error[256]; /* why it has ended; "": as it was told to */
    uint64_t done, total;
};

/* Pure: of what query-jobs returned. */
void block_read_job(json_object *list, const char *job, struct block_job *ret);

int block_jobs(struct qmp *qmp, json_object **ret, struct trouble *trouble);

/* Of a job that is ready: it ends once source and copy are equal, at a moment when the guest stands still. */
int block_job_finish(struct qmp *qmp, const char *job, struct trouble *trouble);

/* Stops a job wherever it is; removes one that has ended; removes the export's node. What cannot be is left.
 */
void block_job_stop(struct qmp *qmp, const char *job);
void block_job_remove(struct qmp *qmp, const char *job);
void block_node_remove(struct qmp *qmp, const char *node);
