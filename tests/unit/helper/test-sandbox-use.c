/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sandbox-rig.h"

#include "aead-rig.h"

#include "common/message.h"
#include "helper/carrier/plain.h"
#include "helper/carrier/raw.h"
#include "helper/carrier/socket.h"
#include "helper/carrier/tls.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

/* What goes on working. */

static const uint8_t page[8192];

static void use_memory(int fd)
{
    char *p = malloc(1000), *q;

    (void)fd;
    for (size_t size = 1000; size < 64 * 1024 * 1024; size *= 3) {
        q = realloc(p, size);
        REQUIRE(q != NULL);
        p = q;
        memset(p, 1, size);
    }
    free(p);
    p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    REQUIRE(mprotect(p, 4096, PROT_READ) == 0);
    REQUIRE(madvise(p, 1 << 20, MADV_DONTNEED) == 0);
    REQUIRE(munmap(p, 1 << 20) == 0);
}

TEST(test_memory)
{
    assert_int_equal(in_child(RELAY, use_memory), 0);
}

static void use_socket(int fd)
{
    struct timespec now;
    uint8_t byte;
    struct iovec iov = {&byte, 1};

    REQUIRE(getrandom(&byte, 1, 0) == 1);
    REQUIRE(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    REQUIRE(read(fd, &byte, 1) == 1 && byte == 'x');
    REQUIRE(recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    REQUIRE(socket_send(fd, &iov, 1) == 1); /* sendmsg(2): sendto(2) is forbidden */
    REQUIRE(write(fd, "z", 1) == 1);
    REQUIRE(shutdown(fd, SHUT_WR) == 0);
    errno = 0;
    REQUIRE(write(fd, "z", 1) < 0 && errno == EPIPE); /* SIGPIPE is ignored */
    REQUIRE(close(fd) == 0);
}

TEST(test_socket)
{
    assert_int_equal(in_child(RELAY, use_socket), 0);
    assert_int_equal(in_child(GATE, use_socket), 0);
}

static void use_accept(int fd)
{
    REQUIRE(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) <
            0); /* it listens to nobody: an error, but no death */
    REQUIRE(errno == EINVAL);
}

TEST(test_accept)
{
    assert_int_equal(in_child(GATE, use_accept), 0);
    assert_int_equal(in_child(LOCKED, use_accept), 0); /* the role is not known yet */
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    (*(int *)userdata)++;
    return 0;
}

static void on_carrier(struct carrier *carrier, uint32_t revents, void *userdata)
{
    (void)carrier;
    if (revents & EPOLLIN)
        (*(int *)userdata)++;
}

/* A loop made before, with a timer for its timerfd, as helper_run() does; sources come and go after. */
static void use_events(int fd)
{
    sd_event_source *holder = NULL, *timer = NULL;
    struct carrier *carrier = NULL;
    sd_event *event = NULL;
    int timers = 0, inputs = 0;

    REQUIRE(sd_event_new(&event) >= 0);
    REQUIRE(sd_event_add_time(event, &holder, CLOCK_MONOTONIC, UINT64_MAX, 0, NULL, NULL) >= 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    REQUIRE(carrier_raw_new(fd, &carrier) == 0);
    REQUIRE(carrier_attach(carrier, event, on_carrier, &inputs) == 0);
    carrier_watch(carrier, EPOLLIN);
    REQUIRE(sd_event_add_time_relative(event, &timer, CLOCK_MONOTONIC, 20000, 1, on_timer, &timers) >= 0);
    for (int i = 0; i < 1000 && (timers == 0 || inputs == 0); i++) {
        REQUIRE(sd_event_run(event, 1000000) >= 0);
        if (inputs > 0)
            carrier_watch(carrier, 0);
    }
    REQUIRE(timers == 1 && inputs == 1);
    carrier = carrier_free(carrier);
    sd_event_source_unref(timer);
    sd_event_source_unref(holder);
    sd_event_unref(event);
}

TEST(test_events)
{
    assert_int_equal(in_child(ISOLATED, use_events), 0);
}

/* Both securities from the handshake to the last byte: what GnuTLS does first must be possible, too. */
static void use_carriers(int fd)
{
    static const struct preamble preamble = {PEER_CONTROL, 1};
    static const uint8_t key[KEY_SIZE] = {7};
    struct ring_pool pool = {.max_free = 1};
    uint8_t exported[KEY_SIZE];
    int pairs[2][2];

    (void)fd;
    aeads_of_side(true);
    aeads_of_side(false);
    for (int i = 0; i < 2; i++)
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pairs[i]) == 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    for (int tls = 0; tls < 2; tls++) {
        struct carrier *ends[2] = {NULL, NULL};
        int results[2] = {-EAGAIN, -EAGAIN};
        struct ring out, in;

        for (int i = 0; i < 2; i++)
            REQUIRE((tls ? carrier_tls_new(pairs[tls][i], i == 0, &preamble, key, CARRIER_TLS_BUFFER_MIN,
                                           aeads_of_side(i == 0), &ends[i])
                         : carrier_plain_new(pairs[tls][i], i == 0, &preamble, key, &ends[i])) == 0);
        for (int n = 0; n < 20; n++)
            for (int i = 0; i < 2; i++)
                if (results[i] == -EAGAIN)
                    results[i] = ends[i]->ops->handshake(ends[i]);
        REQUIRE(results[0] == 0 && results[1] == 0);
        REQUIRE(ends[0]->ops->export_key(ends[0], exported) == 0);
        REQUIRE(ring_init(&out, &pool, 1 << 20) == 0);
        REQUIRE(ring_init(&in, &pool, 1 << 20) == 0);
        for (int i = 0; i < 16; i++)
            REQUIRE(ring_append(&out, page, sizeof(page)) == 0);
        while (in.end < out.end) {
            ssize_t r = carrier_send(ends[0], &out);

            REQUIRE(r > 0 || r == -EAGAIN);
            r = carrier_recv(ends[1], &in, SIZE_MAX);
            REQUIRE(r > 0 || r == -EAGAIN);
        }
        ring_clear(&out);
        ring_clear(&in);
        carrier_free(ends[0]);
        carrier_free(ends[1]);
    }
    ring_pool_clear(&pool);
}

TEST(test_carriers)
{
    assert_int_equal(in_child(ISOLATED, use_carriers), 0);
}

/* The FD of a message comes in, and a pipe and a sealed page are looked at. */
static void use_messages(int fd)
{
    union message m = {0}, got;
    int pair[2], memory = memfd_create("stats", MFD_CLOEXEC | MFD_ALLOW_SEALING), pipe_fds[2], in = -1;

    (void)fd;
    REQUIRE(memory >= 0);
    REQUIRE(ftruncate(memory, 4096) == 0);
    REQUIRE(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    REQUIRE(message_send(pair[0], MESSAGE_PEER, &m, memory) == 0);
    REQUIRE(message_recv(pair[1], TO_HELPER, PHASE_RELAY, &got, &in) == 1 && in >= 0);
    REQUIRE(fcntl(in, F_GET_SEALS) >= 0);
    REQUIRE(lseek(in, 0, SEEK_END) == 4096);
    REQUIRE(fcntl(pipe_fds[0], F_GETPIPE_SZ) > 0);
    REQUIRE(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, in, 0) != MAP_FAILED);
    REQUIRE(write(pipe_fds[1], "abc", 3) == 3);
    REQUIRE(splice(pipe_fds[0], NULL, fd, NULL, 3, SPLICE_F_NONBLOCK) == 3);
    close(in);
}

TEST(test_messages)
{
    assert_int_equal(in_child(ISOLATED, use_messages), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_memory), CASE(test_socket),   CASE(test_accept),
        CASE(test_events), CASE(test_carriers), CASE(test_messages),
    };

    if (skipped_in_valgrind())
        return 0;
    return cmocka_run_group_tests_name("sandbox-use", tests, NULL, NULL);
}
