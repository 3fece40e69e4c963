/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/side.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/address.h"
#include "common/cleanup.h"
#include "ctl/bus/bus-socket.h"
#include "ctl/bus/password-agent.h"
#include "ctl/ssh/ssh.h"

#define CALL_TIMEOUT (30 * SECOND)
#define TYPE_TIMEOUT (300 * SECOND) /* where the user may have to type a password */

static int begin_remote(struct side *side, struct trouble *trouble)
{
    static const char *const what[] = {"bus", NULL};

    if (asprintf(&side->where_text, " at %s", side->host) < 0) {
        side->where_text = NULL;
        return trouble_no_memory(trouble);
    }
    side->where = side->where_text;
    return remote_begin(side->ctl, side->host, false, what, &side->link, trouble);
}

static int finish_remote(struct side *side, struct trouble *trouble)
{
    _cleanup_fd_ int fd = -1;
    int r;

    if (remote_finish(side->link, trouble) < 0)
        return -1;
    side->uid = remote_uid(side->link);
    fd = remote_take_fd(side->link);
    r = sd_bus_new(&side->bus);
    if (r >= 0)
        r = sd_bus_set_fd(side->bus, fd, fd);
    if (r >= 0) {
        fd_steal(&fd);
        r = sd_bus_negotiate_fds(side->bus, false);
    }
    if (r >= 0)
        r = sd_bus_set_bus_client(side->bus, true);
    if (r >= 0)
        r = sd_bus_start(side->bus);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "The bus%s cannot be used: %s.", side->where,
                               strerror(-r))
                 : 0;
}

static int open_remote(struct side *side, struct trouble *trouble)
{
    return begin_remote(side, trouble) < 0 ? -1 : finish_remote(side, trouble);
}

static int open_address(struct side *side, const char *address, struct trouble *trouble)
{
    int r = sd_bus_new(&side->bus);

    if (r >= 0)
        r = sd_bus_set_address(side->bus, address);
    if (r >= 0)
        r = sd_bus_set_bus_client(side->bus, true);
    if (r >= 0)
        r = sd_bus_start(side->bus);
    return r < 0
               ? trouble_set(trouble, STATUS_FAILED,
                             "Cannot connect to the D-Bus at '%s': %s. Is it running?", address, strerror(-r))
               : 0;
}

static int open_local(struct side *side, struct trouble *trouble)
{
    bool user = side->ctl->arguments.user;
    int r = user ? sd_bus_open_user(&side->bus) : sd_bus_open_system(&side->bus);

    if (r < 0)
        return trouble_set(trouble, r == -EACCES || r == -EPERM ? STATUS_DENIED : STATUS_FAILED,
                           "Cannot connect to the %s: %s. %s", user ? "user's bus" : "system bus",
                           strerror(-r),
                           user ? "Is this a session of yours, with $XDG_RUNTIME_DIR set?"
                                : "Is D-Bus running? --address= names another bus.");
    if (!user)
        password_agent_start(side->ctl);
    sd_bus_set_allow_interactive_authorization(side->bus, !side->ctl->arguments.no_ask_password);
    return 0;
}

static int attach(struct side *side, int opened, struct trouble *trouble)
{
    int r = opened < 0 ? 0 : sd_bus_attach_event(side->bus, side->ctl->event, SD_EVENT_PRIORITY_NORMAL);

    if (r < 0)
        trouble_set(trouble, STATUS_FAILED, "The bus cannot be watched: %s.", strerror(-r));
    if (opened >= 0 && r >= 0)
        return 0;
    side_close(side);
    return -1;
}

int side_open(struct ctl *ctl, struct side *ret, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;

    *ret = (struct side){.ctl = ctl, .host = a->host, .where = "", .uid = geteuid()};
    return attach(ret,
                  a->host      ? open_remote(ret, trouble)
                  : a->address ? open_address(ret, a->address, trouble)
                               : open_local(ret, trouble),
                  trouble);
}

int side_begin_host(struct ctl *ctl, const char *host, struct side *ret, struct trouble *trouble)
{
    *ret = (struct side){.ctl = ctl, .where = "", .uid = geteuid()};
    /* HOST is data: no address that sd-bus would start a program for ("unixexec:"). */
    if (strchr(host, '=') && !bus_address_is_socket(host))
        return trouble_set(trouble, STATUS_USAGE,
                           "'%s' is no host. Of D-Bus addresses only 'unix:path=…' and 'unix:abstract=…' can "
                           "stand for one.",
                           host);
    if (strchr(host, '='))
        return attach(ret, open_address(ret, host, trouble), trouble);
    ret->host = host;
    if (ssh_may_ask(ctl) || begin_remote(ret, trouble) >= 0)
        return 0;
    side_close(ret);
    return -1;
}

int side_finish_host(struct side *side, struct trouble *trouble)
{
    if (!side->host)
        return 0; /* open already */
    return attach(side, side->link ? finish_remote(side, trouble) : open_remote(side, trouble), trouble);
}

int side_open_host(struct ctl *ctl, const char *host, struct side *ret, struct trouble *trouble)
{
    return side_begin_host(ctl, host, ret, trouble) < 0 ? -1 : side_finish_host(ret, trouble);
}

/* D-Bus over TCP ("tcp:host=…"): it goes to where the other broker is. */
static void address_of_bus(sd_bus *bus, char ret[static INET6_ADDRSTRLEN])
{
    union any_address a = {0};
    socklen_t size = sizeof(a.storage);
    int fd = sd_bus_get_fd(bus);

    if (fd < 0 || getpeername(fd, &a.any, &size) < 0)
        return;
    if (a.any.sa_family == AF_INET && (ntohl(a.in.sin_addr.s_addr) >> 24) != IN_LOOPBACKNET)
        inet_ntop(AF_INET, &a.in.sin_addr, ret, INET6_ADDRSTRLEN);
    if (a.any.sa_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(&a.in6.sin6_addr))
        inet_ntop(AF_INET6, &a.in6.sin6_addr, ret, INET6_ADDRSTRLEN);
}

void side_address(const struct side *side, char ret[static INET6_ADDRSTRLEN])
{
    ret[0] = '\0';
    if (side->link)
        strcpy(ret, remote_address(side->link));
    else if (side->bus)
        address_of_bus(side->bus, ret);
}

void side_close(struct side *side)
{
    side->bus = sd_bus_close_unref(side->bus);
    remote_free(side->link);
    free(side->where_text);
    *side = (struct side){.where = ""};
}

/* ---- Calls ---- */

struct call {
    bool done;
    sd_bus_message *reply;
};

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct call *call = userdata;

    call->done = true;
    call->reply = sd_bus_message_ref(m);
    return 0;
}

int side_message(struct side *side, const char *path, const char *interface, const char *member,
                 sd_bus_message **ret, struct trouble *trouble)
{
    int r = sd_bus_message_new_method_call(side->bus, ret, BROKER_NAME, path, interface, member);

    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "Cannot call %s%s: %s.", member, side->where,
                               strerror(-r))
                 : 0;
}

/* What ssh has to say is the better reason where the bus went away with it. */
static int lost(struct side *side, int r, struct trouble *trouble, const char *doing)
{
    const char *reason = "";

    if (side->link && sd_bus_is_open(side->bus) <= 0 && remote_hear_out(side->link, trouble) < 0)
        return -1;
    if (side->link)
        reason = remote_reason(side->link);
    if (side->link && (remote_ended(side->link) || reason[0]))
        return trouble_set(trouble, STATUS_FAILED, "%s: the connection to %s is lost (%s).", doing,
                           side->host, reason[0] ? reason : "ssh ended");
    return trouble_set(trouble, STATUS_FAILED, "%s: the connection to the bus%s is lost (%s).", doing,
                       side->where, strerror(-r));
}

int side_send(struct side *side, sd_bus_message *m, uint64_t timeout, sd_bus_message **ret,
              struct trouble *trouble, const char *doing)
{
    _cleanup_(sd_bus_slot_unrefp) sd_bus_slot *slot = NULL;
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    struct call call = {0};
    int r = sd_bus_call_async(side->bus, &slot, m, on_reply, &call,
                              timeout > 0                            ? timeout
                              : side->ctl->arguments.no_ask_password ? CALL_TIMEOUT
                                                                     : TYPE_TIMEOUT);

    /* The first Ctrl-C is for the verb, which still has to clean up by calls; the second one ends each of
     * them. */
    while (r >= 0 && !call.done && side->ctl->interrupts < 2)
        if (ctl_turn(side->ctl, UINT64_MAX, trouble) < 0)
            r = -EIO;
    reply = call.reply;
    if (r < 0)
        return lost(side, r, trouble, doing);
    if (!call.done)
        return trouble_set(trouble, STATUS_CANCELLED,
                           "%s: interrupted twice, so nothing more was waited for.", doing);
    if (sd_bus_message_is_method_error(reply, NULL)) {
        const sd_bus_error *error = sd_bus_message_get_error(reply);

        if (sd_bus_is_open(side->bus) <= 0)
            return lost(side, -ECONNRESET, trouble, doing);
        return trouble_set_bus(trouble, error, doing);
    }
    if (ret) {
        *ret = reply;
        reply = NULL;
    }
    return 0;
}

int side_call(struct side *side, const char *path, const char *interface, const char *member,
              sd_bus_message **ret, struct trouble *trouble, const char *doing, const char *types, ...)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    va_list args;
    int r;

    if (side_message(side, path, interface, member, &m, trouble) < 0)
        return -1;
    ctl_step(side->ctl, "Broker%s: %s of %s", side->where, member, path);
    va_start(args, types);
    r = types ? sd_bus_message_appendv(m, types, args) : 0;
    va_end(args);
    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "%s: what is to be said does not fit D-Bus (%s).", doing,
                           strerror(-r));
    return side_send(side, m, 0, ret, trouble, doing);
}
