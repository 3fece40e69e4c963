/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/net/port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/errors.h"
#include "broker/helpers/ready.h"
#include "broker/log-sample.h"
#include "broker/log.h"
#include "broker/net/endpoint.h"
#include "broker/sockets/supplied.h"
#include "broker/store.h"
#include "common/cleanup.h"
#include "common/timer.h"

#define GATE_NAME "gate-link.1" /* "gate-link": one that reads no marks. It is ended and replaced */

enum { RESTART_PAUSE = 200000 /* µs before a gate that died is replaced */ };

struct port {
    const struct config *config; /* borrowed, as the next two */
    struct store *store;
    struct helper_links *helpers;
    const struct port_events *events;
    void *userdata;
    unsigned users;
    struct log_sample logged;
    int listeners[CONFIG_LISTEN_MAX]; /* owned; −1 where one was lost and cannot be had again so far */
    struct endpoint endpoints[CONFIG_LISTEN_MAX]; /* where they listen, with the port that was chosen */
    size_t n_listeners; /* 0: closed. After a start it may be those of another configuration */
    struct helper_link *gate;
    sd_event_source *restart;
};

static int start_gate(struct port *port);

static void reject(struct port *port, int fd, enum vf_error error)
{
    union message m = {.reject.error = error};

    if (port->gate)
        helper_link_send(port->gate, MESSAGE_REJECT, &m, fd);
}

static void on_arrived(struct port *port, const struct message_arrived *m, const struct message_mark *mark,
                       int fd)
{
    enum vf_error error;

    /* The whole network can talk to the gate: what it hands up is looked at as a caller's. */
    if (socket_check(fd, false) || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
        return;
    error = port->events->arrived(port->userdata, m->kind, m->id, mark, fd);
    if (error != VF_ERROR_NONE)
        reject(port, fd, error);
}

static void on_message(struct helper_link *link, const union message *m, int fd, void *userdata)
{
    bool marked = m->header.type == MESSAGE_ARRIVED_MARKED;
    struct port *port = userdata;
    _cleanup_fd_ int owned = fd;

    if ((m->header.type == MESSAGE_ARRIVED || marked) && m->arrived.kind != PEER_ANY &&
        m->arrived.kind <= PEER_RESUME)
        on_arrived(port, &m->arrived, marked ? &m->arrived_marked.mark : NULL, owned);
    else if (m->header.type == MESSAGE_LOG && message_text_ok(m->log.text, sizeof(m->log.text))) {
        if (log_sample(&port->logged, "what the gate says"))
            log_event(LOG_WARNING, NULL, NULL, "gate: %s", m->log.text);
    } else
        helper_link_kill(link, "sent a message that a gate may not send");
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct port *port = userdata;
    int r;

    if (port->users == 0 || port->gate)
        return 0;
    r = start_gate(port);
    if (r < 0) {
        log_event(LOG_ERR, NULL, NULL, "Failed to start the gate: %s. Trying again.", strerror(-r));
        timer_set(source, 5 * RESTART_PAUSE);
    }
    return 0;
}

static void drop_gate(struct port *port)
{
    store_remove(port->store, GATE_NAME, port->gate ? helper_link_fd(port->gate) : -1);
    port->gate = helper_link_free(port->gate);
}

/* The listening sockets are still ours: peers that connect meanwhile wait in their backlog. */
static void on_gone(struct helper_link *link, const char *why, void *userdata)
{
    struct port *port = userdata;

    log_event(LOG_ERR, NULL, NULL, "The gate %s. A new one is started.", why);
    drop_gate(port);
    timer_set(port->restart, RESTART_PAUSE);
}

static const struct helper_handlers handlers = {.message = on_message, .gone = on_gone};

/* The name of a listening socket in the FD store. */
static const char *listener_name(size_t i, char ret[static STORE_NAME_MAX])
{
    snprintf(ret, STORE_NAME_MAX, "port.%zu", i);
    return ret;
}

/*
 * A gate shares the listening sockets with us, so one that was taken over may have ended listening (its
 * sandbox should keep it from that). Such a socket is replaced by a new one at the same address: tickets name
 * it. 0 or a negative errno.
 */
static int heal_listener(struct port *port, size_t i)
{
    struct store *store = port->store;
    char name[STORE_NAME_MAX], text[ADDRESS_TEXT_MAX];
    int *listener = &port->listeners[i];

    if (endpoint_listens(*listener))
        return 0;
    store_remove(store, listener_name(i, name), *listener);
    fd_closep(listener);
    *listener = endpoint_listen(&port->endpoints[i]);
    if (*listener < 0) {
        int r = *listener;

        *listener = -1;
        return r;
    }
    store_put(store, name, *listener, 0);
    address_format(&port->endpoints[i].address, port->endpoints[i].size, text);
    log_event(LOG_WARNING, NULL, NULL, "Nothing listened on %s any more. It was opened anew.", text);
    return 0;
}

static int start_gate(struct port *port)
{
    union message m = {
        .start_gate = {.max_pending = port->config->max_gate, .deadline_msec = DEFAULT_GATE_DEADLINE}};
    union message offer = {.offer.features = OFFERS_KNOWN};
    union message listener = {0};
    int r = 0;

    for (size_t i = 0; r >= 0 && i < port->n_listeners; i++)
        r = heal_listener(port, i);
    if (r >= 0)
        r = helper_link_new(port->helpers, &handlers, port, &port->gate);
    if (r >= 0)
        r = helper_link_send(port->gate, MESSAGE_START_GATE, &m, -1);
    if (r >= 0)
        r = helper_link_send(port->gate, MESSAGE_OFFER, &offer, -1);
    /* Behind OFFER: the gate accepts from the first LISTENER on, and would drop peers whose preambles have
     * marks. */
    for (size_t i = 0; r >= 0 && i < port->n_listeners; i++)
        r = helper_link_send(port->gate, MESSAGE_LISTENER, &listener, port->listeners[i]);
    if (r < 0)
        port->gate = helper_link_free(port->gate);
    else
        store_put(port->store, GATE_NAME, helper_link_fd(port->gate), 0);
    return r;
}

/* A UNIX listener's path goes with it. */
static void unlink_path(int listener)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } a = {0};
    socklen_t size = sizeof(a);

    if (getsockname(listener, &a.any, &size) >= 0 && a.any.sa_family == AF_UNIX && a.un.sun_path[0] == '/')
        unlink(a.un.sun_path);
}

static void add_listener(struct port *port, int fd)
{
    endpoint_of_listener(fd, &port->endpoints[port->n_listeners]);
    port->listeners[port->n_listeners++] = fd;
}

static void close_port(struct port *port)
{
    struct store *store = port->store;
    char name[STORE_NAME_MAX];

    drop_gate(port);
    sd_event_source_set_enabled(port->restart, SD_EVENT_OFF);
    while (port->n_listeners > 0) {
        int *listener = &port->listeners[--port->n_listeners];

        store_remove(store, listener_name(port->n_listeners, name), *listener);
        if (!store_frozen(store)) {
            unlink_path(*listener);
            shutdown(*listener, SHUT_RDWR); /* others have it too, for another moment: the port is free now */
        }
        fd_closep(listener);
    }
}

int port_new(const struct config *config, sd_event *event, struct store *store, struct helper_links *helpers,
             const struct port_events *events, void *userdata, struct port **ret)
{
    struct port *port = calloc(1, sizeof(*port));
    int r;

    if (!port)
        return -ENOMEM;
    *port = (struct port){
        .config = config, .store = store, .helpers = helpers, .events = events, .userdata = userdata};
    r = sd_event_add_time(event, &port->restart, CLOCK_MONOTONIC, UINT64_MAX, 0, on_restart, port);
    if (r < 0) {
        free(port);
        return r;
    }
    *ret = port;
    return 0;
}

struct port *port_free(struct port *port)
{
    if (!port)
        return NULL;
    close_port(port);
    sd_event_source_disable_unref(port->restart);
    free(port);
    return NULL;
}

/* The port as the configuration says. ≥ 0, or negative with error set: then it is closed. */
static int open_port(struct port *port, sd_bus_error *error)
{
    const struct config *config = port->config;
    char name[STORE_NAME_MAX];
    int r;

    for (size_t i = 0; i < config->n_listen; i++) {
        r = endpoint_listen(&config->endpoints[i]);
        if (r < 0) {
            close_port(port);
            return error_set(
                error, VF_ERROR_SOCKET_UNAVAILABLE,
                "Cannot listen for peers on %s: %s. Is another vmferryd or program there? See --listen=.",
                config->listen[i], strerror(-r));
        }
        store_put(port->store, listener_name(i, name), r, 0);
        add_listener(port, r);
    }
    r = start_gate(port);
    if (r >= 0)
        return 0;
    close_port(port);
    return error_set(error, VF_ERROR_HELPER_FAILED, "Cannot start %s: %s. %s",
                     helper_links_source(port->helpers), strerror(-r), helper_links_option(port->helpers));
}

int port_acquire(struct port *port, sd_bus_error *error)
{
    int r = port->users > 0 ? 0 : open_port(port, error);

    if (r >= 0)
        port->users++;
    return r;
}

void port_restore(struct port *port)
{
    struct store *store = port->store;
    char name[STORE_NAME_MAX];
    int fd, r;

    for (size_t i = 0; i < CONFIG_LISTEN_MAX; i++) {
        fd = store_take(store, listener_name(i, name));
        if (fd < 0)
            break;
        add_listener(port, fd);
    }
    fd = store_take(store, GATE_NAME);
    r = fd < 0 ? 0 : helper_link_adopt(port->helpers, fd, "", PHASE_GATE, &handlers, port, &port->gate);
    if (r < 0)
        log_event(LOG_ERR, NULL, NULL, "Cannot take the gate over: %s.", strerror(-r));
}

void port_hold(struct port *port)
{
    port->users++;
}

/* After all migrations have said whether they need the port. Listeners that are left over are closed, and
 * opened anew only where none was stored: those of a ticket must stay at their address. */
void port_settle(struct port *port)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    if (port->users == 0 || port->n_listeners == 0)
        close_port(port);
    if (port->users > 0 && port->n_listeners == 0 && open_port(port, &error) < 0)
        log_event(LOG_ERR, NULL, NULL, "%s", error.message);
    else if (port->users > 0 && !port->gate)
        timer_set(port->restart, 0);
}

void port_release(struct port *port)
{
    if (--port->users == 0)
        close_port(port);
}

bool port_is_open(const struct port *port)
{
    return port->n_listeners > 0;
}

size_t port_endpoints(struct port *port, const char *near, char (*ret)[ADDRESS_TEXT_MAX], size_t max,
                      struct endpoints_left *left)
{
    const struct config *config = port->config;
    size_t n = 0;

    for (size_t i = 0; i < port->n_listeners && n < max; i++)
        n += endpoint_announce(port->listeners[i], near, ret + n, max - n, left);
    for (size_t i = 0; port->n_listeners == 0 && i < config->n_listen && n < max; i++)
        snprintf(ret[n++], ADDRESS_TEXT_MAX, "%s", config->listen[i]);
    return n;
}
