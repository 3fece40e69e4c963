/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/release.c" /* its pool is static, and counted here */
#include "common/fd-pass.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <time.h>

/* Descriptors whose close(2) waits until the test lets go. All cases share the threads of this process. */

enum {
    LIMIT = 256 /* RLIMIT_NOFILE, so half of it can wait */,
    QUICK = 100000 /* µs */,
    USERS = RELEASE_THREADS / RELEASE_SHARE /* that can hold up all threads together */,
    UID = 2000 /* and the ones after it: users of these tests */
};

/* A connection that lingers: what was sent through it the peer never reads. */
struct stuck {
    int fd, peer;
};

static struct stuck stuck_new(void)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 1000000};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
    socklen_t size = sizeof(in);
    static char data[65536];
    struct stuck stuck;

    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &size), 0);
    stuck.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(stuck.fd, (struct sockaddr *)&in, sizeof(in)), 0);
    stuck.peer = accept(listener, NULL, NULL);
    close(listener);
    while (send(stuck.fd, data, sizeof(data), MSG_DONTWAIT) > 0)
        ;
    assert_int_equal(setsockopt(stuck.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    return stuck;
}

/* Its peer has gone: nothing lingers any more. */
static void let_go(const struct stuck *stuck)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    setsockopt(stuck->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    syscall(SYS_close, stuck->peer);
}

/* Descriptors that hang in a close (for longer than a second). */
static size_t hanging(void)
{
    size_t n;

    pthread_mutex_lock(&pool.lock);
    n = pool.n_slow;
    pthread_mutex_unlock(&pool.lock);
    return n;
}

/* And those that wait for a thread. */
static size_t waiting(void)
{
    size_t n;

    pthread_mutex_lock(&pool.lock);
    n = pool.n;
    pthread_mutex_unlock(&pool.lock);
    return n;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

#define WAIT_UNTIL(condition)                                        \
    do {                                                             \
        for (int i_ = 0; !(condition); i_++) {                       \
            if (i_ == 10000)                                         \
                fail_msg("it does not come to this: " #condition);   \
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
        }                                                            \
    } while (0)

/* What was handed over is closed, and the last of it has left its thread. */
static int settled(void **state)
{
    bool open[TEST_FDS];
    size_t n;

    WAIT_UNTIL(waiting() == 0 && hanging() == 0);
    for (int i = 0; i < 1000; i++) {
        n = 0;
        test_list_fds(open);
        for (size_t fd = 0; fd < TEST_FDS; fd++)
            n += open[fd] && !test_fds[fd];
        if (n == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return test_check(state);
}

#define RELEASE_CASE(name) cmocka_unit_test_setup_teardown(name, test_note, settled)

TEST(a_close_that_hangs_holds_nothing_up)
{
    struct stuck stuck = stuck_new();
    uint64_t begun = exact_now();

    assert_int_equal(close(stuck.fd), 0);
    assert_true(exact_now() - begun < QUICK);
    WAIT_UNTIL(hanging() == 1);
    assert_false(release_is_stuck());
    let_go(&stuck);
    WAIT_UNTIL(hanging() == 0);
}

TEST(so_does_one_in_the_queue_of_another)
{
    struct stuck stuck = stuck_new();
    uint64_t begun;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(fd_pass_send(pair[0], "x", 1, &stuck.fd, 1), 0);
    close(pair[0]);
    close(stuck.fd);
    WAIT_UNTIL(!is_open(stuck.fd) && !is_open(pair[0]));
    assert_int_equal(hanging(), 0);
    begun = exact_now();
    close(pair[1]);
    assert_true(exact_now() - begun < QUICK);
    WAIT_UNTIL(hanging() == 1);
    let_go(&stuck);
}

/* ---- What libsystemd closes ---- */

static sd_bus *bus_end(int fd, bool server)
{
    sd_id128_t id = SD_ID128_MAKE(01, 02, 03, 04, 05, 06, 07, 08, 09, 0a, 0b, 0c, 0d, 0e, 0f, 10);
    sd_bus *bus;

    assert_true(sd_bus_new(&bus) >= 0);
    assert_true(sd_bus_set_fd(bus, fd, fd) >= 0);
    assert_true(sd_bus_negotiate_fds(bus, true) >= 0);
    assert_true(!server || sd_bus_set_server(bus, true, id) >= 0);
    assert_true(sd_bus_set_anonymous(bus, true) >= 0);
    assert_true(sd_bus_start(bus) >= 0);
    return bus;
}

static void process(sd_bus *a, sd_bus *b)
{
    uint64_t begun = exact_now();

    for (int quiet = 0; quiet < 20;) {
        int r = sd_bus_process(a, NULL), s = sd_bus_process(b, NULL);

        assert_true(r >= 0 && s >= 0);
        quiet = r == 0 && s == 0 ? quiet + 1 : 0;
    }
    assert_true(exact_now() - begun < 10 * QUICK);
}

TEST(what_a_message_to_nothing_brings_is_closed_by_them)
{
    struct stuck stuck = stuck_new();
    sd_bus_message *m;
    sd_bus *ours, *theirs;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    ours = bus_end(pair[0], true);
    theirs = bus_end(pair[1], false);
    process(ours, theirs);
    assert_true(sd_bus_message_new_method_call(theirs, &m, "org.vmferry.Broker1", "/nothing", "a.b", "C") >=
                0);
    assert_true(sd_bus_message_append(m, "h", stuck.fd) >= 0); /* a copy */
    assert_true(sd_bus_send(theirs, m, NULL) >= 0);
    sd_bus_flush(theirs);
    sd_bus_message_unref(m);
    close(stuck.fd);
    process(ours, theirs); /* "no such object" */
    WAIT_UNTIL(hanging() == 1);
    sd_bus_close_unref(theirs);
    sd_bus_close_unref(ours);
    let_go(&stuck);
}

/* ---- Bounds ---- */

/* On behalf of n users after each other, each as many as may hang of one. */
static void fill(struct stuck *stuck, size_t n)
{
    for (size_t i = 0; i < n * RELEASE_SHARE; i++)
        stuck[i] = stuck_new();
    for (size_t i = 0; i < n * RELEASE_SHARE; i++) {
        release_charge(UID + (uid_t)(i / RELEASE_SHARE));
        close(stuck[i].fd);
    }
    release_charge(RELEASE_NOBODY);
}

static bool is_closed_within(int fd, int ms)
{
    for (; ms > 0 && is_open(fd); ms--)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return !is_open(fd);
}

TEST(one_user_holds_up_nobody_else)
{
    struct stuck stuck[RELEASE_SHARE + 20];
    const size_t n = ELEMENTS(stuck);
    int theirs = open("/dev/null", O_RDONLY), others = open("/dev/null", O_RDONLY),
        ours = open("/dev/null", O_RDONLY);

    for (size_t i = 0; i < n; i++)
        stuck[i] = stuck_new();
    release_charge(UID);
    for (size_t i = 0; i < n; i++)
        close(stuck[i].fd);
    close(theirs);
    WAIT_UNTIL(hanging() == RELEASE_SHARE);
    assert_int_equal(waiting(), n - RELEASE_SHARE + 1);
    assert_true(release_is_stuck());
    release_charge(UID + 1);
    assert_false(release_is_stuck());
    close(others);
    release_charge(RELEASE_NOBODY);
    assert_false(release_is_stuck());
    close(ours);
    assert_true(is_closed_within(others, 4000));
    assert_true(is_closed_within(ours, 4000));
    assert_true(is_open(theirs));
    assert_int_equal(hanging(), RELEASE_SHARE);
    for (size_t i = 0; i < n; i++)
        let_go(&stuck[i]);
    assert_true(is_closed_within(theirs, 4000));
}

TEST(a_socket_is_its_makers_or_its_peers)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX}; /* one is made up */
    struct stuck stuck[RELEASE_SHARE];
    int listener, of_maker, to_listener, of_peer;
    socklen_t size = sizeof(name);

    if (geteuid() != 0) /* only root can be others */
        return;
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&name, &size), 0);
    for (size_t i = 0; i < RELEASE_SHARE; i++)
        stuck[i] = stuck_new();
    assert_int_equal(syscall(SYS_setresuid, -1, UID, -1), 0); /* of this thread alone */
    of_maker = socket(AF_INET, SOCK_STREAM, 0);
    to_listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(to_listener, (struct sockaddr *)&name, size), 0);
    assert_int_equal(syscall(SYS_setresuid, -1, 0, -1), 0);
    of_peer = accept(listener, NULL, NULL);
    release_charge(UID);
    for (size_t i = 0; i < RELEASE_SHARE; i++)
        close(stuck[i].fd);
    WAIT_UNTIL(release_is_stuck());
    release_charge(RELEASE_NOBODY);
    close(of_maker);
    close(of_peer);
    close(listener); /* the broker's own */
    assert_true(is_closed_within(listener, 4000));
    assert_int_equal(waiting(), 2);
    assert_true(is_open(of_maker) && is_open(of_peer));
    for (size_t i = 0; i < RELEASE_SHARE; i++)
        let_go(&stuck[i]);
    assert_true(is_closed_within(of_maker, 4000) && is_closed_within(of_peer, 4000));
    close(to_listener);
}

TEST(more_users_than_shares)
{
    struct stuck stuck[RELEASE_SHARE];
    int null[100];

    fill(stuck, 1);
    WAIT_UNTIL(hanging() == RELEASE_SHARE);
    for (size_t i = 0; i < ELEMENTS(null); i++)
        null[i] = open("/dev/null", O_RDONLY);
    for (size_t i = 0; i < ELEMENTS(null); i++) {
        release_charge(UID + 1 + (uid_t)i);
        close(null[i]);
    }
    release_charge(RELEASE_NOBODY);
    for (size_t i = 0; i < ELEMENTS(null); i++)
        assert_true(is_closed_within(null[i], 4000));
    for (size_t i = 0; i < RELEASE_SHARE; i++)
        let_go(&stuck[i]);
}

TEST(where_all_hang_the_others_wait)
{
    struct stuck stuck[RELEASE_THREADS];
    int pair[2];

    fill(stuck, USERS);
    WAIT_UNTIL(release_is_stuck());
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    close(pair[0]);
    assert_int_equal(waiting(), 1);
    assert_true(is_open(pair[0]));
    let_go(&stuck[0]);
    WAIT_UNTIL(!is_open(pair[0]));
    assert_false(release_is_stuck());
    close(pair[1]);
    for (size_t i = 1; i < RELEASE_THREADS; i++)
        let_go(&stuck[i]);
}

TEST(too_many_that_wait_end_the_process)
{
    struct stuck stuck[RELEASE_THREADS];
    int null[LIMIT / 2 + 1];
    sigset_t term;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    fill(stuck, USERS);
    WAIT_UNTIL(release_is_stuck() && waiting() == 0);
    for (size_t i = 0; i < ELEMENTS(null); i++)
        null[i] = open("/dev/null", O_RDONLY);
    for (size_t i = 0; i < ELEMENTS(null) - 1; i++)
        close(null[i]);
    assert_int_equal(waiting(), LIMIT / 2);
    assert_int_equal(sigtimedwait(&term, NULL, &(struct timespec){0}), -1);
    assert_int_equal(close(null[LIMIT / 2]), 0); /* it has not waited, either */
    assert_int_equal(sigtimedwait(&term, NULL, &(struct timespec){0}), SIGTERM);
    assert_true(is_open(null[LIMIT / 2]));
    for (size_t i = 0; i < RELEASE_THREADS; i++)
        let_go(&stuck[i]);
    WAIT_UNTIL(waiting() == 0);
    close(null[LIMIT / 2]);
}

/* ---- Others first ---- */

TEST(a_close_waits_for_its_barrier)
{
    int barrier[2], pair[2];
    char byte;

    assert_int_equal(pipe(barrier), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    release_after(pair[0], barrier[0]);
    WAIT_UNTIL(waiting() == 0); /* a thread has it */
    assert_int_equal(recv(pair[1], &byte, 1, MSG_DONTWAIT), -1);
    assert_true(is_open(pair[0]));
    syscall(SYS_close, barrier[1]);
    assert_int_equal(poll(&(struct pollfd){.fd = pair[1], .events = POLLIN}, 1, 4000), 1);
    assert_int_equal(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
    close(pair[1]);
}

TEST(what_is_not_open_is_not_closed)
{
    assert_int_equal(close(-1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(close(LIMIT + 1), -1);
    assert_int_equal(errno, EBADF);
}

static int start(void **state)
{
    const struct rlimit limit = {LIMIT, LIMIT};
    const size_t n = test_count_fds();
    sigset_t term;
    int r;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    setrlimit(RLIMIT_NOFILE, &limit);
    r = release_start();
    WAIT_UNTIL(test_count_fds() == n); /* that with which it tried libsystemd */
    return r;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RELEASE_CASE(a_close_that_hangs_holds_nothing_up),
        RELEASE_CASE(so_does_one_in_the_queue_of_another),
        RELEASE_CASE(what_a_message_to_nothing_brings_is_closed_by_them),
        RELEASE_CASE(one_user_holds_up_nobody_else),
        RELEASE_CASE(a_socket_is_its_makers_or_its_peers),
        RELEASE_CASE(more_users_than_shares),
        RELEASE_CASE(where_all_hang_the_others_wait),
        RELEASE_CASE(too_many_that_wait_end_the_process),
        RELEASE_CASE(a_close_waits_for_its_barrier),
        RELEASE_CASE(what_is_not_open_is_not_closed),
    };

    /* Under valgrind threads take turns, so that one that hangs in close(2) holds up the others. */
    if (test_in_valgrind() && puts("1..0 # SKIP in valgrind") >= 0)
        return 0;
    return cmocka_run_group_tests(tests, start, NULL);
}
