/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flow-rig.h"
#include "tls-client.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <seccomp.h>
#include <sys/epoll.h>

#include "helper/ktls.h"

/* TLS in the kernel, at both ends or at one. Where the kernel has none, all is skipped: tests/vm has one that
 * has. */

/* A pair that has shaken hands; offload: which of the two leave TLS to the kernel. */
static void tls_pair(bool offload_a, bool offload_b, struct carrier **a, struct carrier **b)
{
    int pair[2], r_a, r_b;

    test_tcp_pair(pair);
    *a = make(TLS, pair[0], true, &preamble, key);
    *b = make(TLS, pair[1], false, &preamble, key);
    (*a)->offload = offload_a;
    (*b)->offload = offload_b;
    shake(a, b, &r_a, &r_b);
    assert_int_equal(r_a, 0);
    assert_int_equal(r_b, 0);
    assert_int_equal((*a)->in_kernel, offload_a);
    assert_int_equal((*b)->in_kernel, offload_b);
}

enum { MOST = 700000 };

/* So many bytes from one to the other, in pieces of any size. */
static void carry(struct carrier *from, struct carrier *to, size_t size)
{
    struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct ring out, in;
    uint8_t *data = malloc(MOST);
    uint64_t got = 0;

    assert_int_equal(ring_init(&out, &pool, MOST), 0);
    assert_int_equal(ring_init(&in, &pool, MOST), 0);
    ring_put(&out, 0, size);
    for (int i = 0; i < 100000 && got < size; i++) {
        ssize_t r = ring_unsent(&out) > 0 ? carrier_send(from, &out) : from->ops->flush(from);
        size_t n;

        assert_true(r >= 0 || r == -EAGAIN);
        r = carrier_recv(to, &in, 1 + test_random() % 200000);
        assert_true(r > 0 || r == -EAGAIN);
        n = ring_copy(&in, data, MOST);
        test_expect(data, n, got);
        ring_advance(&in, n);
        ring_release(&in, in.cursor);
        got += n;
    }
    assert_int_equal(got, size);
    free(data);
    ring_clear(&out);
    ring_clear(&in);
}

TEST(test_carries)
{
    static const size_t sizes[] = {1, 100, 4096, 16383, 16384, 16385, 100000, MOST};

    for (int ends = 0; ends < 4; ends++) {
        struct carrier *a, *b;

        tls_pair(ends & 1, ends & 2, &a, &b);
        for (size_t i = 0; i < ELEMENTS(sizes); i++) {
            carry(a, b, sizes[i]);
            carry(b, a, sizes[i]);
        }
        shutdown(a->fd, SHUT_WR);
        carrier_free(a);
        carrier_free(b);
    }
}

/* An end is an EOF, as that of any socket. */
TEST(test_end)
{
    struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct carrier *a, *b;
    struct ring in;
    ssize_t r = -EAGAIN;

    tls_pair(true, true, &a, &b);
    assert_int_equal(ring_init(&in, &pool, 1000), 0);
    carry(a, b, 1000);
    carrier_free(a);
    for (int i = 0; i < 1000 && r == -EAGAIN; i++) {
        usleep(1000);
        r = carrier_recv(b, &in, 1000);
    }
    assert_int_equal(r, 0);
    ring_clear(&in);
    carrier_free(b);
}

/* Only so many records go out under one key. */
TEST(test_limit)
{
    struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct carrier *a, *b;
    struct ring out;

    tls_pair(true, true, &a, &b);
    assert_int_equal(ring_init(&out, &pool, 1000), 0);
    carry(a, b, 16384);
    assert_int_equal(a->records, 5);
    a->records = KTLS_RECORDS_MAX - 1;
    carry(a, b, 1);
    ring_put(&out, 0, 1);
    assert_int_equal(carrier_send(a, &out), -EPROTO);
    assert_int_equal(ring_unsent(&out), 1);
    carry(b, a, 1);
    ring_clear(&out);
    carrier_free(a);
    carrier_free(b);
}

/* ---- A client of GnuTLS's own against our accepting side ---- */

/* Its handshake with our accepting side, which leaves TLS to the kernel. */
static void client_greet(struct client *client, const char *cipher, struct carrier **ret)
{
    int pair[2], r = -EAGAIN, c = GNUTLS_E_AGAIN;
    char priorities[200];

    snprintf(priorities, sizeof(priorities),
             "NONE:+VERS-TLS1.3:+AEAD:+SHA256:+SIGN-ALL:+ECDHE-PSK:+GROUP-X25519:+%s", cipher);
    test_tcp_pair(pair);
    client_init(client, pair[0], priorities, IDENTITY);
    *ret = make(TLS, pair[1], false, &preamble, key);
    (*ret)->offload = true;
    for (int rounds = 0; rounds < 100000 && r == -EAGAIN; rounds++) {
        if (c == GNUTLS_E_AGAIN) {
            c = gnutls_handshake(client->session);
            /* Its first word comes in one piece with the end of its handshake. */
            if (c == 0)
                assert_int_equal(gnutls_record_send(client->session, "hello", 5), 5);
        }
        r = (*ret)->ops->handshake(*ret);
    }
    assert_int_equal(c, 0);
    assert_int_equal(r, 0);
    assert_true((*ret)->in_kernel);
}

/* What comes until there is no more for now; fails where nothing comes for long. */
static ssize_t take(struct carrier *carrier, struct ring *in, size_t expected)
{
    ssize_t r = 1;

    for (int i = 0; i < 100000 && (r == -EAGAIN || r > 0) && in->end < expected; i++)
        r = carrier_recv(carrier, in, 5000);
    return r;
}

TEST(test_ciphers)
{
    static const char *const ciphers[] = {"AES-128-GCM", "CHACHA20-POLY1305"};

    for (size_t i = 0; i < ELEMENTS(ciphers); i++) {
        struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};
        struct client client;
        struct ring ring;
        struct carrier *b;
        char back[10];
        ssize_t r = GNUTLS_E_AGAIN;

        client_greet(&client, ciphers[i], &b);
        assert_int_equal(ring_init(&ring, &pool, 5000), 0);
        assert_int_equal(take(b, &ring, 5), 5);
        assert_int_equal(ring_copy(&ring, back, sizeof(back)), 5);
        assert_memory_equal(back, "hello", 5);
        assert_int_equal(carrier_send(b, &ring), 5);
        for (int n = 0; n < 100000 && r == GNUTLS_E_AGAIN; n++)
            r = gnutls_record_recv(client.session, back, sizeof(back));
        assert_int_equal(r, 5);
        assert_memory_equal(back, "hello", 5);
        ring_clear(&ring);
        client_clear(&client);
        carrier_free(b);
    }
}

/* New keys, a farewell, a false record: the connection is lost, after what came before it. */
TEST(test_what_breaks)
{
    for (int what = 0; what < 3; what++) {
        struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};
        static const uint8_t false_record[] = {23, 3, 3, 0, 20, [24] = 0};
        struct client client;
        struct carrier *b;
        struct ring in;

        client_greet(&client, "AES-128-GCM", &b);
        assert_int_equal(ring_init(&in, &pool, 5000), 0);
        assert_int_equal(take(b, &in, 5), 5);
        if (what == 0)
            assert_int_equal(gnutls_session_key_update(client.session, 0), 0);
        else if (what == 1)
            assert_int_equal(gnutls_bye(client.session, GNUTLS_SHUT_WR), 0);
        else
            assert_int_equal(send(client.fd, false_record, sizeof(false_record), 0), sizeof(false_record));
        gnutls_record_send(client.session, "more", 4);
        assert_int_equal(take(b, &in, 6), -EPROTO);
        assert_int_equal(in.end, 5);
        ring_clear(&in);
        client_clear(&client);
        carrier_free(b);
    }
}

/* ---- The poll ---- */

static void on_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    struct ring *in = userdata;

    (void)revents;
    in->capacity++; /* counts, for there is room */
    carrier_recv(carrier, in, 50000);
    carrier_watch(carrier, EPOLLIN);
}

static size_t turns(sd_event *event, const struct ring *in, uint64_t until)
{
    const size_t before = in->capacity;

    for (int i = 0; i < 1000 && in->end < until; i++)
        if (sd_event_run(event, 300000) == 0)
            break;
    return in->capacity - before;
}

/* As much as is asked for; fails where it does not come. */
static ssize_t recv_whole(int fd, uint8_t *data, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t got = 0;

    while (got < size) {
        ssize_t n;

        assert_int_equal(poll(&p, 1, 10000), 1);
        n = recv(fd, data + got, size - got, 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* A part of a record is nothing to wake up for again and again. */
TEST(test_part_of_a_record)
{
    struct ring_pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct carrier *a, *b;
    struct ring out, in;
    uint8_t wire[20000];
    sd_event *event = NULL;
    int one[2], two[2], r_a = -EAGAIN, r_b = -EAGAIN;
    ssize_t n;

    test_tcp_pair(one);
    test_tcp_pair(two);
    a = make(TLS, one[0], true, &preamble, key);
    b = make(TLS, two[1], false, &preamble, key);
    a->offload = b->offload = true;
    for (int i = 0; i < 100000 && (r_a == -EAGAIN || r_b == -EAGAIN); i++) {
        r_a = r_a == -EAGAIN ? a->ops->handshake(a) : r_a;
        r_b = r_b == -EAGAIN ? b->ops->handshake(b) : r_b;
        if ((n = recv(one[1], wire, sizeof(wire), MSG_DONTWAIT)) > 0)
            assert_int_equal(send(two[0], wire, (size_t)n, 0), n);
        if ((n = recv(two[0], wire, sizeof(wire), MSG_DONTWAIT)) > 0)
            assert_int_equal(send(one[1], wire, (size_t)n, 0), n);
    }
    assert_true(a->in_kernel && b->in_kernel);
    assert_int_equal(ring_init(&out, &pool, 16000), 0);
    assert_int_equal(ring_init(&in, &pool, 50000), 0);
    assert_int_equal(sd_event_new(&event), 0);
    assert_int_equal(carrier_attach(b, event, on_ready, &in), 0);
    carrier_watch(b, EPOLLIN);

    ring_put(&out, 0, 16000);
    assert_int_equal(carrier_send(a, &out), 16000);
    n = recv_whole(one[1], wire, 16000 + 22);
    assert_int_equal(send(two[0], wire, 8000, 0), 8000);
    assert_between(turns(event, &in, 1), 0, 4);
    assert_int_equal(in.end, 0);
    assert_int_equal(send(two[0], wire + 8000, (size_t)n - 8000, 0), n - 8000);
    assert_between(turns(event, &in, 16000), 1, 4);
    assert_int_equal(in.end, 16000);

    /* The same where the other side goes away in the middle. */
    assert_int_equal(send(two[0], wire, 3, 0), 3);
    assert_between(turns(event, &in, UINT64_MAX), 0, 4);
    close(two[0]);
    assert_int_equal(sd_event_run(event, 1000000), 1);
    carrier_free(a);
    carrier_free(b);
    close(one[1]);
    ring_clear(&out);
    ring_clear(&in);
    sd_event_unref(event);
}

/* ---- Spliced ---- */

/* A channel's way there: QEMU, a source's flow that keeps in pipes, the connection, a destination's flow,
 * QEMU. */
struct way {
    struct rig source, destination;
    uint64_t put, got;
};

static void way_connect(struct way *way, bool offload_source, bool offload_destination)
{
    struct flow *out = &way->source.out, *in = &way->destination.in;

    out->to = in->from = NULL;
    carrier_free(way->source.to_peer);
    carrier_free(way->destination.to_peer);
    tls_pair(offload_source, offload_destination, &way->source.to_peer, &way->destination.to_peer);
    assert_null(flow_resume(out, in->ring.end));
    out->to = way->source.to_peer;
    in->from = way->destination.to_peer;
}

static void way_init(struct way *way)
{
    struct keep keep = {0};

    *way = (struct way){0};
    rig_init(&way->source);
    rig_init(&way->destination);
    way->source.pool.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (unsigned i = 0; i < KEEP_PIPES; i++)
        assert_int_equal(keep_add(&keep, rig_pipe(1 << 20)), 0);
    flow_use_pipe(&way->source.out, rig_pipe(1 << 18), 1 << 18, &keep);
    flow_use_pipe(&way->destination.in, rig_pipe(1 << 18), 1 << 18, NULL);
}

/* So much more goes the way, with acknowledgements where acks. */
static void way_carry(struct way *way, size_t size, bool acks)
{
    uint64_t until = way->put + size;

    for (int i = 0; i < 20000 && way->got < until; i++) {
        way->put += put(way->source.qemu, way->put, (size_t)(until - way->put));
        assert_int_equal(pump(&way->source.out, 0), FLOW_OK);
        assert_int_equal(pump(&way->destination.in, 0), FLOW_OK);
        way->got += (uint64_t)get(way->destination.qemu, way->got, SIZE_MAX);
        if (acks)
            assert_null(flow_on_ack(&way->source.out, way->got));
    }
    assert_int_equal(way->got, until);
}

static void way_clear(struct way *way)
{
    close(way->source.pool.null);
    rig_clear(&way->source);
    rig_clear(&way->destination);
}

static bool in_pipe(const struct flow *flow)
{
    return flow->ring.pipe >= 0;
}

TEST(test_spliced)
{
    struct way way;

    way_init(&way);
    way_connect(&way, true, true);
    for (int i = 0; i < 30; i++)
        way_carry(&way, 1 + test_random() % 300000, true);
    assert_true(in_pipe(&way.source.out) && in_pipe(&way.destination.in));
    way_carry(&way, 1000000, false);

    /* Some of it is on its way, in the middle of records, when another connection comes. */
    for (int round = 0; round < 6; round++) {
        way.put += put(way.source.qemu, way.put, 200000);
        assert_int_equal(pump(&way.source.out, 0), FLOW_OK);
        assert_int_equal(pump(&way.destination.in, 0), FLOW_OK);
        way_connect(&way, true, true);
        way_carry(&way, test_random() % 100000, true);
    }
    way_clear(&way);
}

/* A connection of the helper's own TLS takes the place of one of the kernel's, and the other way round. */
TEST(test_pipes_are_left)
{
    struct way way;

    way_init(&way);
    for (int ends = 3; ends >= 0; ends--) {
        way_connect(&way, true, true);
        way_carry(&way, 500000, true);
        way_carry(&way, 500000, true); /* what was in memory is acknowledged by now */
        assert_true(in_pipe(&way.source.out) && in_pipe(&way.destination.in));
        way_carry(&way, 100000, false);
        way.put += put(way.source.qemu, way.put, 50000);
        assert_int_equal(pump(&way.source.out, 0), FLOW_OK);
        way_connect(&way, ends & 1, ends & 2);
        way_carry(&way, 500000, true);
        assert_true((ends & 1) || !in_pipe(&way.source.out));
        assert_true((ends & 2) || !in_pipe(&way.destination.in));
    }
    way_clear(&way);
}

/* ---- A kernel that refuses ---- */

/* From now on this option of setsockopt(2) is refused in this process. */
static void refuse(int level, int name)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    assert_int_equal(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(setsockopt), 2,
                                      SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)level),
                                      SCMP_A2(SCMP_CMP_EQ, (scmp_datum_t)name)),
                     0);
    assert_int_equal(seccomp_load(filter), 0);
    seccomp_release(filter);
}

static void refused(int level, int name, int expected)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct carrier *a, *b;
        int pair[2], r_a, r_b;

        test_tcp_pair(pair);
        a = make(TLS, pair[0], true, &preamble, key);
        b = make(TLS, pair[1], false, &preamble, key);
        a->offload = true;
        refuse(level, name);
        shake(&a, &b, &r_a, &r_b);
        if (r_a != expected || r_b != 0)
            _exit(1);
        if (r_a == 0) {
            if (a->in_kernel)
                _exit(2);
            carry(a, b, 50000);
            carry(b, a, 50000);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

TEST(test_refused)
{
    refused(IPPROTO_TCP, TCP_ULP, 0);
    refused(SOL_TLS, 1, 0);
    refused(SOL_TLS, 2, -ENOTRECOVERABLE);
}

static bool kernel_has_tls(void)
{
    int pair[2];
    bool has;

    test_tcp_pair(pair);
    has = setsockopt(pair[0], IPPROTO_TCP, TCP_ULP, "tls", 4) == 0;
    close(pair[0]);
    close(pair[1]);
    return has;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_carries),     CASE(test_end),
        CASE(test_limit),       CASE(test_ciphers),
        CASE(test_what_breaks), CASE(test_part_of_a_record),
        CASE(test_spliced),     CASE(test_pipes_are_left),
        CASE(test_refused),
    };

    if (!kernel_has_tls()) {
        puts("1..0 # SKIP kernel: no TLS (CONFIG_TLS, and its module loaded)");
        fputs("kernel: no TLS (CONFIG_TLS, and its module loaded)\n", stderr);
        return 0;
    }
    return cmocka_run_group_tests_name("ktls", tests, NULL, NULL);
}
