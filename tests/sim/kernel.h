/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a kernel has: connections, pipes, links, and descriptors of them. Negative errnos throughout. */

#include <sys/queue.h>
#include <sys/types.h>

#include "sim.h"

#define FD_FIRST 100000 /* below are the real ones */

enum { FLIGHTS = 32, MESSAGES = 256, MESSAGE_BYTES = 2048, WATCHED = 64 };

struct qemu;
struct file;

/* One direction of a connection. Offsets count from its beginning. */
struct lane {
    uint8_t *data;
    size_t capacity;
    uint64_t begin, arrived, end; /* read; can be read; written */
    struct {
        uint64_t end, at;
    } flights[FLIGHTS]; /* what is on its way */
    unsigned n_flights;
    uint64_t shut_at; /* from when the reader sees the end; NEVER */
    bool severed;     /* what is sent from now on gets lost */
};

struct conn {
    TAILQ_ENTRY(conn) entry;
    struct lane lanes[2];                    /* by the end that writes */
    bool local;                              /* a UNIX socket: no way to go */
    bool closed[2], shut_down[2], cannot[2]; /* an end; its reading; its writing */
    int error[2];                            /* that an end will see, */
    uint64_t error_at[2];                    /* from then on */
    uint64_t latency;
    struct qemu *qemu; /* its end 1, where it is one's; end 0 is a helper's */
};

struct packet {
    uint8_t data[MESSAGE_BYTES];
    size_t size;
    struct file *file; /* that goes with it, or NULL */
};

/* A broker's socket to its helper. */
struct queue {
    struct packet *packets; /* a ring of MESSAGES */
    unsigned first, n, capacity;
};

struct channel_of_link {
    struct queue to_helper, to_broker;
    bool broker_gone, helper_gone;
};

enum file_kind {
    FILE_CONN,
    FILE_LINK,
    FILE_PIPE,
    FILE_EPOLL,
    FILE_EVENT,
    FILE_PAGE,
};

struct watched {
    int fd;
    uint32_t events;
    uint64_t tag;
};

struct file {
    enum file_kind kind;
    int refs;
    struct conn *conn;
    int end; /* of the connection */
    struct channel_of_link *link;
    struct lane pipe;
    unsigned pipe_slots;
    uint64_t count; /* of an eventfd */
    struct watched watched[WATCHED];
    size_t n_watched;
};

/* ---- Connections ---- */

struct kernel {
    TAILQ_HEAD(, conn) conns;
    uint64_t down_until; /* nothing gets through the network before */
    unsigned short_permille, eintr_permille;
};

extern struct kernel kernel;

void kernel_begin(void);

/* Frees what is left; a fault where a helper left a descriptor open. */
void kernel_end(void);

struct conn *conn_new(bool local, uint64_t latency, size_t there, size_t back);
ssize_t conn_write(struct conn *conn, int end, const void *data, size_t size);
ssize_t conn_read(struct conn *conn, int end, void *data, size_t size, bool peek);
void conn_shutdown(struct conn *conn, int end, bool reading, bool writing);
void conn_close(struct conn *conn, int end);
void conn_reset(struct conn *conn, uint64_t at, int error);
uint32_t conn_poll(struct conn *conn, int end);
/* When something comes that is not there yet. */
uint64_t conn_next(const struct conn *conn);
/* All that is on its way now gets through no earlier than then. */
void conn_delay(struct conn *conn, uint64_t until);

/* ---- Files ---- */

struct file *file_new(enum file_kind kind);
struct file *file_of_conn(struct conn *conn, int end);
struct file *file_unref(struct file *file);
uint32_t file_poll(int fd);

/* A descriptor of the side whose code runs; takes the reference. */
int fd_new(struct file *file);
struct file *fd_file(int fd);
int fd_close(int fd);
unsigned fd_count(int holder);

/* ---- Links ---- */

/* Takes the file (or NULL) on success. */
int queue_put(struct queue *queue, const void *data, size_t size, struct file *file);
/* NULL when it is empty. */
struct packet *queue_head(struct queue *queue);
void queue_drop(struct queue *queue);

/* ---- Pipes and waiting ---- */

ssize_t file_splice(struct file *from, struct file *to, size_t max);

/* One thing that is due in an epoll; false when nothing is. */
bool epoll_take(struct file *epoll, uint64_t *ret_tag, uint32_t *ret_events);
bool epoll_is_due(struct file *epoll);
