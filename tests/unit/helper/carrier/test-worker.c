/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sandbox-rig.h"

#include "common/cleanup.h"
#include "helper/carrier/raw.h"
#include "helper/carrier/socket.h"
#include "helper/carrier/worker.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

enum { TAG = 17 };

/* What the handler of a case has seen. */
struct seen {
    struct carrier *carrier;
    uint64_t tag;
    pid_t thread;
    unsigned n;
    size_t bytes;
    void (*extra)(void);
};

static void on_ready(struct worker *worker, uint64_t tag, uint32_t revents, void *userdata)
{
    _cleanup_(worker_unlockp) struct worker *locked = worker_lock_own(worker);
    struct seen *seen = userdata;
    uint8_t buf[256];
    struct iovec iov = {buf, sizeof(buf)};
    ssize_t n;

    if (!seen->carrier)
        return;
    seen->tag = tag;
    seen->thread = gettid();
    seen->n++;
    if (seen->extra)
        seen->extra();
    if (revents & EPOLLIN) {
        n = socket_recv(seen->carrier->fd, &iov, 1);
        seen->bytes += n > 0 ? (size_t)n : 0;
    }
    workers_tell(worker->workers);
}

/* Waits until a worker has told something; false when none does. */
static bool await_news(struct workers *workers)
{
    struct pollfd p = {.fd = workers->news, .events = POLLIN};

    if (poll(&p, 1, 10000) != 1)
        return false;
    workers_heard(workers);
    return true;
}

static void give(struct carrier *carrier, struct workers *workers)
{
    struct worker *worker = workers_pick(workers);
    _cleanup_(worker_unlockp) struct worker *locked = worker_lock(worker);

    worker->n++;
    REQUIRE(carrier_attach_worker(carrier, worker, TAG) == 0);
    carrier_watch(carrier, EPOLLIN);
}

static void take_back(struct seen *seen)
{
    _cleanup_(worker_unlockp) struct worker *locked = worker_lock(seen->carrier->worker);

    seen->carrier = carrier_free(seen->carrier);
}

static size_t seen_bytes(struct seen *seen)
{
    _cleanup_(worker_unlockp) struct worker *locked = worker_lock(seen->carrier->worker);

    return seen->bytes;
}

TEST(test_another_thread)
{
    struct workers workers = WORKERS_NONE;
    struct seen seen = {0};
    int pair[2];

    workers_start(&workers);
    assert_between(workers.n, 1, WORKERS_MAX);
    workers_set_handler(&workers, on_ready, &seen);
    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[1], &seen.carrier), 0);
    give(seen.carrier, &workers);
    for (size_t i = 1; i <= 1000; i++) {
        assert_int_equal(send(pair[0], "x", 1, 0), 1);
        while (seen_bytes(&seen) < i)
            assert_true(await_news(&workers));
    }
    assert_int_equal(seen.tag, TAG);
    assert_int_not_equal(seen.thread, gettid());
    take_back(&seen);
    close(pair[0]);
    workers_stop(&workers);
    workers_clear(&workers);
}

/* Nothing is waited for: what a hang-up, which always is told, costs is one turn. */
TEST(test_hang_up_is_told_once)
{
    struct workers workers = WORKERS_NONE;
    struct seen seen = {0};
    int pair[2];

    workers_start(&workers);
    workers_set_handler(&workers, on_ready, &seen);
    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[1], &seen.carrier), 0);
    give(seen.carrier, &workers);
    worker_lock(seen.carrier->worker);
    carrier_watch(seen.carrier, 0);
    worker_unlockp(&seen.carrier->worker);
    close(pair[0]);
    assert_true(await_news(&workers));
    usleep(20000); /* a second turn would have come */
    take_back(&seen);
    assert_int_equal(seen.n, 1);
    workers_stop(&workers);
    workers_clear(&workers);
}

/* Who has least gets the next. */
TEST(test_pick)
{
    struct workers workers = WORKERS_NONE;
    uint32_t most = 0;

    assert_null(workers_pick(&workers));
    workers_start(&workers);
    for (uint32_t i = 0; i < 3 * workers.n; i++)
        workers_pick(&workers)->n++;
    for (uint32_t i = 0; i < workers.n; i++)
        most = workers.all[i].n > most ? workers.all[i].n : most;
    assert_int_equal(most, 3);
    workers_stop(&workers);
    workers_clear(&workers);
}

/* ---- In the sandbox ---- */

static void use_memory(void)
{
    char *p = malloc(1 << 20);

    REQUIRE(p != NULL);
    memset(p, 1, 1 << 20);
    free(p);
}

static void forbidden(void)
{
    syscall(SYS_getppid);
}

static void (*in_worker)(void);

/* Started before the sandbox, as helper_run() does, and at work in it. */
static void use_workers(int fd)
{
    struct workers workers = WORKERS_NONE;
    struct seen seen = {.extra = in_worker};

    workers_start(&workers);
    REQUIRE(workers.n > 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    workers_set_handler(&workers, on_ready, &seen);
    REQUIRE(carrier_raw_new(fd, &seen.carrier) == 0);
    give(seen.carrier, &workers);
    while (seen_bytes(&seen) == 0) {
        uint64_t n;

        (void)!read(workers.news, &n, sizeof(n)); /* poll(2) is not to be had: it comes, or alarm(2) does */
    }
    take_back(&seen);
    workers_stop(&workers);
    workers_clear(&workers);
}

TEST(test_works_in_the_sandbox)
{
    in_worker = use_memory;
    assert_int_equal(in_child(ISOLATED, use_workers), 0);
}

TEST(test_sandbox_holds_workers)
{
    int status;

    in_worker = forbidden;
    status = in_child(ISOLATED, use_workers);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_another_thread),       CASE(test_hang_up_is_told_once),  CASE(test_pick),
        CASE(test_works_in_the_sandbox), CASE(test_sandbox_holds_workers),
    };

    if (skipped_in_valgrind())
        return 0;
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
