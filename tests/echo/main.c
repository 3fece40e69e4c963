/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A peer connection's end by itself, for tests/integration/hostile/test_records.py: it makes the handshake on
 * a TCP connection, sends back all that comes, and says how much it was and with which library it was opened.
 */

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "helper/carrier/tls.h"
#include "helper/relay/flow.h"

static int fail(const char *what, int r)
{
    fprintf(stderr, "%s: %s\n", what, strerror(-r));
    return EXIT_FAILURE;
}

static void wait_for(const struct carrier *carrier, short events)
{
    struct pollfd poll_fd = {.fd = carrier->fd, .events = events};

    poll(&poll_fd, 1, -1);
}

static int shake(struct carrier *carrier)
{
    int r;

    while ((r = carrier->ops->handshake(carrier)) == -EAGAIN)
        wait_for(carrier, POLLIN);
    return r;
}

/* Until the end: how many bytes, or what is wrong. */
static int64_t echo(struct carrier *carrier)
{
    struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .max_free = 4};
    struct ring ring;
    ssize_t r = ring_init(&ring, &pool, FLOW_BUFFER);
    int64_t total = 0;

    while (r >= 0 || r == -EAGAIN) {
        short events = ring_room(&ring) > 0 ? POLLIN : 0;

        if (ring_unsent(&ring) > 0 || carrier_holds_output(carrier))
            events |= POLLOUT;
        if (!carrier_holds_input(carrier) || !(events & POLLIN))
            wait_for(carrier, events);
        r = ring_room(&ring) > 0 ? carrier_recv(carrier, &ring, SIZE_MAX) : -EAGAIN;
        if (r == 0)
            break;
        total += r > 0 ? r : 0;
        if (r > 0 || r == -EAGAIN)
            r = ring_unsent(&ring) > 0 ? carrier_send(carrier, &ring) : carrier->ops->flush(carrier);
        ring_release(&ring, ring.cursor);
    }
    ring_clear(&ring);
    ring_pool_clear(&pool);
    return r < 0 ? r : total;
}

/* Arguments: connect or accept, the number of a TCP port here, the library, records under a key. */
int main(int argc, char **argv)
{
    static const struct preamble preamble = {PEER_CONTROL, 0x0123456789abcdef};
    static const uint8_t key[KEY_SIZE] = "a key of thirty-two bytes ......";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct carrier *carrier = NULL;
    struct aead_choice choice;
    bool connecting;
    int fd, r;
    int64_t total;

    if (argc != 5)
        return EXIT_FAILURE;
    connecting = strcmp(argv[1], "connect") == 0;
    address.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
    carrier_tls_renewal = strtoull(argv[4], NULL, 10);
    aead_choose(&choice);
    for (size_t i = 0; aead_all[i]; i++)
        if (strcmp(aead_all[i]->name, argv[3]) == 0)
            choice.fastest[0] = choice.fastest[1] = aead_all[i];
    if (strcmp(choice.fastest[0]->name, argv[3]) != 0)
        return 77; /* this build has it not */
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connecting ? connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0
                   : bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)
        return fail("Failed to get a socket", -errno);
    if (!connecting) {
        socklen_t size = sizeof(address);
        int listener = fd;

        getsockname(listener, (struct sockaddr *)&address, &size);
        printf("%u\n", ntohs(address.sin_port));
        fflush(stdout);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        close(listener);
    }
    r = carrier_tls_new(fd, connecting, &preamble, key, (size_t)256 * 1024, &choice, &carrier);
    if (r < 0)
        return fail("Failed to make the connection's end", r);
    r = shake(carrier);
    if (r < 0)
        return fail("Failed to shake hands", r);
    total = echo(carrier);
    carrier_free(carrier);
    if (total < 0)
        return fail("Failed to echo", (int)total);
    printf("%lld\n", (long long)total);
    return EXIT_SUCCESS;
}
