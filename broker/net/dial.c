/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/net/dial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "broker/net/connect-as.h"
#include "broker/net/endpoint.h"
#include "broker/net/ticket.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"
#include "common/timer.h"

enum { STAGGER = 100000 /* µs, RFC 8305, 5 */, AGAIN = 20000 /* µs */ };

struct attempt {
    struct dial *dial;
    char endpoint[ADDRESS_TEXT_MAX];
    char why[DIAL_WHY_MAX]; /* it came to nothing; "" before */
    int fd;                 /* owned; −1 before and after */
    sd_event_source *source;
};

struct dial {
    sd_event *event; /* borrowed */
    dial_done_t done;
    void *userdata;
    const struct config *config; /* borrowed */
    uid_t uid;                   /* the caller's, whose rights are used */
    struct attempt attempts[TICKET_ENDPOINTS_MAX];
    size_t n;
    size_t next; /* the first that was not tried yet */
    size_t n_open;
    sd_event_source *stagger, *timeout;
};

static void attempt_close(struct attempt *attempt)
{
    attempt->source = sd_event_source_disable_unref(attempt->source);
    if (attempt->fd >= 0)
        attempt->dial->n_open--;
    fd_closep(&attempt->fd);
}

struct dial *dial_free(struct dial *dial)
{
    if (!dial)
        return NULL;
    for (size_t i = 0; i < dial->n; i++)
        attempt_close(&dial->attempts[i]);
    sd_event_source_disable_unref(dial->stagger);
    sd_event_source_disable_unref(dial->timeout);
    free(dial);
    return NULL;
}

/* Tells of as many as fit, the first ones: a peer announces those first by which it is most likely reached.
 */
static void give_up(struct dial *dial)
{
    char why[DIAL_WHY_MAX] = "";
    size_t told = 0, n = 0;

    for (; told < dial->n; told++) {
        const struct attempt *attempt = &dial->attempts[told];
        const char *reason = attempt->why[0] ? attempt->why : "no answer";
        size_t more = strlen(attempt->endpoint) + strlen(reason) + strlen("; : ");

        if (told > 0 && n + more + sizeof("; and 16 more") > sizeof(why))
            break;
        snprintf(why + n, sizeof(why) - n, "%s%s: %s", told > 0 ? "; " : "", attempt->endpoint, reason);
        n = strlen(why);
    }
    if (told < dial->n)
        snprintf(why + n, sizeof(why) - n, "; and %zu more", dial->n - told);
    dial->done(dial, -1, 0, why, dial->userdata);
}

static void attempt_failed(struct attempt *attempt, const char *why)
{
    snprintf(attempt->why, sizeof(attempt->why), "%s", why);
    attempt_close(attempt);
    /* The next attempt starts from the loop: done() must not be called while the owner calls us. */
    timer_set(attempt->dial->stagger, 0);
}

static int on_connected(sd_event_source *source, int sock, uint32_t revents, void *userdata)
{
    struct attempt *attempt = userdata;
    struct dial *dial = attempt->dial;
    int r = endpoint_connected(sock), fd;

    if (r < 0) {
        attempt_failed(attempt, strerror(-r));
        return 0;
    }
    fd = attempt->fd;
    attempt->source = sd_event_source_disable_unref(attempt->source);
    attempt->fd = -1;
    dial->n_open--;
    dial->done(dial, fd, (size_t)(attempt - dial->attempts), NULL, dial->userdata);
    return 0;
}

static void attempt_start(struct attempt *attempt)
{
    struct endpoint endpoint;
    const char *why = endpoint_parse(attempt->endpoint, &endpoint);
    int fd, r;

    if (!why && endpoint.any)
        why = "it names no host";
    if (why) {
        attempt_failed(attempt, why);
        return;
    }
    fd = connect_as(attempt->dial->config, attempt->dial->uid, &endpoint);
    if (fd == -EAGAIN) { /* a UNIX listener's backlog is full: the same again, until the time is up */
        attempt->dial->next--;
        sd_event_source_set_time_relative(attempt->dial->stagger, AGAIN);
        return;
    }
    if (fd < 0) {
        why = deputy_why(fd);
        attempt_failed(attempt, why ? why : strerror(-fd));
        return;
    }
    attempt->fd = fd;
    attempt->dial->n_open++;
    r = sd_event_add_io(attempt->dial->event, &attempt->source, fd, EPOLLOUT, on_connected, attempt);
    if (r < 0)
        attempt_failed(attempt, strerror(-r));
}

static int on_stagger(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct dial *dial = userdata;

    if (dial->next < dial->n) {
        timer_set(source, STAGGER);
        attempt_start(&dial->attempts[dial->next++]);
    } else if (dial->n_open == 0) {
        give_up(dial);
    }
    return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct dial *dial = userdata;

    give_up(dial);
    return 0;
}

int dial_new(sd_event *event, const char (*endpoints)[ADDRESS_TEXT_MAX], size_t n, uint64_t timeout,
             const struct config *config, uid_t uid, dial_done_t done, void *userdata, struct dial **ret)
{
    struct dial *dial;
    int r;

    if (n == 0 || n > TICKET_ENDPOINTS_MAX)
        return -EINVAL;
    dial = calloc(1, sizeof(*dial));
    if (!dial)
        return -ENOMEM;
    dial->event = event;
    dial->done = done;
    dial->userdata = userdata;
    dial->config = config;
    dial->uid = uid;
    dial->n = n;
    for (size_t i = 0; i < n; i++) {
        dial->attempts[i].dial = dial;
        dial->attempts[i].fd = -1;
        snprintf(dial->attempts[i].endpoint, ADDRESS_TEXT_MAX, "%s", endpoints[i]);
    }
    r = sd_event_add_time_relative(event, &dial->stagger, CLOCK_MONOTONIC, 0, 1, on_stagger, dial);
    if (r >= 0)
        r = sd_event_add_time_relative(event, &dial->timeout, CLOCK_MONOTONIC, timeout, 0, on_timeout, dial);
    if (r < 0) {
        dial_free(dial);
        return r;
    }
    *ret = dial;
    return 0;
}
