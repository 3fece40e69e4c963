/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A whole migration with descriptors only, by sd-bus:
 *
 *     fd-client SOURCE_BUS DESTINATION_BUS < what the source QEMU says > what the destination QEMU hears
 *
 * The buses are D-Bus addresses. A manager would hand what OpenStream returns to QEMU (QMP's getfd); here
 * this program is both QEMUs itself, so that it needs none.
 */

#include <err.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static const char broker[] = "org.vmferry.Broker1";

/* Every reply: what it points to, and the descriptors in it, live until the end. */
static sd_bus_message *replies[16];
static size_t n_replies;

static sd_bus *host(const char *address)
{
    sd_bus *bus;

    if (sd_bus_new(&bus) < 0 || sd_bus_set_address(bus, address) < 0 ||
        sd_bus_set_bus_client(bus, true) < 0 || sd_bus_negotiate_fds(bus, true) < 0 || sd_bus_start(bus) < 0)
        errx(EXIT_FAILURE, "cannot connect to %s", address);
    return bus;
}

/* Calls, or ends with what the broker has to say. The reply is not the caller's. */
static sd_bus_message *call(sd_bus *bus, const char *path, const char *interface, const char *member,
                            const char *types, ...)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *reply;
    va_list args;
    int r;

    va_start(args, types);
    r = sd_bus_call_methodv(bus, broker, path, interface, member, &error, &reply, types, args);
    va_end(args);
    if (r < 0)
        errx(EXIT_FAILURE, "%s: %s", member, error.message);
    if (n_replies == sizeof(replies) / sizeof(replies[0]))
        errx(EXIT_FAILURE, "more calls than expected");
    return replies[n_replies++] = reply;
}

static void read_reply(sd_bus_message *reply, const char *types, void *a, void *b)
{
    if (sd_bus_message_read(reply, types, a, b) < 0)
        errx(EXIT_FAILURE, "unexpected reply");
}

static void copy(int from, int to)
{
    char buf[65536];
    ssize_t n;

    while ((n = read(from, buf, sizeof(buf))) > 0)
        for (ssize_t done = 0, m; done < n; done += m)
            if ((m = write(to, buf + done, (size_t)(n - done))) < 0)
                err(EXIT_FAILURE, "write");
    if (n < 0)
        err(EXIT_FAILURE, "read");
    shutdown(to, SHUT_WR);
}

int main(int argc, char **argv)
{
    static const char migration[] = "org.vmferry.Migration1", object[] = "/org/vmferry/Broker1";
    const char *outgoing, *incoming, *ticket, *result;
    int in, out, pair[2];

    if (argc != 3)
        errx(EXIT_FAILURE, "usage: fd-client SOURCE_BUS DESTINATION_BUS");
    sd_bus *source = host(argv[1]), *destination = host(argv[2]);

    /* An empty path: none. No endpoints: no port. */
    read_reply(call(destination, object, broker, "PrepareIncoming", "sa{sv}", "web1", 2, "sockets", "a{ss}",
                    1, "migrate", "", "endpoints", "as", 0),
               "os", &incoming, &ticket);
    read_reply(call(source, object, broker, "StartOutgoing", "ssa{sv}", "web1", ticket, 1, "sockets", "a{ss}",
                    1, "migrate", ""),
               "o", &outgoing, NULL);

    /* One peer connection for control, and one for each channel. */
    for (int i = 0; i < 2; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            err(EXIT_FAILURE, "socketpair");
        call(source, outgoing, migration, "AddPeerConnection", "h", pair[0]);
        call(destination, incoming, migration, "AddPeerConnection", "h", pair[1]);
        close(pair[0]);
        close(pair[1]);
    }
    read_reply(call(source, outgoing, migration, "OpenStream", "s", "migrate"), "h", &in, NULL);
    read_reply(call(destination, incoming, migration, "OpenStream", "s", "migrate"), "h", &out, NULL);

    if (fork() == 0) {
        copy(STDIN_FILENO, in);
        _exit(EXIT_SUCCESS);
    }
    copy(out, STDOUT_FILENO);
    shutdown(out, SHUT_WR); /* the destination closes first */
    wait(NULL);

    read_reply(call(source, outgoing, migration, "Wait", ""), "s", &result, NULL);
    fprintf(stderr, "source: %s\n", result);
    read_reply(call(destination, incoming, migration, "Wait", ""), "s", &result, NULL);
    fprintf(stderr, "destination: %s\n", result);

    while (n_replies > 0)
        sd_bus_message_unref(replies[--n_replies]);
    sd_bus_flush_close_unref(source);
    sd_bus_flush_close_unref(destination);
    return EXIT_SUCCESS;
}
