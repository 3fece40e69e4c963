/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * pump: the two QEMUs of the bench, as far as a tunnel can tell.
 *
 *   pump source (--listen|--connect) PATH --mib N [--verify]
 *   pump sink   (--listen|--connect) PATH [--verify]
 *
 * The source writes as QEMU's migration thread does (64 buffers a writev: an 8-byte header, a 4096-byte
 * page, …), out of a memory too big for the caches; then it half-closes and waits for the other side's end.
 * The sink reads 32 KiB at a time until the end of the stream, then closes.
 *
 * Each prints one line of JSON: the bytes, the seconds, and both ends of that time on CLOCK_MONOTONIC, so
 * that whoever runs them can take first byte written → last byte read. The source alone can't: not every
 * tunnel passes on a half-close, so its end of the stream proves nothing.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* accept4() */
#endif

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    HEADER_BYTES = 8,
    PAIR_BYTES = PAGE_BYTES + HEADER_BYTES,
    PAIRS_A_CALL = 32, /* QEMU's MAX_IOV_SIZE of 64 buffers: 128.25 KiB a call */
    GUEST_PAGES = 64 * 1024 * 1024 / PAGE_BYTES,
    SINK_READ_BYTES = 32 * 1024, /* QEMU's IO_BUF_SIZE */
};

struct result {
    uint64_t bytes;
    uint64_t start_ns, end_ns; /* first byte written or read; last byte written, or end read */
    uint64_t hash;             /* FNV-1a of the whole stream, 0 unless asked for */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static uint64_t hash_add(uint64_t hash, const void *data, size_t n)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Returns a connected socket, or a negative errno. Listening, it takes one connection and no other. */
static int open_socket(const char *path, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, r;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;

    if (!listens) {
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) >= 0)
            return fd;
        r = -errno;
    } else if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)
        r = -errno;
    else {
        r = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (r < 0)
            r = -errno;
    }

    close(fd);
    return r;
}

static int writev_all(int fd, struct iovec *iov, int n)
{
    while (n > 0) {
        ssize_t written = writev(fd, iov, n);

        if (written < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        while (n > 0 && (size_t)written >= iov->iov_len) {
            written -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + written;
            iov->iov_len -= (size_t)written;
        }
    }
    return 0;
}

/* Pages that differ from each other, written once so that they're really there. */
static uint8_t *guest_memory(void)
{
    size_t size = (size_t)GUEST_PAGES * PAGE_BYTES;
    uint64_t value = 1;
    uint8_t *memory;

    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    for (size_t i = 0; i < size; i += sizeof(value)) {
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(memory + i, &value, sizeof(value));
    }
    return memory;
}

static int wait_for_end(int fd)
{
    uint8_t byte;
    ssize_t n;

    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return -EPROTO; /* the sink never writes */
    return n == 0 || errno == ECONNRESET ? 0 : -errno;
}

static int run_source(int fd, uint64_t mib, bool verify, struct result *ret)
{
    struct result result = {0};
    uint64_t headers[PAIRS_A_CALL];
    struct iovec iov[2 * PAIRS_A_CALL];
    uint64_t pairs = (mib * 1024 * 1024 + PAIR_BYTES - 1) / PAIR_BYTES;
    uint8_t *memory;
    int r;

    memory = guest_memory();
    if (!memory)
        return -ENOMEM;

    result.start_ns = now_ns();
    for (uint64_t page = 0; page < pairs;) {
        int n = 0;

        for (size_t i = 0; i < PAIRS_A_CALL && page < pairs; i++, page++) {
            uint8_t *data = memory + (size_t)(page % GUEST_PAGES) * PAGE_BYTES;

            headers[i] = page;
            iov[n++] = (struct iovec){.iov_base = &headers[i], .iov_len = HEADER_BYTES};
            iov[n++] = (struct iovec){.iov_base = data, .iov_len = PAGE_BYTES};
        }
        for (int i = 0; verify && i < n; i++)
            result.hash = hash_add(result.hash, iov[i].iov_base, iov[i].iov_len);

        r = writev_all(fd, iov, n);
        if (r < 0)
            return r;
    }
    result.bytes = pairs * PAIR_BYTES;
    result.end_ns = now_ns();

    if (shutdown(fd, SHUT_WR) < 0)
        return -errno;
    *ret = result;
    return wait_for_end(fd);
}

static int run_sink(int fd, bool verify, struct result *ret)
{
    static uint8_t buffer[SINK_READ_BYTES];
    struct result result = {0};

    for (;;) {
        ssize_t n = read(fd, buffer, sizeof(buffer));

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (n == 0)
            break;
        if (result.bytes == 0)
            result.start_ns = now_ns();
        if (verify)
            result.hash = hash_add(result.hash, buffer, (size_t)n);
        result.bytes += (uint64_t)n;
    }
    result.end_ns = now_ns();
    *ret = result;
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: pump source|sink (--listen|--connect) PATH [--mib N] [--verify]\n");
    return 2;
}

int main(int argc, char **argv)
{
    bool source, listens = false, verify = false;
    const char *path = NULL;
    unsigned long mib = 64;
    struct result result = {0};
    int fd, r;

    if (argc < 2 || (strcmp(argv[1], "source") != 0 && strcmp(argv[1], "sink") != 0))
        return usage();
    source = strcmp(argv[1], "source") == 0;

    for (int i = 2; i < argc; i++) {
        bool more = i + 1 < argc;

        if (strcmp(argv[i], "--verify") == 0)
            verify = true;
        else if (more && (strcmp(argv[i], "--listen") == 0 || strcmp(argv[i], "--connect") == 0)) {
            listens = strcmp(argv[i], "--listen") == 0;
            path = argv[++i];
        } else if (more && strcmp(argv[i], "--mib") == 0)
            mib = strtoul(argv[++i], NULL, 10);
        else
            return usage();
    }
    if (!path || mib == 0)
        return usage();

    fd = open_socket(path, listens);
    if (fd < 0) {
        fprintf(stderr, "pump: %s: %s\n", path, strerror(-fd));
        return 1;
    }

    r = source ? run_source(fd, mib, verify, &result) : run_sink(fd, verify, &result);
    if (r < 0) {
        fprintf(stderr, "pump: %s %s: %s\n", argv[1], path, strerror(-r));
        return 1;
    }
    close(fd);

    printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.6f, \"start_ns\": %" PRIu64 ", \"end_ns\": %" PRIu64
           ", \"hash\": \"%016" PRIx64 "\"}\n",
           result.bytes, (double)(result.end_ns - result.start_ns) / 1e9, result.start_ns, result.end_ns,
           result.hash);
    return 0;
}
