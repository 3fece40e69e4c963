/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { FDS = 2048, PIPE_BYTES = 65536, PIPE_SLOTS = 16 };

struct kernel kernel;

/* A number is used again at once, as a kernel does: what still has a closed one is found out. */
static struct {
    struct file *file;
    int holder;
} fds[FDS];
static unsigned n_fds[3]; /* by holder */

void kernel_begin(void)
{
    kernel = (struct kernel){0};
    TAILQ_INIT(&kernel.conns);
}

void kernel_end(void)
{
    struct conn *conn;

    for (int i = 0; i < FDS && n_fds[0] + n_fds[1] + n_fds[2] > 0; i++)
        if (fds[i].file)
            fault("descriptor %d (kind %d) was left open by side %d", i, fds[i].file->kind, fds[i].holder);
    while ((conn = TAILQ_FIRST(&kernel.conns))) {
        bool last = conn->closed[0] || conn->closed[1];

        conn->qemu = NULL;
        conn_close(conn, conn->closed[0]);
        if (!last)
            conn_close(conn, 1);
    }
}

/* ---- Files ---- */

struct file *file_new(enum file_kind kind)
{
    struct file *file = world_alloc(sizeof(*file));

    file->kind = kind;
    file->refs = 1;
    if (kind == FILE_PIPE) {
        file->pipe.capacity = PIPE_BYTES;
        file->pipe.data = world_alloc(PIPE_BYTES);
    }
    return file;
}

struct file *file_of_conn(struct conn *conn, int end)
{
    struct file *file = file_new(FILE_CONN);

    file->conn = conn;
    file->end = end;
    return file;
}

struct file *file_unref(struct file *file)
{
    if (!file || --file->refs > 0)
        return NULL;
    if (file->kind == FILE_CONN)
        conn_close(file->conn, file->end);
    else if (file->kind == FILE_LINK && file->end == 0)
        file->link->helper_gone = true;
    else if (file->kind == FILE_LINK)
        file->link->broker_gone = true;
    else if (file->kind == FILE_PIPE)
        free(file->pipe.data);
    free(file);
    return NULL;
}

int fd_new(struct file *file)
{
    for (int i = 0; i < FDS; i++)
        if (!fds[i].file) {
            fds[i].file = file;
            fds[i].holder = sim.current;
            n_fds[sim.current]++;
            return FD_FIRST + i;
        }
    fault("there are no descriptors left");
}

struct file *fd_file(int fd)
{
    if (fd < FD_FIRST || fd >= FD_FIRST + FDS || !fds[fd - FD_FIRST].file)
        fault("descriptor %d is used, which is not open", fd);
    if (sim.current != WORLD && fds[fd - FD_FIRST].holder != sim.current)
        fault("descriptor %d is used, which is the other side's", fd);
    return fds[fd - FD_FIRST].file;
}

int fd_close(int fd)
{
    struct file *file = fd_file(fd);

    fds[fd - FD_FIRST].file = NULL;
    n_fds[fds[fd - FD_FIRST].holder]--;
    file_unref(file);
    return 0;
}

unsigned fd_count(int holder)
{
    return n_fds[holder];
}

static uint32_t link_poll(const struct channel_of_link *link)
{

    uint32_t events = link->to_broker.n < link->to_broker.capacity || link->broker_gone ? EPOLLOUT : 0;

    if (link->to_helper.n > 0 || link->broker_gone)
        events |= EPOLLIN;
    return events | (link->broker_gone ? EPOLLHUP : 0U);
}

uint32_t file_poll(int fd)
{
    struct file *file = fd_file(fd);

    switch (file->kind) {
    case FILE_CONN:
        return conn_poll(file->conn, file->end);
    case FILE_LINK:
        return link_poll(file->link);
    case FILE_EVENT:
        return file->count > 0 ? EPOLLIN : 0;
    default:
        fault("descriptor %d is waited for, of which nothing comes", fd);
    }
}

/* ---- Links ---- */

int queue_put(struct queue *queue, const void *data, size_t size, struct file *file)
{
    struct packet *packet;

    if (queue->n == queue->capacity)
        return -EAGAIN;
    if (!queue->packets)
        queue->packets = world_alloc(MESSAGES * sizeof(*queue->packets));
    packet = &queue->packets[(queue->first + queue->n++) % MESSAGES];
    memcpy(packet->data, data, size);
    packet->size = size;
    packet->file = file;
    return 0;
}

struct packet *queue_head(struct queue *queue)
{
    return queue->n > 0 ? &queue->packets[queue->first] : NULL;
}

void queue_drop(struct queue *queue)
{
    struct packet *packet = queue_head(queue);

    packet->file = file_unref(packet->file);
    queue->first = (queue->first + 1) % MESSAGES;
    queue->n--;
}

/* ---- Pipes and waiting ---- */

ssize_t file_splice(struct file *from, struct file *to, size_t max)
{
    uint8_t buf[PIPE_BYTES];
    struct lane *pipe = from->kind == FILE_PIPE ? &from->pipe : &to->pipe;
    size_t held = (size_t)(pipe->end - pipe->begin), at;
    ssize_t n;

    if (from->kind == FILE_PIPE) {
        at = pipe->begin % PIPE_BYTES;
        max = max < held ? max : held;
        max = max < PIPE_BYTES - at ? max : PIPE_BYTES - at;
        n = max > 0 ? conn_write(to->conn, to->end, pipe->data + at, max) : -EAGAIN;
        if (n > 0)
            pipe->begin += (size_t)n;
        if (pipe->begin == pipe->end)
            from->pipe_slots = 0;
        return n;
    }
    at = pipe->end % PIPE_BYTES;
    max = max < PIPE_BYTES - held ? max : PIPE_BYTES - held;
    max = max < PIPE_BYTES - at ? max : PIPE_BYTES - at;
    if (max == 0 || to->pipe_slots >= PIPE_SLOTS)
        return -EAGAIN;
    n = conn_read(from->conn, from->end, buf, max, false);
    if (n > 0) {
        memcpy(pipe->data + at, buf, (size_t)n);
        pipe->end += (size_t)n;
        to->pipe_slots++;
    }
    return n;
}

static uint32_t watched_events(const struct watched *watched)
{
    uint32_t always = watched->events != 0 ? EPOLLERR | EPOLLHUP : 0;

    return file_poll(watched->fd) & (watched->events | always);
}

bool epoll_is_due(struct file *epoll)
{
    for (size_t i = 0; i < epoll->n_watched; i++)
        if (watched_events(&epoll->watched[i]) != 0)
            return true;
    return false;
}

bool epoll_take(struct file *epoll, uint64_t *ret_tag, uint32_t *ret_events)
{
    size_t first = (size_t)pick(epoll->n_watched);

    for (size_t i = 0; i < epoll->n_watched; i++) {
        struct watched *watched = &epoll->watched[(first + i) % epoll->n_watched];

        *ret_events = watched_events(watched);
        *ret_tag = watched->tag;
        if (*ret_events == 0)
            continue;
        if (watched->events & EPOLLONESHOT)
            watched->events = 0;
        return true;
    }
    return false;
}
