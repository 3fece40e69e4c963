/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * floor: what TLS costs at least, with the copies that vmferry's helper makes and nothing else: no protocol,
 * no resuming, one direction, one connection, blocking. With `io` at the end there is no TLS either: what
 * input and output cost.
 *
 *   floor in PATH A.B.C.D PORT [io]     takes a connection on a UNIX socket, and sends what comes to that
 * port floor out A.B.C.D PORT PATH [io]    the other end: takes that connection, and writes to a UNIX socket
 *
 * TLS 1.3, PSK with X25519, AES-128-GCM; records go out and come in many a system call.
 */
#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

enum { RECORD = 16384, BATCH = 256 * 1024, WIRE = BATCH + BATCH / RECORD * 64 };

static uint8_t data[BATCH], wire[WIRE];
static size_t wire_begin, wire_end;
static int tcp_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void send_all(int fd, const uint8_t *from, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, from, size);

        if (n < 0)
            die("write");
        from += n;
        size -= (size_t)n;
    }
}

static ssize_t on_push(gnutls_transport_ptr_t ptr UNUSED, const void *from, size_t size)
{
    if (size > WIRE - wire_end)
        abort();
    memcpy(wire + wire_end, from, size);
    wire_end += size;
    return (ssize_t)size;
}

static void flush(void)
{
    send_all(tcp_fd, wire, wire_end);
    wire_end = 0;
}

static ssize_t on_pull(gnutls_transport_ptr_t ptr UNUSED, void *to, size_t size)
{
    if (wire_begin == wire_end) {
        ssize_t n = read(tcp_fd, wire, WIRE);

        if (n < 0)
            die("read");
        wire_begin = 0;
        wire_end = (size_t)n;
    }
    if (size > wire_end - wire_begin)
        size = wire_end - wire_begin;
    memcpy(to, wire + wire_begin, size);
    wire_begin += size;
    return (ssize_t)size;
}

/* In the handshake the two directions take turns, and each needs the buffer. */
static ssize_t on_push_now(gnutls_transport_ptr_t ptr UNUSED, const void *from, size_t size)
{
    send_all(tcp_fd, from, size);
    return (ssize_t)size;
}

static int on_timeout(gnutls_transport_ptr_t ptr UNUSED, unsigned ms UNUSED)
{
    return 1; /* reading blocks */
}

static int on_identity(gnutls_session_t session UNUSED, const char *name UNUSED, gnutls_datum_t *ret)
{
    ret->data = gnutls_calloc(1, 32);
    ret->size = 32;
    return ret->data ? 0 : -1;
}

static gnutls_session_t secure(int client)
{
    static uint8_t zeros[32]; /* a key for a measurement */
    gnutls_datum_t key = {zeros, sizeof(zeros)};
    gnutls_psk_client_credentials_t ours;
    gnutls_psk_server_credentials_t theirs;
    gnutls_session_t session;

    gnutls_init(&session, (client ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NO_TICKETS);
    if (gnutls_priority_set_direct(
            session, "NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+SHA256:+ECDHE-PSK:+GROUP-X25519:+SIGN-ALL",
            NULL) < 0)
        abort();
    if (client) {
        gnutls_psk_allocate_client_credentials(&ours);
        gnutls_psk_set_client_credentials(ours, "floor", &key, GNUTLS_PSK_KEY_RAW);
        gnutls_credentials_set(session, GNUTLS_CRD_PSK, ours);
    } else {
        gnutls_psk_allocate_server_credentials(&theirs);
        gnutls_psk_set_server_credentials_function(theirs, on_identity);
        gnutls_credentials_set(session, GNUTLS_CRD_PSK, theirs);
    }
    gnutls_transport_set_pull_function(session, on_pull);
    gnutls_transport_set_pull_timeout_function(session, on_timeout);
    gnutls_transport_set_push_function(session, on_push_now);
    if (gnutls_handshake(session) < 0)
        abort();
    gnutls_transport_set_push_function(session, on_push);
    return session;
}

static int accept_one(int fd, const void *address, socklen_t size)
{
    int one = 1, accepted;

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, address, size) < 0 || listen(fd, 1) < 0)
        die("listen");
    accepted = accept(fd, NULL, NULL);
    if (accepted < 0)
        die("accept");
    return accepted;
}

static int open_unix(const char *path, int listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
        die(path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (listens)
        return accept_one(fd, &address, sizeof(address));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        die(path);
    return fd;
}

static int open_tcp(const char *host, const char *port, int listens)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die(host);
    if (listens)
        return accept_one(fd, &address, sizeof(address));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        die(host);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Without TLS, at either end. */
static void pump_clear(int from, int to)
{
    ssize_t n;

    while ((n = read(from, data, BATCH)) > 0)
        send_all(to, data, (size_t)n);
    shutdown(to, SHUT_WR);
    if (read(to, data, 1) > 0)
        abort();
}

static void pump_in(int fd, gnutls_session_t session)
{
    ssize_t n;

    wire_begin = wire_end = 0; /* the other side says nothing */
    while ((n = read(fd, data, BATCH)) > 0) {
        for (ssize_t done = 0; done < n;) {
            ssize_t sent =
                gnutls_record_send(session, data + done, (size_t)(n - done < RECORD ? n - done : RECORD));

            if (sent <= 0)
                abort();
            done += sent;
        }
        flush();
    }
    gnutls_bye(session, GNUTLS_SHUT_WR);
    flush();
    wire_begin = wire_end = 0;
    if (gnutls_record_recv(session, data, BATCH) > 0) /* the other side's end */
        abort();
}

static void pump_out(gnutls_session_t session, int fd)
{
    size_t got = 0;

    for (;;) {
        ssize_t n = gnutls_record_recv(session, data + got, BATCH - got);

        if (n < 0)
            abort();
        got += (size_t)n;
        if (n == 0 || wire_begin == wire_end || BATCH - got < RECORD) {
            send_all(fd, data, got);
            got = 0;
        }
        if (n == 0)
            break;
    }
    shutdown(fd, SHUT_WR);
    if (read(fd, data, 1) > 0)
        abort();
}

int main(int argc, char **argv)
{
    int fd, clear = argc == 6 && strcmp(argv[5], "io") == 0;

    if (argc == 5 + clear && strcmp(argv[1], "in") == 0) {
        fd = open_unix(argv[2], 1);
        tcp_fd = open_tcp(argv[3], argv[4], 0);
        if (clear)
            pump_clear(fd, tcp_fd);
        else
            pump_in(fd, secure(1));
    } else if (argc == 5 + clear && strcmp(argv[1], "out") == 0) {
        tcp_fd = open_tcp(argv[2], argv[3], 1);
        fd = open_unix(argv[4], 0);
        if (clear)
            pump_clear(tcp_fd, fd);
        else
            pump_out(secure(0), fd);
    } else {
        fprintf(stderr, "usage: floor in PATH HOST PORT [io] | floor out HOST PORT PATH [io]\n");
        return 2;
    }
    close(tcp_fd);
    return 0;
}
