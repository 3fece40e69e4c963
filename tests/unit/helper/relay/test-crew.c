/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-rig.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>

#include "common/cleanup.h"
#include "helper/relay/crew.h"

/* A relay that a worker has: the first thread only hears what came of it, and waits for no lock to hand an
 * acknowledgement over. */

enum { SLOT = 3, WINDOW = 1 << 20 };

struct rig {
    struct desk desk;
    struct workers workers;
    struct ring_pool pool;
    struct pacer pacer;
    struct stats page;
    struct crew *crew;
    struct relay relay;
    int qemu, peer; /* the test's ends */
    int n_settled, n_owed;
};

static void on_settle(void *userdata, size_t slot)
{
    assert_int_equal(slot, SLOT);
    ((struct rig *)userdata)->n_settled++;
}

static void on_owes_ack(void *userdata, size_t slot)
{
    struct rig *rig = userdata;

    assert_int_equal(slot, SLOT);
    rig->n_owed++;
    relay_tell(&rig->relay);
}

static const struct crew_events events = {.settle = on_settle, .owes_ack = on_owes_ack};

static struct carrier *connect_to(int *ret)
{
    struct carrier *carrier;
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[0], &carrier), 0);
    *ret = pair[1];
    return carrier;
}

static void rig_begin(struct rig *rig)
{
    const struct relay_options options = {
        .pool = &rig->pool, .pacer = &rig->pacer, .window = WINDOW, .page = &rig->page, .slot = SLOT};

    assert_int_equal(relay_init(&rig->relay, &options, 0, 0), 0);
    crew_set_relay(rig->crew, SLOT, &rig->relay);
    relay_set_qemu(&rig->relay, connect_to(&rig->qemu));
    relay_set_peer(&rig->relay, connect_to(&rig->peer), 1);
    assert_int_equal(crew_give(rig->crew, SLOT), 1);
    assert_true(crew_has(rig->crew, SLOT));
}

static void rig_end(struct rig *rig)
{
    struct worker *worker = crew_lock(rig->crew, SLOT);

    relay_close(&rig->relay, STATS_CHANNEL_CLOSED);
    crew_take_back(rig->crew, SLOT);
    worker_unlockp(&worker);
    close(rig->qemu);
    close(rig->peer);
}

static struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    desk_init(&rig->desk);
    rig->workers = (struct workers)WORKERS_NONE;
    workers_start(&rig->workers);
    rig->pool = (struct ring_pool){.lock = PTHREAD_MUTEX_INITIALIZER, .max_free = 4};
    rig->pacer = (struct pacer)PACER_INIT;
    assert_int_equal(crew_new(rig->desk.event, &rig->workers, &events, rig, &rig->crew), 0);
    rig_begin(rig);
    return rig;
}

static void rig_freep(struct rig **rig)
{
    workers_stop(&(*rig)->workers);
    rig_end(*rig);
    crew_free((*rig)->crew);
    workers_clear(&(*rig)->workers);
    ring_pool_clear(&(*rig)->pool);
    desk_clear(&(*rig)->desk);
    free(*rig);
}

#define _cleanup_crew_ __attribute__((cleanup(rig_freep))) struct rig *

/* Without the first thread's loop. */
static void carries(int from, int to, const char *text)
{
    char buf[64] = "";
    size_t n = 0, size = strlen(text);

    assert_int_equal(send(from, text, size, MSG_NOSIGNAL), size);
    while (n < size) {
        struct pollfd arrived = {.fd = to, .events = POLLIN};
        ssize_t r;

        assert_int_equal(poll(&arrived, 1, 20000), 1);
        r = recv(to, buf + n, size - n, 0);
        assert_true(r > 0);
        n += (size_t)r;
    }
    assert_string_equal(buf, text);
}

static void hears(struct rig *rig, const int *count, int least)
{
    while (*count < least)
        assert_true(sd_event_run(rig->desk.event, 10 * 1000000) > 0);
}

/* How much the source still keeps. */
static uint64_t kept(struct rig *rig)
{
    _cleanup_(worker_unlockp) struct worker *locked = crew_lock(rig->crew, SLOT);

    return rig->relay.out.ring.end - rig->relay.out.ring.begin;
}

TEST(a_worker_moves_the_bytes)
{
    _cleanup_crew_ rig = rig_new();

    carries(rig->qemu, rig->peer, "memory");
    assert_int_equal(rig->n_settled, 0);
    shutdown(rig->qemu, SHUT_WR);
    hears(rig, &rig->n_settled, 1); /* its end is to be said */
    assert_int_equal(rig->n_owed, 0);
}

/* What is delivered has to be acknowledged, unless a timer of the first thread's sees to it. */
TEST(it_says_what_is_owed)
{
    _cleanup_crew_ rig = rig_new();

    carries(rig->peer, rig->qemu, "page 7");
    hears(rig, &rig->n_owed, 1);
    assert_int_equal(relay_delivered(&rig->relay), 6);
    assert_int_equal(relay_owed(&rig->relay), 0);
    assert_int_equal(rig->n_settled, 0);
}

TEST(an_acknowledgement_gives_room)
{
    _cleanup_crew_ rig = rig_new();

    carries(rig->qemu, rig->peer, "memory");
    assert_int_equal(kept(rig), 6);
    assert_null(crew_on_ack(rig->crew, SLOT, 4));
    assert_int_equal(kept(rig), 2);
    assert_non_null(crew_on_ack(rig->crew, SLOT, 3)); /* less than before */
    assert_null(crew_on_ack(rig->crew, SLOT, 7));     /* more than was sent: that is its relay's to find */
    assert_non_null(relay_violation(&rig->relay));
    assert_int_equal(rig->n_settled, 2);
}

struct holder {
    struct worker *worker;
    sem_t holds, lets_go;
    pthread_t thread;
};

/* As a worker that encrypts. */
static void *hold(void *userdata)
{
    struct holder *holder = userdata;

    pthread_mutex_lock(&holder->worker->lock);
    sem_post(&holder->holds);
    sem_wait(&holder->lets_go);
    pthread_mutex_unlock(&holder->worker->lock);
    return NULL;
}

static void holder_begin(struct holder *holder, struct rig *rig)
{
    struct worker *worker = crew_lock(rig->crew, SLOT);

    holder->worker = worker;
    worker_unlockp(&worker);
    sem_init(&holder->holds, 0, 0);
    sem_init(&holder->lets_go, 0, 0);
    assert_int_equal(pthread_create(&holder->thread, NULL, hold, holder), 0);
    sem_wait(&holder->holds);
}

static void holder_end(struct holder *holder)
{
    sem_post(&holder->lets_go);
    pthread_join(holder->thread, NULL);
    sem_destroy(&holder->holds);
    sem_destroy(&holder->lets_go);
}

/* The first thread does not wait; what is left there waits for whoever has the lock next. */
TEST(a_busy_worker_is_not_waited_for)
{
    _cleanup_crew_ rig = rig_new();
    struct holder holder;

    carries(rig->qemu, rig->peer, "memory");
    holder_begin(&holder, rig);
    assert_null(crew_on_ack(rig->crew, SLOT, 2));
    assert_null(crew_on_ack(rig->crew, SLOT, 6)); /* both count as one */
    assert_non_null(crew_on_ack(rig->crew, SLOT, 5));
    holder_end(&holder);
    {
        _cleanup_(worker_unlockp) struct worker *locked = crew_lock(rig->crew, SLOT);

        crew_take_ack(rig->crew, SLOT);
    }
    assert_int_equal(kept(rig), 0);
}

/* What waited for it is not of the next channel that has the slot. */
TEST(a_slot_that_is_used_again)
{
    _cleanup_crew_ rig = rig_new();
    struct pollfd told = {.fd = rig->workers.news, .events = POLLIN};
    struct holder holder;

    carries(rig->peer, rig->qemu, "page 7"); /* which is owed */
    assert_int_equal(poll(&told, 1, 20000), 1);
    carries(rig->qemu, rig->peer, "memory");
    holder_begin(&holder, rig);
    assert_null(crew_on_ack(rig->crew, SLOT, 6));
    holder_end(&holder);
    rig_end(rig);
    assert_false(crew_has(rig->crew, SLOT));
    rig_begin(rig);
    desk_run(&rig->desk);
    assert_int_equal(rig->n_owed, 0);
    carries(rig->qemu, rig->peer, "other");
    {
        _cleanup_(worker_unlockp) struct worker *locked = crew_lock(rig->crew, SLOT);

        crew_take_ack(rig->crew, SLOT);
    }
    assert_int_equal(kept(rig), 5);
    assert_null(relay_violation(&rig->relay));
}

TEST(without_workers_nothing_changes)
{
    _cleanup_crew_ rig = rig_new();
    struct workers none = WORKERS_NONE;
    struct crew *crew;

    assert_int_equal(crew_new(rig->desk.event, &none, &events, rig, &crew), 0);
    crew_set_relay(crew, SLOT, &rig->relay);
    assert_int_equal(crew_give(crew, SLOT), 0);
    assert_false(crew_has(crew, SLOT));
    assert_null(crew_lock(crew, SLOT));
    crew_free(crew);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_worker_moves_the_bytes),      CASE(it_says_what_is_owed),
        CASE(an_acknowledgement_gives_room), CASE(a_busy_worker_is_not_waited_for),
        CASE(a_slot_that_is_used_again),     CASE(without_workers_nothing_changes),
    };

    return cmocka_run_group_tests_name("helper-relay-crew", tests, NULL, NULL);
}
