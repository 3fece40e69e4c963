/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qemu.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "world.h"

struct qemus qemus;

enum { NOISE = 65536, CHUNK = 32768 };

static uint8_t noise[2 * NOISE];

void qemus_begin(void)
{
    if (noise[0] == 0 && noise[1] == 0) {
        uint32_t x = 2463534242;

        for (size_t i = 0; i < NOISE; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            noise[i] = noise[i + NOISE] = (uint8_t)(x >> 11);
        }
    }
    memset(qemus.all, 0, qemus.n * sizeof(qemus.all[0]));
    qemus.n = 0;
    qemus.end = false;
}

static const uint8_t *body_of(const struct qemu *qemu, uint64_t offset)
{
    return &noise[(qemu->id * UINT64_C(7919) + offset) % NOISE];
}

static void head_of(const struct qemu *qemu, uint8_t head[static 8])
{
    uint32_t words[2] = {qemu->id, (uint32_t)qemu->total};

    memcpy(head, words, 8);
}

/* One that came before the last. */
static bool is_any_of(int side, uint32_t stream)
{
    for (size_t i = 0; i + 1 < qemus.n; i++)
        if (qemus.all[i].side == side && qemus.all[i].stream == stream)
            return true;
    return false;
}

struct qemu *qemu_new(int side, uint32_t stream, uint64_t total, struct file **ret_file)
{
    static const size_t sizes[] = {64, 512, 4096, 4096, 16384, 65536};
    size_t least = total > 50000 ? 2 : 0; /* much through little takes without end */
    struct qemu *qemu;

    if (qemus.n == QEMUS)
        fault("there are too many connections of QEMUs");
    qemu = &qemus.all[qemus.n++];
    *qemu = (struct qemu){
        .conn = conn_new(true, 0, sizes[pick(6)], sizes[least + pick(6 - least)]),
        .side = side,
        .stream = stream,
        .id = (uint32_t)qemus.n,
        .total = total > 0 && total < 8 ? 8 : total,
        .hasty = chance(200),
        .wake_at = sim.now,
        .rest = NEVER,
        .die_at = NEVER,
    };
    qemu->conn->qemu = qemu;
    if (plan.deserts && side == DESTINATION && is_any_of(side, stream) && chance(500))
        qemu->rest = spread(plan.size);
    *ret_file = file_of_conn(qemu->conn, 0);
    return qemu;
}

/* ---- What it does ---- */

static void leave(struct qemu *qemu)
{
    struct conn *conn = qemu->conn;

    qemu->conn = NULL;
    qemu->shut = true; /* for who reads, a close is an end */
    conn_close(conn, 1);
}

void qemu_dies(struct qemu *qemu)
{
    qemu->die_at = NEVER;
    if ((qemu->written > 0 && qemu->written < sizeof(qemu->head)) ||
        (qemu->received > 0 && qemu->received < sizeof(qemu->head)))
        return; /* it has to say first who it is, and to hear whose it is */
    tell("QEMU's connection %u dies", qemu->id);
    leave(qemu);
}

/* And it has read it. */
static bool has_all(const struct qemu *qemu)
{
    uint32_t words[2];

    if (!qemu->shut || qemu->received < 8)
        return false;
    memcpy(words, qemu->head, 8);
    return qemu->conn->lanes[0].begin == words[1];
}

/* All is sent, and it does not want the rest. */
static bool has_enough(const struct qemu *qemu)
{
    const struct qemu *mate = qemu->mate;

    return qemu->rest != NEVER && mate && mate->shut && qemu->shut &&
           qemu->conn->lanes[0].begin + qemu->rest >= mate->written;
}

bool qemu_is_due(const struct qemu *qemu)
{
    uint32_t events;

    if (!qemu->conn)
        return false;
    if (qemu->die_at <= sim.now)
        return true;
    if (qemu->wake_at > sim.now)
        return false;
    events = conn_poll(qemu->conn, 1);
    return (events & EPOLLIN) || !qemu->shut ? (events & (EPOLLIN | EPOLLOUT)) != 0 : false;
}

static void write_some(struct qemu *qemu)
{
    uint64_t left = qemu->total - qemu->written;
    size_t size = (size_t)earlier(left, 1 + spread(CHUNK - 1));
    uint8_t head[8];
    ssize_t n;

    if (left > 0) {
        head_of(qemu, head);
        n = qemu->written < 8
                ? conn_write(qemu->conn, 1, head + qemu->written, (size_t)earlier(8 - qemu->written, size))
                : conn_write(qemu->conn, 1, body_of(qemu, qemu->written), size);
        if (n > 0)
            qemu->written += (uint64_t)n;
    }
    if (qemu->written == qemu->total && chance(700)) {
        qemu->shut = true;
        conn_shutdown(qemu->conn, 1, false, true);
    }
}

void qemu_turn(struct qemu *qemu)
{
    static uint8_t buf[CHUNK];
    ssize_t n;

    if (qemu->die_at <= sim.now) {
        qemu_dies(qemu);
        if (!qemu->conn)
            return;
    }
    n = conn_read(qemu->conn, 1, buf, 1 + (size_t)spread(CHUNK - 1), false);
    if ((n == 0 && (qemu->shut || !qemu->told_end)) || (n < 0 && n != -EAGAIN)) {
        leave(qemu);
        return;
    }
    if (!qemu->shut)
        write_some(qemu);
    if ((qemu->hasty && has_all(qemu)) || has_enough(qemu)) {
        leave(qemu);
        return;
    }
    qemu->wake_at = sim.now + (chance(30) ? spread(3 * SECOND) : spread(500));
}

uint64_t qemu_next(const struct qemu *qemu)
{
    uint64_t next = NEVER;

    if (!qemu->conn)
        return NEVER;
    if (qemu->die_at > sim.now)
        next = qemu->die_at;
    return qemu->wake_at > sim.now ? earlier(next, qemu->wake_at) : next;
}

/* ---- What its helper does to it ---- */

static void learn_mate(struct qemu *qemu)
{
    uint32_t words[2];
    struct qemu *mate;

    memcpy(words, qemu->head, 8);
    if (words[0] == 0 || words[0] > qemus.n)
        fault("QEMU's connection %u was given bytes that no QEMU sent", qemu->id);
    mate = &qemus.all[words[0] - 1];
    if (mate->side == qemu->side || mate->stream != qemu->stream)
        fault("QEMU's connection %u was given the bytes of %u", qemu->id, mate->id);
    if ((qemu->mate && qemu->mate != mate) || (mate->mate && mate->mate != qemu))
        fault("QEMU's connections %u and %u are not each other's", qemu->id, mate->id);
    qemu->mate = mate;
    mate->mate = qemu;
}

void qemu_receives(struct qemu *qemu, uint64_t offset, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    if (sim.has_lied) {
        qemu->received += size;
        return;
    }
    if (offset != qemu->received)
        fault("QEMU's connection %u is out of step", qemu->id);
    for (; size > 0 && qemu->received < 8; size--) {
        qemu->head[qemu->received++] = *bytes++;
        if (qemu->received == 8)
            learn_mate(qemu);
    }
    while (size > 0) {
        size_t piece = size < CHUNK ? size : CHUNK;

        if (qemu->received + piece > qemu->mate->written)
            fault("QEMU's connection %u was given more than %u sent", qemu->id, qemu->mate->id);
        if (memcmp(bytes, body_of(qemu->mate, qemu->received), piece) != 0)
            fault("QEMU's connection %u was given wrong bytes after %ju", qemu->id,
                  (uintmax_t)qemu->received);
        qemu->received += piece;
        bytes += piece;
        size -= piece;
    }
}

void qemu_is_read(struct qemu *qemu, uint64_t taken)
{
    qemu->taken = taken;
    if (qemu->window > 0 && qemu->mate && !sim.has_lied && taken - qemu->mate->received > qemu->window)
        fault("of QEMU's connection %u more is kept than its window has room for", qemu->id);
}

void qemu_is_told_end(struct qemu *qemu, uint64_t offset)
{
    if (offset > 0 && !sim.has_lied && (!qemu->mate || !qemu->mate->shut || qemu->mate->written != offset))
        fault("QEMU's connection %u was told an end that is none", qemu->id);
    qemu->told_end = true;
}

void qemu_is_closed(struct qemu *qemu)
{
    qemu->left = true;
    qemu->dropped = !qemus.end;
}

void qemus_end(bool end)
{
    qemus.end = end;
}

void qemus_tell(void)
{
    for (size_t i = 0; i < qemus.n; i++) {
        const struct qemu *qemu = &qemus.all[i];

        tell(
            "QEMU's connection %u of side %d, mate %u: %ju of %ju written, %ju taken, %ju received%s%s%s%s%s",
            qemu->id, qemu->side, qemu->mate ? qemu->mate->id : 0, (uintmax_t)qemu->written,
            (uintmax_t)qemu->total, (uintmax_t)qemu->taken, (uintmax_t)qemu->received,
            qemu->given ? "" : ", not given", qemu->shut ? ", shut" : "",
            qemu->told_end ? ", told the end" : "", qemu->dropped ? ", dropped" : "",
            qemu->left ? ", left" : "");
    }
}

bool qemu_has_carried(const struct qemu *qemu)
{
    return qemu->taken > 0 || qemu->received > 0;
}

/* One direction is whole. That the end of a flow was told, too, is promised only where the other side can
 * still say that it was. */
static bool is_whole(const struct qemu *from, const struct qemu *to)
{
    return from->shut && from->taken == from->written && to->received == from->written &&
           (to->told_end || !plan.gentle);
}

bool qemu_is_complete(const struct qemu *qemu)
{
    const struct qemu *mate = qemu->mate;

    return mate && is_whole(qemu, mate) && is_whole(mate, qemu);
}
