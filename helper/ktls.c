/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ktls.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

/* What a record holds at least, for the count: one is closed early where the socket's buffer is short, or
 * after 17 pieces. Some four times too many, of full ones. */
enum { RECORD_MIN = 4096, RECORDS_SPLICED = 4 /* of one call's pieces, be they as small as they may */ };

union crypto {
    struct tls_crypto_info info;
    struct tls12_crypto_info_aes_gcm_128 aes;
    struct tls12_crypto_info_chacha20_poly1305 chacha;
};

static int take_aes(union crypto *crypto, const gnutls_datum_t *key, const gnutls_datum_t *iv)
{
    struct tls12_crypto_info_aes_gcm_128 *aes = &crypto->aes;

    if (key->size != sizeof(aes->key) || iv->size != sizeof(aes->salt) + sizeof(aes->iv))
        return -EOPNOTSUPP;
    crypto->info.cipher_type = TLS_CIPHER_AES_GCM_128;
    memcpy(aes->key, key->data, sizeof(aes->key));
    /* The kernel takes its two parts as TLS 1.2 names them; in 1.3 both together are the IV. */
    memcpy(aes->salt, iv->data, sizeof(aes->salt));
    memcpy(aes->iv, iv->data + sizeof(aes->salt), sizeof(aes->iv));
    return sizeof(*aes);
}

static int take_chacha(union crypto *crypto, const gnutls_datum_t *key, const gnutls_datum_t *iv)
{
    struct tls12_crypto_info_chacha20_poly1305 *chacha = &crypto->chacha;

    if (key->size != sizeof(chacha->key) || iv->size != sizeof(chacha->iv))
        return -EOPNOTSUPP;
    crypto->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
    memcpy(chacha->key, key->data, sizeof(chacha->key));
    memcpy(chacha->iv, iv->data, sizeof(chacha->iv));
    return sizeof(*chacha);
}

/* The keys of a direction, TLS_TX or TLS_RX, as setsockopt(2) takes them: their size, or a negative errno. */
static int take_keys(gnutls_session_t session, int direction, union crypto *crypto)
{
    gnutls_datum_t mac, iv, key;
    unsigned char number[8];
    int size = -EOPNOTSUPP;

    *crypto = (union crypto){.info.version = TLS_1_3_VERSION};
    if (gnutls_protocol_get_version(session) != GNUTLS_TLS1_3 ||
        gnutls_record_get_state(session, direction == TLS_RX, &mac, &iv, &key, number) < 0)
        return size;
    if (gnutls_cipher_get(session) == GNUTLS_CIPHER_AES_128_GCM) {
        size = take_aes(crypto, &key, &iv);
        memcpy(crypto->aes.rec_seq, number, sizeof(crypto->aes.rec_seq));
    } else if (gnutls_cipher_get(session) == GNUTLS_CIPHER_CHACHA20_POLY1305) {
        size = take_chacha(crypto, &key, &iv);
        memcpy(crypto->chacha.rec_seq, number, sizeof(crypto->chacha.rec_seq));
    }
    return size;
}

static int start(int fd, gnutls_session_t session, int direction)
{
    union crypto crypto;
    int size = take_keys(session, direction, &crypto), r = size;

    if (size > 0)
        r = setsockopt(fd, SOL_TLS, direction, &crypto, (socklen_t)size) < 0 ? -errno : 0;
    explicit_bzero(&crypto, sizeof(crypto));
    return r;
}

int ktls_start(int fd, gnutls_session_t session)
{
    static const char name[] = "tls";

    /* Alone it changes nothing. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof(name)) < 0)
        return 0;
    if (start(fd, session, TLS_TX) < 0)
        return 0;
    return start(fd, session, TLS_RX) < 0 ? -ENOTRECOVERABLE : 1;
}

static ssize_t broken_unless_again(ssize_t n)
{
    return n < 0 && n != -EAGAIN && n != -ENOMEM ? -EPROTO : n;
}

ssize_t ktls_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    bool polled = carrier->polled;
    ssize_t n = carrier_socket_recv(carrier, ring, max);

    /* Before Linux 6.4 a poll says so of a part of a record, too. */
    carrier->stalled = n == -EAGAIN && polled && !ring->pipe_full;
    carrier->polled = false;
    return broken_unless_again(n);
}

ssize_t ktls_send(struct carrier *carrier, struct ring *ring)
{
    ssize_t n;

    if (carrier->records >= KTLS_RECORDS_MAX)
        return -EPROTO;
    n = carrier_socket_send(carrier, ring);
    if (n > 0)
        carrier->records += (uint64_t)n / RECORD_MIN + (ring->pipe >= 0 ? RECORDS_SPLICED : 1);
    carrier->blocked = n == -EAGAIN && !ring->keep_full;
    return broken_unless_again(n);
}
