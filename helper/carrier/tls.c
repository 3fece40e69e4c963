/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/tls.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "helper/carrier/psk.h"
#include "helper/carrier/record.h"
#include "helper/carrier/socket.h"

/*
 * GnuTLS makes the handshake; then it gives its keys, and records of application data are sealed and opened
 * here: sealed out of the ring into `out`, which one send(2) empties, and opened out of `in`, which one
 * recv(2) fills, into the ring. All other records are GnuTLS's. It never sees the socket: it pulls from `in`
 * and pushes into `out`. Number and key of a direction are with one of the two at a time: GnuTLS is told the
 * number before it handles a record, and what it has made of them is taken back after.
 */

uint64_t carrier_tls_renewal = RECORDS_MAX;

enum { REFILLS_MAX = 4 /* of one recv() */ };
enum { KEY_UPDATE_SIZE = 64 /* at most: a record of 5 bytes */ };

struct buffer {
    uint8_t *data;
    size_t size;
    size_t begin;
    size_t end;
};

enum writer {
    WRITER_GNUTLS, /* it makes the next record: the handshake, or a KeyUpdate is due */
    WRITER_OURS,   /* it must not write: a number that both used would be a nonce used twice */
};

struct carrier_tls {
    struct carrier carrier;          /* first: the two are cast into each other */
    const struct aead_choice *aeads; /* borrowed */
    struct psk psk;
    struct buffer in, out;
    struct record_key opens, seals; /* from the end of the handshake on */
    enum writer writer;
    size_t rest_begin, rest_end; /* of a record that the ring had no room for in one piece */
    uint8_t rest[RECORD_PLAIN_MAX + 1];
    bool eof;
};

static struct carrier_tls *tls_of(struct carrier *carrier)
{
    return (struct carrier_tls *)carrier;
}

static size_t held(const struct buffer *buffer)
{
    return buffer->end - buffer->begin;
}

static ssize_t on_pull(gnutls_transport_ptr_t ptr, void *data, size_t size)
{
    struct carrier_tls *tls = ptr;
    size_t n = held(&tls->in) < size ? held(&tls->in) : size;

    if (n == 0 && !tls->eof) {
        gnutls_transport_set_errno(tls->psk.session, EAGAIN);
        return -1;
    }
    memcpy(data, tls->in.data + tls->in.begin, n);
    tls->in.begin += n;
    return (ssize_t)n;
}

static ssize_t on_push(gnutls_transport_ptr_t ptr, const void *data, size_t size)
{
    struct carrier_tls *tls = ptr;

    if (tls->writer != WRITER_GNUTLS) {
        gnutls_transport_set_errno(tls->psk.session, EPERM);
        return -1;
    }
    if (size > tls->out.size - tls->out.end) {
        gnutls_transport_set_errno(tls->psk.session, EAGAIN);
        return -1;
    }
    memcpy(tls->out.data + tls->out.end, data, size);
    tls->out.end += size;
    return (ssize_t)size;
}

/* One read of up to so many bytes, behind what is left of the last: > 0, 0 at EOF, or a negative errno. */
static ssize_t fill(struct carrier_tls *tls, size_t wire)
{
    struct buffer *in = &tls->in;
    size_t kept = held(in), room = in->size - kept;
    struct iovec iov = {in->data + kept, wire < room ? wire : room};
    ssize_t n;

    assert(room > 0);
    memmove(in->data, in->data + in->begin, kept);
    n = socket_recv(tls->carrier.fd, &iov, 1);
    if (n == 0)
        tls->eof = true;
    in->begin = 0;
    in->end = kept + (n > 0 ? (size_t)n : 0);
    return n;
}

static int tls_flush(struct carrier *carrier)
{
    struct buffer *out = &tls_of(carrier)->out;

    while (held(out) > 0) {
        struct iovec iov = {out->data + out->begin, held(out)};
        ssize_t n = socket_send(carrier->fd, &iov, 1);

        if (n < 0)
            return (int)n;
        out->begin += (size_t)n;
    }
    out->begin = out->end = 0;
    return 0;
}

/* ---- Keys and numbers, between GnuTLS and us ---- */

/* From now on this direction's records are ours. After a KeyUpdate this takes the new key, too, with number 0
 * (RFC 8446, 5.3). */
static int take_key(struct carrier_tls *tls, bool reads)
{
    enum aead_cipher cipher = gnutls_cipher_get(tls->psk.session) == GNUTLS_CIPHER_AES_128_GCM
                                  ? AEAD_AES_128_GCM
                                  : AEAD_CHACHA20_POLY1305;
    gnutls_datum_t iv, secret;
    uint64_t number;

    if (gnutls_record_get_state(tls->psk.session, reads, NULL, &iv, &secret, (uint8_t *)&number) < 0 ||
        iv.size != AEAD_NONCE || secret.size != aead_key_size(cipher))
        return -EPROTO;
    return record_key_set(reads ? &tls->opens : &tls->seals, tls->aeads->fastest[cipher], cipher, secret.data,
                          iv.data, be64toh(number));
}

static int lend_number(struct carrier_tls *tls, bool reads)
{
    uint64_t number = htobe64(reads ? tls->opens.number : tls->seals.number);

    return gnutls_record_set_state(tls->psk.session, reads, (const uint8_t *)&number) < 0 ? -EPROTO : 0;
}

/* The record that begins `in` is no application data: > 0, 0 at the end of the connection, or what is wrong.
 */
static int hear_gnutls(struct carrier_tls *tls, size_t size)
{
    const struct buffer in = tls->in;
    uint8_t byte;
    ssize_t n;
    int r = lend_number(tls, true);

    if (r < 0)
        return r;
    tls->in.end = in.begin + size; /* it sees this record alone */
    n = gnutls_record_recv(tls->psk.session, &byte, 1);
    r = n == GNUTLS_E_AGAIN && held(&tls->in) == 0 ? take_key(tls, true) : -EPROTO;
    tls->in = in;
    if (n == 0 || r < 0) /* the record stays, so that the next call comes to the same */
        return n == 0 ? 0 : r;
    tls->in.begin += size;
    /* If it was a KeyUpdate that asks for one, GnuTLS sends that with the next record. */
    tls->writer = WRITER_GNUTLS;
    return 1;
}

/* GnuTLS makes a record out of these bytes, behind a KeyUpdate where one is due: how many, or what is wrong.
 */
static ssize_t let_gnutls_send(struct carrier_tls *tls, const struct iovec *plain)
{
    int r = lend_number(tls, false);
    ssize_t n = r;

    tls->writer = WRITER_GNUTLS;
    if (r >= 0 && tls->seals.number >= carrier_tls_renewal)
        n = gnutls_session_key_update(tls->psk.session, 0);
    if (n >= 0)
        n = gnutls_record_send(tls->psk.session, plain->iov_base, plain->iov_len);
    tls->writer = WRITER_OURS;
    /* There is room, so there is nothing to try again. GnuTLS may have used our number: nothing is sealed any
     * more. */
    if (n <= 0)
        record_key_clear(&tls->seals);
    return n <= 0 || take_key(tls, false) < 0 ? -EPROTO : n;
}

static int take_over(struct carrier_tls *tls)
{
    int r = take_key(tls, true);

    if (r >= 0)
        r = take_key(tls, false);
    tls->writer = WRITER_OURS;
    psk_forget_key(&tls->psk);
    return r;
}

static int tls_handshake(struct carrier *carrier)
{
    struct carrier_tls *tls = tls_of(carrier);
    int r, flushed;

    for (;;) {
        r = gnutls_handshake(tls->psk.session);
        flushed = tls_flush(carrier); /* an alert goes out as well */
        if (r == GNUTLS_E_SUCCESS)
            break;
        if (gnutls_error_is_fatal(r)) {
            bool cut = tls->eof || flushed == -ECONNRESET || flushed == -EPIPE;

            return cut && r != GNUTLS_E_FATAL_ALERT_RECEIVED ? -ECONNRESET : -EKEYREJECTED;
        }
        if (flushed < 0)
            return flushed;
        if (held(&tls->in) == 0) {
            ssize_t n = fill(tls, RECORD_SIZE_MAX);

            if (n < 0)
                return (int)n;
            r = n > 0 ? handshake_hear(&carrier->handshake, tls->in.data, (size_t)n) : 0;
            if (r < 0)
                return r;
        }
    }
    r = take_over(tls);
    if (r < 0)
        return r;
    /* What could not be flushed yet is not forgotten: holds_output() tells. */
    return flushed < 0 && flushed != -EAGAIN ? flushed : 0;
}

/* ---- Records ---- */

static ssize_t give_rest(struct carrier_tls *tls, struct ring *ring, size_t max)
{
    struct iovec iov[RING_IOV_MAX];
    size_t left = tls->rest_end - tls->rest_begin, n = 0;
    int n_iov = ring_reserve(ring, max < left ? max : left, iov);

    for (int i = 0; i < n_iov; i++) {
        memcpy(iov[i].iov_base, tls->rest + tls->rest_begin + n, iov[i].iov_len);
        n += iov[i].iov_len;
    }
    ring_commit(ring, n);
    tls->rest_begin += n;
    return n_iov < 0 ? n_iov : (ssize_t)n;
}

/* One record's worth into the ring, where there is room: > 0, 0 at EOF, -EAGAIN when the input is used up. */
static ssize_t recv_record(struct carrier_tls *tls, struct ring *ring, size_t max)
{
    while (tls->rest_begin == tls->rest_end) {
        const uint8_t *record = tls->in.data + tls->in.begin;
        enum record_verdict verdict;
        struct iovec iov[RING_IOV_MAX];
        size_t size, plain;
        bool fits;
        int r;

        verdict = record_look(record, held(&tls->in), &size);
        if (verdict != RECORD_DATA)
            return verdict == RECORD_CUT ? -EAGAIN : -EPROTO;
        plain = size - RECORD_OVERHEAD;
        r = ring_reserve(ring, plain + 1, iov); /* with its type, which is never committed */
        if (r < 0)
            return r;
        fits = plain <= max && iov[0].iov_len > plain;
        verdict = record_open(&tls->opens, record, size, fits ? iov[0].iov_base : tls->rest);
        if (verdict == RECORD_OTHER) {
            r = hear_gnutls(tls, size);
            if (r <= 0)
                return r;
            continue;
        }
        if (verdict != RECORD_DATA)
            return -EPROTO;
        tls->in.begin += size;
        if (fits) {
            ring_commit(ring, plain);
            return (ssize_t)plain;
        }
        tls->rest_begin = 0;
        tls->rest_end = plain;
    }
    return give_rest(tls, ring, max);
}

static ssize_t tls_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    struct carrier_tls *tls = tls_of(carrier);
    size_t got = 0;
    ssize_t n;

    if (max > CARRIER_BATCH)
        max = CARRIER_BATCH;
    for (int i = 0;; i++) {
        while (got < max && ring_room(ring) > 0) {
            n = recv_record(tls, ring, max - got);
            if (n == -EAGAIN)
                break;
            if (n <= 0)
                return got > 0 ? (ssize_t)got : n;
            got += (size_t)n;
        }
        /* "Again" with something held, which no poll sees, only where the ring is full. */
        if (got > 0 || ring_room(ring) == 0 || carrier->held_only)
            return got > 0 ? (ssize_t)got : -EAGAIN;
        if (i == REFILLS_MAX)
            return -EAGAIN; /* no byte for us, one read after the other: others have their turn */
        n = fill(tls, max + RECORD_SIZE_MAX);
        if (n <= 0)
            return n;
    }
}

/* One record into `out`: how many of the ring's bytes are in it, or what is wrong. */
static ssize_t send_record(struct carrier_tls *tls, const struct ring *ring)
{
    struct iovec iov[RING_IOV_MAX];

    ring_peek(ring, RECORD_PLAIN_MAX, iov);
    if (tls->writer == WRITER_GNUTLS || tls->seals.number >= carrier_tls_renewal)
        return let_gnutls_send(tls, iov);
    if (record_seal(&tls->seals, iov->iov_base, iov->iov_len, tls->out.data + tls->out.end) < 0)
        return -EPROTO;
    tls->out.end += iov->iov_len + RECORD_OVERHEAD;
    return (ssize_t)iov->iov_len;
}

static ssize_t tls_send(struct carrier *carrier, struct ring *ring)
{
    struct carrier_tls *tls = tls_of(carrier);
    size_t taken = 0;
    ssize_t n;
    int r;

    while (ring_unsent(ring) > 0 && tls->out.size - tls->out.end >= RECORD_SIZE_MAX + KEY_UPDATE_SIZE) {
        n = send_record(tls, ring);
        if (n < 0)
            return n;
        ring_advance(ring, (size_t)n);
        taken += (size_t)n;
    }
    r = tls_flush(carrier);
    if (r < 0 && r != -EAGAIN)
        return r;
    return taken > 0 ? (ssize_t)taken : -EAGAIN;
}

/* A record that is not whole is nothing: what it lacks the poll will see. */
static bool tls_holds_input(const struct carrier *carrier)
{
    const struct carrier_tls *tls = (const struct carrier_tls *)carrier;
    size_t size;

    return tls->rest_begin < tls->rest_end ||
           record_look(tls->in.data + tls->in.begin, held(&tls->in), &size) != RECORD_CUT;
}

static bool tls_holds_output(const struct carrier *carrier)
{
    return held(&((const struct carrier_tls *)carrier)->out) > 0;
}

static int tls_export_key(struct carrier *carrier, uint8_t ret[static KEY_SIZE])
{
    static const char label[] = "EXPORTER-vmferry";

    return gnutls_prf_rfc5705(tls_of(carrier)->psk.session, sizeof(label) - 1, label, 0, NULL, KEY_SIZE,
                              (char *)ret) < 0
               ? -EIO
               : 0;
}

static void tls_free(struct carrier *carrier)
{
    struct carrier_tls *tls = tls_of(carrier);

    psk_close(&tls->psk);
    record_key_clear(&tls->opens);
    record_key_clear(&tls->seals);
    free(tls->in.data);
    free(tls->out.data);
    explicit_bzero(tls->rest, sizeof(tls->rest));
    free(tls);
}

static const struct carrier_ops tls_ops = {
    .handshake = tls_handshake,
    .recv = tls_recv,
    .send = tls_send,
    .flush = tls_flush,
    .holds_input = tls_holds_input,
    .holds_output = tls_holds_output,
    .export_key = tls_export_key,
    .free = tls_free,
};

int carrier_tls_new(int fd, bool connecting, const struct preamble *preamble,
                    const uint8_t key[static KEY_SIZE], size_t buffer, const struct aead_choice *aeads,
                    struct carrier **ret)
{
    struct carrier_tls *tls = calloc(1, sizeof(*tls));
    int r;

    if (!tls)
        return -ENOMEM;
    tls->carrier = (struct carrier){.ops = &tls_ops, .fd = fd, .handshake = {.connecting = connecting}};
    tls->in = (struct buffer){.data = malloc(buffer), .size = buffer};
    tls->out = (struct buffer){.data = malloc(buffer), .size = buffer};
    tls->aeads = aeads;
    r = tls->in.data && tls->out.data ? psk_open(&tls->psk, connecting, preamble->id, key, aeads->preferred)
                                      : -ENOMEM;
    if (r < 0) {
        tls_free(&tls->carrier);
        return r;
    }
    gnutls_transport_set_ptr(tls->psk.session, tls);
    gnutls_transport_set_pull_function(tls->psk.session, on_pull);
    gnutls_transport_set_push_function(tls->psk.session, on_push);
    *ret = &tls->carrier;
    return 0;
}
