/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/tls.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "helper/carrier/socket.h"

/*
 * GnuTLS never sees the socket: it pulls from `in`, which one large recv(2) fills, and pushes into `out`,
 * which one send(2) empties; so a batch of records costs one system call each way.
 */

enum { REFILLS_MAX = 4 /* of one recv() */ };
enum {
    RECORD_MAX = 16384,
    RECORD_OVERHEAD = 512 /* header, tag, and a KeyUpdate before it */
};

/* The suites that a SHA-256 PSK can have; tried on GnuTLS 3.7.9. */
#define PRIORITIES(ciphers) "NONE:+VERS-TLS1.3:" ciphers ":+AEAD:+SHA256:+ECDHE-PSK:+GROUP-X25519:+SIGN-ALL"

/* The accepting side takes the first that the other one names: where its CPU has instructions for AES that is
 * several times faster than ChaCha20, and elsewhere slower. */
static const char *priorities(void)
{
    bool aes = false;

#if defined(__x86_64__) || defined(__i386__)
    aes = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    aes = (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#endif
    return aes ? PRIORITIES("+AES-128-GCM:+CHACHA20-POLY1305")
               : PRIORITIES("+CHACHA20-POLY1305:+AES-128-GCM");
}

struct buffer {
    uint8_t *data;
    size_t size;
    size_t begin;
    size_t end;
};

struct carrier_tls {
    struct carrier carrier; /* first: the two are cast into each other */
    gnutls_session_t session;
    gnutls_psk_client_credentials_t client;
    gnutls_psk_server_credentials_t server;
    char identity[17];
    uint8_t key[KEY_SIZE]; /* overwritten after the handshake */
    struct buffer in, out;
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
        gnutls_transport_set_errno(tls->session, EAGAIN);
        return -1;
    }
    memcpy(data, tls->in.data + tls->in.begin, n);
    tls->in.begin += n;
    return (ssize_t)n;
}

static ssize_t on_push(gnutls_transport_ptr_t ptr, const void *data, size_t size)
{
    struct carrier_tls *tls = ptr;

    if (size > tls->out.size - tls->out.end) {
        gnutls_transport_set_errno(tls->session, EAGAIN);
        return -1;
    }
    memcpy(tls->out.data + tls->out.end, data, size);
    tls->out.end += size;
    return (ssize_t)size;
}

/* One read of up to so many bytes where nothing is left of the last: > 0, 0 at EOF, or a negative errno. */
static ssize_t fill(struct carrier_tls *tls, size_t wire)
{
    struct iovec iov = {tls->in.data, wire < tls->in.size ? wire : tls->in.size};
    ssize_t n;

    assert(held(&tls->in) == 0);
    n = socket_recv(tls->carrier.fd, &iov, 1);
    if (n == 0)
        tls->eof = true;
    tls->in.begin = 0;
    tls->in.end = n > 0 ? (size_t)n : 0;
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

static int tls_handshake(struct carrier *carrier)
{
    struct carrier_tls *tls = tls_of(carrier);
    int r, flushed;

    for (;;) {
        r = gnutls_handshake(tls->session);
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
            ssize_t n = fill(tls, RECORD_MAX + RECORD_OVERHEAD);

            if (n < 0)
                return (int)n;
            r = n > 0 ? handshake_hear(&carrier->handshake, tls->in.data, (size_t)n) : 0;
            if (r < 0)
                return r;
        }
    }
    explicit_bzero(tls->key, sizeof(tls->key));
    /* What could not be flushed yet is not forgotten: holds_output() tells. */
    return flushed < 0 && flushed != -EAGAIN ? flushed : 0;
}

/* One record's worth into the ring: > 0, 0 at EOF, -EAGAIN when the input is used up. */
static ssize_t recv_record(struct carrier_tls *tls, struct ring *ring, size_t max)
{
    struct iovec iov[RING_IOV_MAX];
    int n_iov = ring_reserve(ring, max < RECORD_MAX ? max : RECORD_MAX, iov);

    if (n_iov <= 0)
        return n_iov < 0 ? n_iov : -EAGAIN;
    for (;;) {
        ssize_t n = gnutls_record_recv(tls->session, iov[0].iov_base, iov[0].iov_len);

        if (n > 0)
            ring_commit(ring, (size_t)n);
        if (n >= 0)
            return n;
        if (n == GNUTLS_E_PREMATURE_TERMINATION)
            return 0;
        if (n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED)
            return -EPROTO;
        /* After a KeyUpdate it says "again" with data at hand; each round takes a record, so this ends. */
        if (held(&tls->in) == 0)
            return -EAGAIN;
    }
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
            return -EAGAIN; /* records without a byte for us, one after the other: others have their turn */
        n = fill(tls, max + RECORD_MAX + RECORD_OVERHEAD);
        if (n <= 0)
            return n;
    }
}

static ssize_t tls_send(struct carrier *carrier, struct ring *ring)
{
    struct carrier_tls *tls = tls_of(carrier);
    struct iovec iov[RING_IOV_MAX];
    size_t taken = 0;
    ssize_t n;
    int r;

    while (ring_unsent(ring) > 0 && tls->out.size - tls->out.end >= RECORD_MAX + RECORD_OVERHEAD) {
        ring_peek(ring, RECORD_MAX, iov);
        n = gnutls_record_send(tls->session, iov[0].iov_base, iov[0].iov_len);
        if (n < 0)
            return -EPROTO; /* there is room, so there is nothing to try again */
        ring_advance(ring, (size_t)n);
        taken += (size_t)n;
    }
    r = tls_flush(carrier);
    if (r < 0 && r != -EAGAIN)
        return r;
    return taken > 0 ? (ssize_t)taken : -EAGAIN;
}

static bool tls_holds_input(const struct carrier *carrier)
{
    const struct carrier_tls *tls = (const struct carrier_tls *)carrier;

    return held(&tls->in) > 0 || gnutls_record_check_pending(tls->session) > 0;
}

static bool tls_holds_output(const struct carrier *carrier)
{
    return held(&((const struct carrier_tls *)carrier)->out) > 0;
}

static int tls_export_key(struct carrier *carrier, uint8_t ret[static KEY_SIZE])
{
    static const char label[] = "EXPORTER-vmferry";

    return gnutls_prf_rfc5705(tls_of(carrier)->session, sizeof(label) - 1, label, 0, NULL, KEY_SIZE,
                              (char *)ret) < 0
               ? -EIO
               : 0;
}

static void tls_free(struct carrier *carrier)
{
    struct carrier_tls *tls = tls_of(carrier);

    if (tls->session)
        gnutls_deinit(tls->session);
    if (tls->client)
        gnutls_psk_free_client_credentials(tls->client);
    if (tls->server)
        gnutls_psk_free_server_credentials(tls->server);
    free(tls->in.data);
    free(tls->out.data);
    explicit_bzero(tls->key, sizeof(tls->key));
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

/* The accepting side is asked for the key of an identity; GnuTLS frees what it is given. */
static int on_identity(gnutls_session_t session, const char *identity, gnutls_datum_t *ret)
{
    struct carrier_tls *tls = gnutls_session_get_ptr(session);

    if (strcmp(identity, tls->identity) != 0)
        return -1;
    ret->data = gnutls_malloc(KEY_SIZE);
    if (!ret->data)
        return -1;
    memcpy(ret->data, tls->key, KEY_SIZE);
    ret->size = KEY_SIZE;
    return 0;
}

static int set_credentials(struct carrier_tls *tls, bool connecting)
{
    gnutls_datum_t key = {tls->key, KEY_SIZE};
    int r;

    if (connecting) {
        r = gnutls_psk_allocate_client_credentials(&tls->client);
        if (r >= 0)
            r = gnutls_psk_set_client_credentials(tls->client, tls->identity, &key, GNUTLS_PSK_KEY_RAW);
        if (r >= 0)
            r = gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, tls->client);
    } else {
        r = gnutls_psk_allocate_server_credentials(&tls->server);
        if (r >= 0) {
            gnutls_psk_set_server_credentials_function(tls->server, on_identity);
            r = gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, tls->server);
        }
    }
    return r;
}

static int set_up(struct carrier_tls *tls, bool connecting)
{
    const unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;

    if (gnutls_init(&tls->session, (connecting ? GNUTLS_CLIENT : GNUTLS_SERVER) | flags) < 0)
        return -ENOMEM;
    if (gnutls_priority_set_direct(tls->session, priorities(), NULL) < 0 ||
        set_credentials(tls, connecting) < 0)
        return -EIO;
    gnutls_session_set_ptr(tls->session, tls);
    gnutls_transport_set_ptr(tls->session, tls);
    gnutls_transport_set_pull_function(tls->session, on_pull);
    gnutls_transport_set_push_function(tls->session, on_push);
    return 0;
}

int carrier_tls_new(int fd, bool connecting, const struct preamble *preamble,
                    const uint8_t key[static KEY_SIZE], size_t buffer, struct carrier **ret)
{
    struct carrier_tls *tls = calloc(1, sizeof(*tls));
    int r;

    if (!tls)
        return -ENOMEM;
    tls->carrier = (struct carrier){.ops = &tls_ops, .fd = fd, .handshake = {.connecting = connecting}};
    tls->in = (struct buffer){.data = malloc(buffer), .size = buffer};
    tls->out = (struct buffer){.data = malloc(buffer), .size = buffer};
    memcpy(tls->key, key, KEY_SIZE);
    snprintf(tls->identity, sizeof(tls->identity), "%016" PRIx64, preamble->id);
    r = tls->in.data && tls->out.data ? set_up(tls, connecting) : -ENOMEM;
    if (r < 0) {
        tls_free(&tls->carrier);
        return r;
    }
    *ret = &tls->carrier;
    return 0;
}
