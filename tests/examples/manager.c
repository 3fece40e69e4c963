/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An ordinary manager, by sd-bus: moves a VM in pre-copy, tells how far it is, and what became of it.
 *
 *     manager SOURCE_BUS DESTINATION_BUS SOURCE_QMP DESTINATION_QMP [ENDPOINT]
 *
 * The buses are D-Bus addresses, the QMPs the UNIX sockets of two monitors; the destination QEMU was started
 * with -incoming defer. With ENDPOINT the destination is dialled there, and not where the ticket says. A real
 * one has a parser of JSON; here a search for words does.
 */

#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>

static const char broker[] = "org.vmferry.Broker1", object[] = "/org/vmferry/Broker1",
                  migration[] = "org.vmferry.Migration1";

/* ---- QEMU's monitor ---- */

static FILE *qmp_open(const char *path)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
    } address = {.un.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;

    snprintf(address.un.sun_path, sizeof(address.un.sun_path), "%s", path);
    if (!file || connect(fd, &address.any, sizeof(address)) < 0)
        err(EXIT_FAILURE, "%s", path);
    return file;
}

/* What it returns; until the next call. */
static const char *qmp(FILE *file, const char *command, const char *uri)
{
    static char line[16384];

    if (uri)
        dprintf(fileno(file), "{\"execute\": \"%s\", \"arguments\": {\"uri\": \"unix:%s\"}}\n", command, uri);
    else
        dprintf(fileno(file), "{\"execute\": \"%s\"}\n", command);
    while (fgets(line, sizeof(line), file)) {
        if (strstr(line, "\"error\":"))
            errx(EXIT_FAILURE, "%s: %s", command, line);
        if (strstr(line, "\"return\":"))
            return line;
    }
    errx(EXIT_FAILURE, "QEMU is gone");
}

static uint64_t number(const char *json, const char *name)
{
    const char *found = strstr(json, name);

    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

static bool says(const char *json, const char *status)
{
    char text[64];

    snprintf(text, sizeof(text), "\"status\": \"%s\"", status);
    return strstr(json, text);
}

/* ---- The brokers ---- */

static sd_bus *host(const char *address)
{
    sd_bus *bus;

    if (sd_bus_new(&bus) < 0 || sd_bus_set_address(bus, address) < 0 ||
        sd_bus_set_bus_client(bus, true) < 0 || sd_bus_start(bus) < 0)
        errx(EXIT_FAILURE, "cannot connect to %s", address);
    return bus;
}

/* Ends with what the broker has to say, unless all is well. */
static void need(int r, const char *what, const sd_bus_error *error)
{
    if (r < 0)
        errx(EXIT_FAILURE, "%s: %s", what, error->message ? error->message : strerror(-r));
}

static char *property(sd_bus *bus, const char *path, const char *name)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char *value;

    need(sd_bus_get_property_string(bus, broker, path, migration, name, &error, &value), name, &error);
    return value;
}

static char *socket_of(sd_bus *bus, const char *path)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    const char *stream, *socket;
    sd_bus_message *reply;
    char *copy;

    need(sd_bus_get_property(bus, broker, path, migration, "Sockets", &error, &reply, "a{ss}"), "Sockets",
         &error);
    need(sd_bus_message_read(reply, "a{ss}", 1, &stream, &socket), "Sockets", &error);
    copy = strdup(socket);
    sd_bus_message_unref(reply);
    return copy;
}

/* State and Phase, as every client sees them: something of them has changed. */
static int on_changed(sd_bus_message *m, void *path, sd_bus_error *unused)
{
    sd_bus *bus = sd_bus_message_get_bus(m);
    char *state = property(bus, path, "State"), *phase = property(bus, path, "Phase"),
         *message = property(bus, path, "ErrorMessage");

    /* Interrupted: nothing is lost, and the VM is started nowhere. QEMU waits, and goes on when the network
     * is back. What would end it is Cancel, or QEMU's connections that are closed after resume-timeout-usec.
     */
    printf("state %s, phase %s%s%s\n", state, phase, message[0] != '\0' ? ": " : "", message);
    fflush(stdout);
    free(state);
    free(phase);
    free(message);
    return 0;
}

static void report(sd_bus *bus, const char *path, const char *outcome, uint64_t downtime)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    bool moved = strcmp(outcome, "moved") == 0;

    need(sd_bus_call_method(bus, broker, path, migration, "Report", &error, NULL, "sa{sv}", outcome, 1,
                            "downtime-usec", "t", moved ? downtime * 1000 : UINT64_C(0)),
         "Report", &error);
    if (!moved)
        need(sd_bus_call_method(bus, broker, path, migration, "Cancel", &error, NULL, NULL), "Cancel",
             &error);
    printf("outcome %s\n", outcome);
}

/* What QEMU says goes to the broker. Whether there is an outcome: where the VM is, both QEMUs know together.
 */
static bool look(sd_bus *bus, const char *path, FILE *here, FILE *there)
{
    const char *info = qmp(here, "query-migrate", NULL);
    uint64_t downtime = number(info, "\"downtime\": ");

    if (says(info, "completed")) {
        if (says(qmp(there, "query-status", NULL), "inmigrate"))
            return false; /* it is still to start */
        report(bus, path, "moved", downtime);
        return true;
    }
    if (says(info, "failed") || says(info, "cancelled")) {
        info = qmp(here, "query-status", NULL);
        report(bus, path, says(info, "running") || says(info, "paused") ? "not-moved" : "unknown", 0);
        return true;
    }
    sd_bus_call_method(bus, broker, path, migration, "ReportProgress", NULL, NULL, "a{sv}", 3, "phase", "s",
                       says(info, "active") ? "pre-copy" : "setup", "memory-total", "t",
                       number(info, "\"total\": "), "memory-remaining", "t", number(info, "\"remaining\": "));
    return false;
}

static void follow(sd_bus *bus, char *path, FILE *here, FILE *there)
{
    bool told = false, finished = false;

    while (!finished) {
        char *state;

        while (sd_bus_process(bus, NULL) > 0)
            ;
        told = told || look(bus, path, here, there);
        state = property(bus, path, "State");
        finished = strcmp(state, "finished") == 0;
        free(state);
        if (!finished)
            sd_bus_wait(bus, 300000);
    }
}

int main(int argc, char **argv)
{
    sd_bus_message *prepared, *started;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    const char *incoming, *ticket, *outgoing;
    char *socket, *path, *outcome;

    if (argc < 5)
        errx(EXIT_FAILURE, "usage: manager SOURCE_BUS DESTINATION_BUS SOURCE_QMP DESTINATION_QMP [ENDPOINT]");
    sd_bus *source = host(argv[1]), *destination = host(argv[2]);
    FILE *here = qmp_open(argv[3]), *there = qmp_open(argv[4]);
    qmp(here, "qmp_capabilities", NULL);
    qmp(there, "qmp_capabilities", NULL);

    /* The destination's QEMU listens on its socket before the source's connects to the other one. */
    need(sd_bus_call_method(destination, broker, object, broker, "PrepareIncoming", &error, &prepared,
                            "sa{sv}", "web1", 0),
         "PrepareIncoming", &error);
    need(sd_bus_message_read(prepared, "os", &incoming, &ticket), "PrepareIncoming", &error);
    socket = socket_of(destination, incoming);
    qmp(there, "migrate-incoming", socket);
    free(socket);
    need(argc > 5 ? sd_bus_call_method(source, broker, object, broker, "StartOutgoing", &error, &started,
                                       "ssa{sv}", "web1", ticket, 1, "endpoint", "s", argv[5])
                  : sd_bus_call_method(source, broker, object, broker, "StartOutgoing", &error, &started,
                                       "ssa{sv}", "web1", ticket, 0),
         "StartOutgoing", &error);
    need(sd_bus_message_read(started, "o", &outgoing), "StartOutgoing", &error);
    path = strdup(outgoing);
    need(sd_bus_match_signal(source, NULL, broker, path, "org.freedesktop.DBus.Properties",
                             "PropertiesChanged", on_changed, path),
         "AddMatch", &error);
    socket = socket_of(source, path);
    qmp(here, "migrate", socket);
    free(socket);

    follow(source, path, here, there);
    outcome = property(source, path, "Outcome");
    int status = strcmp(outcome, "moved") == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    free(outcome);
    outcome = property(source, path, "Result");
    printf("result %s\n", outcome);
    free(outcome);
    sd_bus_message_unref(prepared);
    sd_bus_message_unref(started);
    sd_bus_flush_close_unref(source);
    sd_bus_flush_close_unref(destination);
    free(path);
    fclose(here);
    fclose(there);
    return status;
}
