/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/fd-pass.h"
#include "common/message.h"

#include <sys/resource.h>

/* The table as the header and DESIGN.md have it, written down once more. */
static const struct {
    enum message_type type;
    const char *name;
    enum message_direction direction;
    size_t size;
    size_t n_fds;
    unsigned phases;
} rules[] = {
    {1, "START_RELAY", TO_HELPER, sizeof(struct message_start_relay), 1, PHASE_NEW},
    {2, "START_GATE", TO_HELPER, sizeof(struct message_start_gate), 0, PHASE_NEW},
    {3, "LISTENER", TO_HELPER, sizeof(struct message_listener), 1, PHASE_GATE},
    {4, "REJECT", TO_HELPER, sizeof(struct message_reject), 1, PHASE_GATE},
    {5, "PEER", TO_HELPER, sizeof(struct message_peer), 1, PHASE_RELAY | PHASE_ENDED},
    {6, "PEER_FAILED", TO_HELPER, sizeof(struct message_peer_failed), 0, PHASE_RELAY | PHASE_ENDED},
    {7, "QEMU", TO_HELPER, sizeof(struct message_qemu), 1, PHASE_RELAY | PHASE_ENDED},
    {8, "QEMU_FAILED", TO_HELPER, sizeof(struct message_qemu_failed), 0, PHASE_RELAY | PHASE_ENDED},
    {9, "LIMIT", TO_HELPER, sizeof(struct message_limit), 0, PHASE_RELAY | PHASE_ENDED},
    {10, "END", TO_HELPER, sizeof(struct message_end), 0, PHASE_RELAY | PHASE_ENDED},
    {11, "PIPE", TO_HELPER, sizeof(struct message_pipe), 1, PHASE_RELAY | PHASE_ENDED},
    {12, "SYNC", TO_HELPER, sizeof(struct message_sync), 0, PHASE_RELAY | PHASE_ENDED},
    {13, "HOLD", TO_HELPER, sizeof(struct message_hold), 0, PHASE_RELAY | PHASE_ENDED},
    {14, "OUTCOME", TO_HELPER, sizeof(struct message_outcome), 0, PHASE_RELAY | PHASE_ENDED},
    {15, "OFFER", TO_HELPER, sizeof(struct message_offer), 0, PHASE_RELAY | PHASE_GATE | PHASE_ENDED},
    {16, "PEER_MARKED", TO_HELPER, sizeof(struct message_peer_marked), 1, PHASE_RELAY | PHASE_ENDED},
    {17, "KEEP", TO_HELPER, sizeof(struct message_keep), 1, PHASE_RELAY | PHASE_ENDED},
    {18, "USE", TO_HELPER, sizeof(struct message_use), 0, PHASE_RELAY | PHASE_ENDED},
    {32, "READY", TO_BROKER, sizeof(struct message_ready), 0, PHASE_NEW},
    {33, "ARRIVED", TO_BROKER, sizeof(struct message_arrived), 1, PHASE_GATE},
    {34, "NEED_PEER", TO_BROKER, sizeof(struct message_need_peer), 0, PHASE_RELAY},
    {35, "NEED_QEMU", TO_BROKER, sizeof(struct message_need_qemu), 0, PHASE_RELAY},
    {36, "STATE", TO_BROKER, sizeof(struct message_state_changed), 0, PHASE_RELAY},
    {37, "RESULT", TO_BROKER, sizeof(struct message_result), 0, PHASE_RELAY},
    {38, "LOG", TO_BROKER, sizeof(struct message_log), 0, PHASE_RELAY | PHASE_GATE | PHASE_ENDED},
    {39, "SYNCED", TO_BROKER, sizeof(struct message_synced), 0, PHASE_RELAY},
    {40, "PEER_OUTCOME", TO_BROKER, sizeof(struct message_outcome), 0, PHASE_RELAY},
    {41, "FEATURES", TO_BROKER, sizeof(struct message_features), 0, PHASE_RELAY},
    {42, "ARRIVED_MARKED", TO_BROKER, sizeof(struct message_arrived_marked), 1, PHASE_GATE},
    {43, "KEPT", TO_BROKER, sizeof(struct message_keep), 0, PHASE_RELAY},
};

/* A datagram as somebody who keeps to no table would send it, with n copies of stdin's descriptor. */
static void send_raw(int sock, const void *data, size_t size, size_t n_fds)
{
    union {
        char buf[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[64];

    assert_between(n_fds, 0, 64);
    for (size_t i = 0; i < n_fds; i++)
        fds[i] = STDIN_FILENO;
    if (n_fds > 0) {
        struct cmsghdr *cmsg = &control.align;

        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        *cmsg = (struct cmsghdr){CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
    }
    assert_int_equal(sendmsg(sock, &mh, MSG_NOSIGNAL), (ssize_t)size);
}

static void fill_header(union message *m, uint32_t type)
{
    memset(m, 0, sizeof(*m));
    m->header = (struct message_header){.type = type, .version = MESSAGE_VERSION};
}

/* What recv says; an FD that comes with it is checked and closed, and nothing may stay open. */
static int recv_and_close(int sock, enum message_direction direction, unsigned phase, union message *ret)
{
    size_t before = test_count_fds();
    int fd = -2, r = message_recv(sock, direction, phase, ret, &fd);

    if (r <= 0)
        assert_int_equal(fd, -1);
    if (fd >= 0) {
        int flags = fcntl(fd, F_GETFD);

        assert_true(flags >= 0 && (flags & FD_CLOEXEC));
        close(fd);
    }
    assert_int_equal(test_count_fds(), before);
    return r;
}

TEST(test_names)
{
    for (size_t i = 0; i < ELEMENTS(rules); i++)
        assert_string_equal(message_name(rules[i].type), rules[i].name);
    assert_string_equal(message_name(0), "?");
    assert_string_equal(message_name(19), "?");
    assert_string_equal(message_name(31), "?");
    assert_string_equal(message_name(44), "?");
    assert_string_equal(message_name(UINT32_MAX), "?");
}

TEST(test_round_trip)
{
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t i = 0; i < ELEMENTS(rules); i++) {
        union message m, got;
        int fd = -1;

        memset(&m, 0x5a, sizeof(m));
        assert_int_equal(message_send(pair[0], rules[i].type, &m, rules[i].n_fds > 0 ? STDIN_FILENO : -1), 0);
        assert_int_equal(
            message_recv(pair[1], rules[i].direction, rules[i].phases & -rules[i].phases, &got, &fd), 1);
        assert_int_equal(got.header.type, rules[i].type);
        assert_int_equal(got.header.version, MESSAGE_VERSION);
        assert_memory_equal(&got, &m, rules[i].size);
        for (size_t at = rules[i].size; at < sizeof(got); at++)
            assert_int_equal(((const uint8_t *)&got)[at], 0);
        assert_int_equal(fd >= 0, rules[i].n_fds);
        if (fd >= 0) {
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            close(fd);
        }
    }
    close(pair[0]);
    close(pair[1]);
}

/* Each message in each direction and phase, with 0 to 2 FDs, and a byte more or less: only the table's go
 * through. */
TEST(test_table)
{
    static const unsigned phases[] = {PHASE_NEW, PHASE_RELAY, PHASE_GATE, PHASE_ENDED};
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t i = 0; i < ELEMENTS(rules); i++) {
        for (int direction = TO_HELPER; direction <= TO_BROKER; direction++) {
            for (size_t p = 0; p < ELEMENTS(phases); p++) {
                for (size_t variant = 0; variant < 9; variant++) {
                    size_t n_fds = variant / 3, size = rules[i].size + variant % 3 - 1;
                    bool good = direction == (int)rules[i].direction && (rules[i].phases & phases[p]) &&
                                n_fds == rules[i].n_fds && size == rules[i].size;
                    union {
                        union message m;
                        uint8_t bytes[sizeof(union message) + 1];
                    } u;
                    union message got;

                    fill_header(&u.m, rules[i].type);
                    u.bytes[sizeof(union message)] = 0;
                    send_raw(pair[0], u.bytes, size, n_fds);
                    assert_int_equal(
                        recv_and_close(pair[1], (enum message_direction)direction, phases[p], &got),
                        good ? 1 : -EBADMSG);
                }
            }
        }
    }
    close(pair[0]);
    close(pair[1]);
}

TEST(test_other_sizes)
{
    union message m, got;
    uint8_t *big = calloc(1, 65536);
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t size = 1; size <= sizeof(m); size++) {
        if (size == sizeof(struct message_limit))
            continue;
        fill_header(&m, MESSAGE_LIMIT);
        send_raw(pair[0], &m, size, 0);
        assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EBADMSG);
    }
    fill_header(&m, MESSAGE_PEER);
    memcpy(big, &m, sizeof(m));
    send_raw(pair[0], big, 65536, 1);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EBADMSG);
    free(big);
    close(pair[0]);
    close(pair[1]);
}

TEST(test_unknown_types)
{
    static const uint32_t types[] = {0, 19, 31, 44, 255, 1U << 31, UINT32_MAX};
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t i = 0; i < ELEMENTS(types); i++) {
        union message m, got;

        fill_header(&m, types[i]);
        assert_int_equal(message_send(pair[0], types[i], &m, -1), -EINVAL);
        send_raw(pair[0], &m, sizeof(struct message_limit), i % 2);
        assert_int_equal(recv_and_close(pair[1], i % 2 ? TO_HELPER : TO_BROKER, PHASE_RELAY, &got), -EBADMSG);
        assert_int_equal(got.header.type, types[i]); /* for the log */
    }
    close(pair[0]);
    close(pair[1]);
}

TEST(test_other_version)
{
    static const uint32_t versions[] = {0, MESSAGE_VERSION + 1, UINT32_MAX};
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t i = 0; i < ELEMENTS(versions); i++) {
        union message m, got;

        fill_header(&m, MESSAGE_PEER);
        m.header.version = versions[i];
        send_raw(pair[0], &m, sizeof(struct message_peer), 1);
        assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EBADMSG);
    }
    close(pair[0]);
    close(pair[1]);
}

/* Three to sixty FDs: more than there is room for is MSG_CTRUNC, and what did arrive is closed. */
TEST(test_many_fds)
{
    static const size_t counts[] = {2, 3, 7, 8, 9, 10, 60};
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t i = 0; i < ELEMENTS(counts); i++) {
        union message m, got;

        fill_header(&m, MESSAGE_PEER);
        send_raw(pair[0], &m, sizeof(struct message_peer), counts[i]);
        assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EBADMSG);
    }
    close(pair[0]);
    close(pair[1]);
}

/* The receiver has no descriptor left: the kernel truncates, and that is no bad message. */
TEST(test_no_descriptor_left)
{
    struct rlimit limit, less;
    union message m, got;
    int pair[2], fd = -1, r;

    if (test_in_valgrind())
        skip(); /* it keeps that limit itself, and late */
    test_pair(SOCK_SEQPACKET, 0, pair);
    fill_header(&m, MESSAGE_PEER);
    send_raw(pair[0], &m, sizeof(struct message_peer), 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    less = limit;
    less.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
    r = message_recv(pair[1], TO_HELPER, PHASE_RELAY, &got, &fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(r, -EMFILE);
    assert_int_equal(fd, -1);
    assert_int_equal(got.header.type, MESSAGE_PEER); /* for the log */
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EAGAIN);
    close(pair[0]);
    close(pair[1]);
}

TEST(test_other_control_data)
{
    union message m, got;
    int pair[2];
    const int on = 1;

    test_pair(SOCK_SEQPACKET, 0, pair);
    assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    fill_header(&m, MESSAGE_PEER);
    send_raw(pair[0], &m, sizeof(struct message_peer), 1);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EBADMSG);
    close(pair[0]);
    close(pair[1]);
}

TEST(test_empty_datagram_with_fd)
{
    union message got;
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    send_raw(pair[0], "", 0, 1);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EBADMSG);
    close(pair[0]);
    close(pair[1]);
}

TEST(test_nothing_and_gone)
{
    union message m = {0}, got;
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EAGAIN);
    /* Never blocks, whatever the socket's flags are. */
    assert_int_equal(fcntl(pair[1], F_SETFL, 0), 0);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EAGAIN);
    /* What was sent before the end is still there. */
    assert_int_equal(message_send(pair[0], MESSAGE_LIMIT, &m, -1), 0);
    close(pair[0]);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), 1);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), 0);
    assert_int_equal(message_send(pair[1], MESSAGE_LIMIT, &m, -1), -EPIPE); /* and no SIGPIPE */
    close(pair[1]);
}

TEST(test_peek)
{
    union message m = {.result.error = 3}, got;
    uint32_t type = 99;
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    assert_int_equal(message_peek_type(pair[1], &type), -EAGAIN);
    assert_int_equal(message_send(pair[0], MESSAGE_RESULT, &m, -1), 0);
    /* It stays, as often as it is looked at, and is held against the table each time. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(message_peek_type(pair[1], &type), 1);
        assert_int_equal(type, MESSAGE_RESULT);
        assert_int_equal(message_peek(pair[1], TO_BROKER, PHASE_RELAY, &got), 1);
        assert_int_equal(got.result.error, 3);
        assert_int_equal(message_peek(pair[1], TO_BROKER, PHASE_GATE, &got), -EBADMSG);
    }
    assert_int_equal(recv_and_close(pair[1], TO_BROKER, PHASE_RELAY, &got), 1);
    assert_int_equal(message_peek_type(pair[1], &type), -EAGAIN);
    /* Looking makes no descriptor; the real one is still to be had. */
    assert_int_equal(message_send(pair[0], MESSAGE_ARRIVED, &m, STDIN_FILENO), 0);
    assert_int_equal(message_peek_type(pair[1], &type), 1);
    assert_int_equal(type, MESSAGE_ARRIVED);
    assert_int_equal(message_peek(pair[1], TO_BROKER, PHASE_GATE, &got), -EBADMSG);
    assert_int_equal(recv_and_close(pair[1], TO_BROKER, PHASE_GATE, &got), 1);
    close(pair[0]);
    assert_int_equal(message_peek_type(pair[1], &type), 0);
    close(pair[1]);
}

TEST(test_send_is_checked)
{
    union message m = {0}, got;
    int pair[2];

    test_pair(SOCK_SEQPACKET, 0, pair);
    for (size_t i = 0; i < ELEMENTS(rules); i++)
        assert_int_equal(message_send(pair[0], rules[i].type, &m, rules[i].n_fds > 0 ? -1 : STDIN_FILENO),
                         -EINVAL);
    assert_int_equal(message_send(pair[0], MESSAGE_PEER, &m, 1000), -EBADF);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EAGAIN);
    close(pair[0]);
    close(pair[1]);
}

TEST(test_send_never_blocks)
{
    union message m = {0}, got;
    int pair[2], n = 0, r;

    test_pair(SOCK_SEQPACKET, 4096, pair);
    assert_int_equal(fcntl(pair[0], F_SETFL, 0), 0);
    while ((r = message_send(pair[0], MESSAGE_PEER, &m, STDIN_FILENO)) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    assert_true(n > 0);
    for (; n > 0; n--)
        assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), 1);
    assert_int_equal(recv_and_close(pair[1], TO_HELPER, PHASE_RELAY, &got), -EAGAIN);
    close(pair[0]);
    close(pair[1]);
}

/* The FD is the same file, and the sender keeps its own. */
TEST(test_fd_is_the_same)
{
    union message m = {0}, got;
    int pair[2], pipe_fds[2], fd = -1;
    char byte = 0;

    test_pair(SOCK_SEQPACKET, 0, pair);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(message_send(pair[0], MESSAGE_QEMU, &m, pipe_fds[1]), 0);
    assert_int_equal(message_recv(pair[1], TO_HELPER, PHASE_RELAY, &got, &fd), 1);
    assert_true(fd >= 0 && fd != pipe_fds[1]);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
    assert_int_equal(byte, 'x');
    assert_true(fcntl(pipe_fds[1], F_GETFD) >= 0);
    close(fd);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(pair[0]);
    close(pair[1]);
}

TEST(test_fd_pass)
{
    int pair[2], fds[FD_PASS_MAX + 1], many[FD_PASS_MAX + 1] = {0};
    size_t n_fds = 99;
    char data[8];

    test_pair(SOCK_SEQPACKET, 0, pair);
    assert_int_equal(fd_pass_send(pair[0], "x", 1, many, FD_PASS_MAX + 1), -EINVAL);
    assert_int_equal(fd_pass_send(pair[0], "abc", 3, NULL, 0), 0);
    assert_int_equal(fd_pass_recv(pair[1], 0, data, sizeof(data), fds, &n_fds), 3);
    assert_int_equal(n_fds, 0);
    assert_memory_equal(data, "abc", 3);
    assert_int_equal(fd_pass_send(pair[0], "123456789", 9, many, 1), 0);
    assert_int_equal(fd_pass_recv(pair[1], 0, data, sizeof(data), fds, &n_fds), -EBADMSG);
    assert_int_equal(n_fds, 0);
    assert_int_equal(fd_pass_recv(pair[1], 0, data, sizeof(data), fds, &n_fds), -EAGAIN);
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(fd_pass_recv(-1, 0, data, sizeof(data), fds, &n_fds), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_names),
        CASE(test_round_trip),
        CASE(test_table),
        CASE(test_other_sizes),
        CASE(test_unknown_types),
        CASE(test_other_version),
        CASE(test_many_fds),
        CASE(test_no_descriptor_left),
        CASE(test_other_control_data),
        CASE(test_empty_datagram_with_fd),
        CASE(test_nothing_and_gone),
        CASE(test_peek),
        CASE(test_send_is_checked),
        CASE(test_send_never_blocks),
        CASE(test_fd_is_the_same),
        CASE(test_fd_pass),
    };

    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
