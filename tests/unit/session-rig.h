/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Both helpers of a migration, each with its own event loop. The test is their brokers, which bring what is
 * asked for; the network between them, which it can cut; and both QEMUs.
 */

#include "helper-rig.h"

#include "aead-rig.h"

#include <poll.h>
#include <sys/mman.h>

#include "helper/carrier/worker.h"
#include "helper/protocol/greeting.h"
#include "helper/session/end.h"
#include "helper/session/internal.h"
#include "helper/session/resume.h"
#include "helper/session/session.h"

enum { SOURCE, DESTINATION, CUTS_MAX = 16 };
enum { LONG = 60000000, SHORT = 300000, SOME = 300000 /* µs */ };

struct side {
    struct desk desk;
    struct workers workers;
    bool has_workers; /* before side_start() */
    bool is_old;      /* likewise: its broker offers nothing */
    struct session *session;
    struct stats *page;
    bool has_ended;
    enum vf_error error; /* its result */
    char why[MESSAGE_TEXT_MAX];
    enum message_state state; /* that it told last */
    struct outcome outcome;   /* that it said that its peer told */
    unsigned n_outcomes;
};

struct world {
    struct side sides[2];
    bool down;                 /* no connection between them can be made */
    enum vf_error rejects;     /* or the destination's gate rejects each with this, */
    bool hangs_up;             /* or closes it */
    bool keeps_qemu_waiting;   /* the destination's broker does not answer */
    unsigned n_dialled;        /* what the source has asked for */
    int connections[CUTS_MAX]; /* the test's hold on those that were made */
    size_t n_connections;
    int qemu; /* the last one of the destination that was connected to */
};

static inline int stats_page(struct stats **ret)
{
    int fd = memfd_create("stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof(struct stats)), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    *ret = mmap(NULL, sizeof(struct stats), PROT_READ, MAP_SHARED, fd, 0);
    assert_true(*ret != MAP_FAILED);
    return fd;
}

static inline void side_start(struct side *side, struct message_start_relay start, enum message_role role)
{
    union message offer = {.offer.features = OFFERS_KNOWN};
    int fd = stats_page(&side->page);

    start.role = role;
    if (side->has_workers)
        workers_start(&side->workers);
    desk_init(&side->desk);
    assert_int_equal(session_new(side->desk.event, &side->desk.link, &side->workers, aeads_chosen(), &start,
                                 fd, &side->session),
                     0);
    if (!side->is_old)
        assert_int_equal(message_send(side->desk.broker, MESSAGE_OFFER, &offer, -1), 0);
}

static inline struct message_start_relay start_of(uint64_t resume_timeout)
{
    struct message_start_relay start = {
        .id = 0x1234,
        .security = SECURITY_PLAIN,
        .max_channels = 8,
        .window = 1 << 20,
        .resume_timeout = resume_timeout,
        .n_streams = 1,
        .secret = "a secret of both",
        .streams = {"migrate"},
    };

    return start;
}

static inline void broker_sends(struct side *side, enum message_type type, union message *m, int fd)
{
    assert_int_equal(message_send(side->desk.broker, type, m, fd), 0);
    if (fd >= 0)
        close(fd);
}

/* The source's broker dials the peer, whose gate hands the connection on. */
static inline void world_dials(struct world *world, const union message *need)
{
    union message failed = {.peer_failed = {.serial = need->need_peer.serial,
                                            .error = VF_ERROR_PEER_UNREACHABLE,
                                            .text = "There is no network."}};
    union message ours = {.peer = {.kind = need->need_peer.kind, .serial = need->need_peer.serial}};
    union message theirs = {.peer = {.kind = need->need_peer.kind}};
    struct preamble preamble;
    uint8_t buf[PREAMBLE_SIZE];
    int pair[2];

    world->n_dialled++;
    if (world->down) {
        broker_sends(&world->sides[SOURCE], MESSAGE_PEER_FAILED, &failed, -1);
        return;
    }
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(world->n_connections < CUTS_MAX);
    if (world->rejects != VF_ERROR_NONE || world->hangs_up) {
        uint8_t rejection[REJECTION_SIZE];

        rejection_encode(world->rejects, rejection);
        world->connections[world->n_connections++] = pair[1];
        if (world->hangs_up)
            shutdown(pair[1], SHUT_RDWR);
        else
            assert_int_equal(send(pair[1], rejection, sizeof(rejection), 0), sizeof(rejection));
        broker_sends(&world->sides[SOURCE], MESSAGE_PEER, &ours, pair[0]);
        return;
    }
    world->connections[world->n_connections++] = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    broker_sends(&world->sides[SOURCE], MESSAGE_PEER, &ours, pair[0]);
    desk_run(&world->sides[SOURCE].desk);
    assert_int_equal(recv(pair[1], buf, sizeof(buf), MSG_DONTWAIT), sizeof(buf));
    assert_int_equal(preamble_decode(buf, &preamble), VERDICT_OK);
    theirs.peer_marked.mark = preamble.mark;
    broker_sends(&world->sides[DESTINATION], preamble.mark.number != 0 ? MESSAGE_PEER_MARKED : MESSAGE_PEER,
                 &theirs, pair[1]);
}

static inline void world_connects_qemu(struct world *world, const union message *need)
{
    union message m = {.qemu = {.channel = need->need_qemu.channel, .stream = need->need_qemu.stream}};
    int pair[2];

    if (world->keeps_qemu_waiting)
        return;
    test_pair(SOCK_STREAM, 0, pair);
    broker_sends(&world->sides[DESTINATION], MESSAGE_QEMU, &m, pair[0]);
    world->qemu = pair[1];
}

/* What one side's broker hears and does; false when there was nothing. */
static inline bool world_serves(struct world *world, struct side *side)
{
    union message m;

    switch (side->desk.broker < 0 ? (enum message_type)0 : desk_heard(&side->desk, &m)) {
    case MESSAGE_NEED_PEER:
        world_dials(world, &m);
        return true;
    case MESSAGE_NEED_QEMU:
        world_connects_qemu(world, &m);
        return true;
    case MESSAGE_FEATURES:
        assert_int_equal(m.features.features, OFFERS_KNOWN);
        return true;
    case MESSAGE_STATE:
        side->state = m.state_changed.state;
        return true;
    case MESSAGE_PEER_OUTCOME:
        side->outcome = m.peer_outcome.outcome;
        side->n_outcomes++;
        return true;
    case MESSAGE_RESULT:
        side->has_ended = true;
        side->error = m.result.error;
        snprintf(side->why, sizeof(side->why), "%s", m.result.text);
        return true;
    default:
        return false;
    }
}

static inline void world_run(struct world *world)
{
    bool busy = true;

    for (int i = 0; i < 1000 && busy; i++) {
        busy = false;
        for (size_t j = 0; j < 2; j++) {
            desk_run(&world->sides[j].desk);
            busy = world_serves(world, &world->sides[j]) || busy;
        }
    }
}

/* Until this has become true; timers fire meanwhile. */
#define WORLD_WAIT(world, condition)                       \
    do {                                                   \
        for (int i_ = 0; i_ < 500 && !(condition); i_++) { \
            poll(NULL, 0, 10);                             \
            world_run(world);                              \
        }                                                  \
        assert_true(condition);                            \
    } while (0)

/* Before it begins. */
static inline struct world *world_make(void)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    world->qemu = -1;
    for (size_t i = 0; i < 2; i++)
        world->sides[i].workers = (struct workers)WORKERS_NONE;
    return world;
}

static inline void world_start(struct world *world, struct message_start_relay source,
                               struct message_start_relay destination)
{
    side_start(&world->sides[SOURCE], source, ROLE_OUTGOING);
    side_start(&world->sides[DESTINATION], destination, ROLE_INCOMING);
    world_run(world);
}

static inline struct world *world_new(struct message_start_relay source,
                                      struct message_start_relay destination)
{
    struct world *world = world_make();

    world_start(world, source, destination);
    return world;
}

static inline struct world *world_of(uint64_t resume_timeout)
{
    return world_new(start_of(resume_timeout), start_of(resume_timeout));
}

static inline void world_freep(struct world **world)
{
    for (size_t i = 0; i < 2; i++) {
        struct side *side = &(*world)->sides[i];

        workers_stop(&side->workers);
        session_free(side->session);
        workers_clear(&side->workers);
        munmap(side->page, sizeof(*side->page));
        desk_clear(&side->desk);
    }
    for (size_t i = 0; i < (*world)->n_connections; i++)
        close((*world)->connections[i]);
    if ((*world)->qemu >= 0)
        close((*world)->qemu);
    free(*world);
}

#define _cleanup_world_ __attribute__((cleanup(world_freep))) struct world *

/* All connections between the helpers break. */
static inline void world_cuts(struct world *world)
{
    for (size_t i = 0; i < world->n_connections; i++) {
        shutdown(world->connections[i], SHUT_RDWR);
        close(world->connections[i]);
    }
    world->n_connections = 0;
    world_run(world);
}

/* The source's QEMU connects: the test's end. */
static inline int world_adds_qemu(struct world *world)
{
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW}};
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    broker_sends(&world->sides[SOURCE], MESSAGE_QEMU, &m, pair[0]);
    world_run(world);
    return pair[1];
}

static inline void world_sends(struct world *world, int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    world_run(world);
}

static inline void world_receives(struct world *world, int fd, const char *text)
{
    char buf[256] = "";

    world_run(world);
    assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), strlen(text));
    assert_string_equal(buf, text);
}

static inline bool world_is_closed(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static inline void world_ends(struct world *world, enum vf_error source, enum vf_error destination)
{
    WORLD_WAIT(world, world->sides[SOURCE].has_ended && world->sides[DESTINATION].has_ended);
    if (world->sides[SOURCE].error != source || world->sides[DESTINATION].error != destination)
        fail_msg("source: %d %s; destination: %d %s", world->sides[SOURCE].error, world->sides[SOURCE].why,
                 world->sides[DESTINATION].error, world->sides[DESTINATION].why);
}

static inline void broker_ends(struct world *world, size_t side, enum vf_error error)
{
    union message m = {.end = {.error = error, .text = "Cancelled."}};

    broker_sends(&world->sides[side], MESSAGE_END, &m, -1);
    world_run(world);
}

/* QEMU writes all, and both close. */
static inline void finish(struct world *world, int qemu)
{
    shutdown(qemu, SHUT_WR);
    shutdown(world->qemu, SHUT_WR);
    world_run(world);
}
