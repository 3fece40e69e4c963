/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * pump: the two QEMUs of the bench, as far as a tunnel can tell. An ADDRESS is a UNIX socket's path, or
 * tcp:A.B.C.D:PORT.
 *
 *   pump serve ADDRESS [--connections N] [--requests N] [--seconds S] [--verify]
 *   pump stream ADDRESS [--mib N] [--channels N] [--verify]
 *   pump pages ADDRESS
 *
 * `serve` is the destination. It takes N connections; the first 8 bytes of each say what it is.
 *
 * `stream` writes as QEMU's migration thread does (64 buffers a writev: an 8-byte header, a 4096-byte page,
 * …), out of a memory too big for a core's own caches, over each of its channels at once; then it half-closes
 * and waits for the other side's end. The destination reads 32 KiB at a time until the end of the stream,
 * then closes.
 *
 * `pages` is a source in post-copy: it answers each request of 8 bytes with a header and a page. The
 * destination asks for one after the other, --requests times or for --seconds, and tells how long each took.
 *
 * A line of JSON on stdout for each connection that has ended, and one when a stream flows. Times are of
 * CLOCK_MONOTONIC, so that whoever runs both ends can take first byte written → end read: the source alone
 * can't, since not every tunnel passes a half-close on, and so its end of the stream proves nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
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
    READ_BYTES = 32 * 1024, /* QEMU's IO_BUF_SIZE */
    FLOWING_BYTES = 16 * 1024 * 1024,
    UNCOUNTED_REQUESTS = 50,
    CHANNELS_MAX = 64,
};

#define KIND_STREAM "pump:str"
#define KIND_PAGES  "pump:pag"

static struct {
    const char *address;
    uint64_t mib, connections, channels, requests;
    double seconds;
    bool verify;
} options = {.mib = 64, .connections = 1, .channels = 1, .requests = 1000, .seconds = 60};

static uint8_t *memory;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

/* FNV-1a */
static uint64_t hash_add(uint64_t hash, const void *data, size_t n)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* A socket, and what to bind or connect it to; or a negative errno. */
static int make_socket(const char *address, struct sockaddr_storage *ret, socklen_t *ret_size)
{
    struct sockaddr_in *in = (struct sockaddr_in *)ret;
    struct sockaddr_un *un = (struct sockaddr_un *)ret;
    char host[16];
    unsigned port;
    int fd;

    memset(ret, 0, sizeof(*ret));
    if (sscanf(address, "tcp:%15[0-9.]:%u", host, &port) == 2) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
            return -EINVAL;
        *ret_size = sizeof(*in);
    } else {
        if (strlen(address) >= sizeof(un->sun_path))
            return -ENAMETOOLONG;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, address, strlen(address) + 1);
        *ret_size = sizeof(*un);
    }
    fd = socket(ret->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static void set_nodelay(int fd)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
                     sizeof(one)); /* of a UNIX socket it fails, and need not be */
}

static int connect_to(const char *address)
{
    struct sockaddr_storage to;
    socklen_t size;
    int fd = make_socket(address, &to, &size);

    if (fd < 0)
        return fd;
    if (connect(fd, (const struct sockaddr *)&to, size) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    set_nodelay(fd);
    return fd;
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

static int write_number(int fd, uint64_t number)
{
    struct iovec iov = {&number, sizeof(number)};

    return writev_all(fd, &iov, 1);
}

/* 1 when all is there, 0 at an end, or a negative errno. */
static int read_all(int fd, void *data, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, (uint8_t *)data + got, size - got);

        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        got += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

/* Pages that differ from each other, written once so that they're really there. */
static uint8_t *guest_memory(void)
{
    size_t size = (size_t)GUEST_PAGES * PAGE_BYTES;
    uint64_t value = 1;
    uint8_t *made;

    made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return NULL;
    for (size_t i = 0; i < size; i += sizeof(value)) {
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(made + i, &value, sizeof(value));
    }
    return made;
}

static int wait_for_end(int fd)
{
    uint8_t byte;
    ssize_t n;

    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return -EPROTO; /* the other side never writes */
    return n == 0 || errno == ECONNRESET ? 0 : -errno;
}

/* --- the source --- */

struct stream {
    uint64_t pairs;
    uint64_t bytes, start_ns, hash;
    int r;
};

static int stream_pairs(int fd, struct stream *stream)
{
    uint64_t headers[PAIRS_A_CALL];
    struct iovec iov[2 * PAIRS_A_CALL];
    int r;

    for (uint64_t page = 0; page < stream->pairs;) {
        int n = 0;

        for (size_t i = 0; i < PAIRS_A_CALL && page < stream->pairs; i++, page++) {
            uint8_t *data = memory + (size_t)(page % GUEST_PAGES) * PAGE_BYTES;

            headers[i] = page;
            if (page == 0)
                memcpy(&headers[i], KIND_STREAM, sizeof(headers[i]));
            iov[n++] = (struct iovec){.iov_base = &headers[i], .iov_len = HEADER_BYTES};
            iov[n++] = (struct iovec){.iov_base = data, .iov_len = PAGE_BYTES};
        }
        for (int i = 0; options.verify && i < n; i++)
            stream->hash = hash_add(stream->hash, iov[i].iov_base, iov[i].iov_len);
        r = writev_all(fd, iov, n);
        if (r < 0)
            return r;
    }
    stream->bytes = stream->pairs * PAIR_BYTES;
    if (shutdown(fd, SHUT_WR) < 0)
        return -errno;
    return wait_for_end(fd);
}

static void *stream_thread(void *data)
{
    struct stream *stream = data;
    int fd = connect_to(options.address);

    stream->start_ns = now_ns();
    stream->r = fd < 0 ? fd : stream_pairs(fd, stream);
    if (fd >= 0)
        close(fd);
    return NULL;
}

static int run_stream(void)
{
    pthread_t threads[CHANNELS_MAX];
    struct stream streams[CHANNELS_MAX] = {0};
    int r = 0;

    memory = guest_memory();
    if (!memory)
        return -ENOMEM;
    for (size_t i = 0; i < options.channels; i++) {
        streams[i].pairs = (options.mib * 1024 * 1024 / options.channels + PAIR_BYTES - 1) / PAIR_BYTES;
        if (pthread_create(&threads[i], NULL, stream_thread, &streams[i]) != 0)
            return -EAGAIN; /* the process ends, and what runs with it */
    }
    for (size_t i = 0; i < options.channels; i++) {
        pthread_join(threads[i], NULL);
        printf("{\"kind\": \"stream\", \"bytes\": %" PRIu64 ", \"start_ns\": %" PRIu64
               ", \"hash\": \"%016" PRIx64 "\"}\n",
               streams[i].bytes, streams[i].start_ns, streams[i].hash);
        if (streams[i].r < 0)
            r = streams[i].r;
    }
    return r;
}

static int run_pages(void)
{
    uint64_t request;
    int fd, r;

    memory = guest_memory();
    if (!memory)
        return -ENOMEM;
    fd = connect_to(options.address);
    if (fd < 0)
        return fd;
    memcpy(&request, KIND_PAGES, sizeof(request));
    r = write_number(fd, request);
    while (r >= 0 && (r = read_all(fd, &request, sizeof(request))) > 0) {
        struct iovec iov[] = {{&request, HEADER_BYTES},
                              {memory + (request % GUEST_PAGES) * PAGE_BYTES, PAGE_BYTES}};

        r = writev_all(fd, iov, 2);
    }
    close(fd);
    return r == -ECONNRESET || r == -EPIPE ? 0 : r;
}

/* --- the destination --- */

static pthread_mutex_t flowing_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t flowing_changed = PTHREAD_COND_INITIALIZER;
static bool flowing;

static void set_flowing(void)
{
    pthread_mutex_lock(&flowing_mutex);
    flowing = true;
    pthread_cond_broadcast(&flowing_changed);
    pthread_mutex_unlock(&flowing_mutex);
}

static int serve_stream(int fd)
{
    uint64_t bytes = HEADER_BYTES, hash = options.verify ? hash_add(0, KIND_STREAM, HEADER_BYTES) : 0;
    uint8_t buffer[READ_BYTES];

    for (;;) {
        ssize_t n = read(fd, buffer, sizeof(buffer));

        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n < 0)
            continue;
        if (options.verify)
            hash = hash_add(hash, buffer, (size_t)n);
        if (bytes < FLOWING_BYTES && bytes + (uint64_t)n >= FLOWING_BYTES)
            set_flowing();
        bytes += (uint64_t)n;
    }
    printf("{\"kind\": \"stream\", \"bytes\": %" PRIu64 ", \"end_ns\": %" PRIu64 ", \"hash\": \"%016" PRIx64
           "\"}\n",
           bytes, now_ns(), hash);
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static int ask(int fd, const char *state)
{
    uint64_t *took = calloc(options.requests, sizeof(*took));
    uint64_t deadline = now_ns() + (uint64_t)(options.seconds * 1e9);
    uint8_t answer[PAIR_BYTES];
    uint64_t n = 0;
    int r = took ? 1 : -ENOMEM;

    for (uint64_t i = 0; r > 0 && n < options.requests && (n == 0 || now_ns() < deadline); i++) {
        uint64_t request = i * 2654435761U, start = now_ns();

        r = write_number(fd, request);
        if (r >= 0)
            r = read_all(fd, answer, sizeof(answer));
        if (r > 0 && memcmp(answer, &request, sizeof(request)) != 0)
            r = -EBADMSG;
        if (i >= UNCOUNTED_REQUESTS || now_ns() >= deadline)
            took[n++] = now_ns() - start;
    }
    if (r > 0) {
        qsort(took, n, sizeof(*took), compare);
        printf("{\"kind\": \"%s\", \"count\": %" PRIu64
               ", \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n",
               state, n, (double)took[(n - 1) / 2] / 1e3, (double)took[(n - 1) * 99 / 100] / 1e3,
               (double)took[n - 1] / 1e3);
    }
    free(took);
    return r == 0 ? -ECONNRESET : r;
}

/* The tunnel is idle, but for this; then beside a stream, once there is one. */
static int serve_pages(int fd)
{
    int r = ask(fd, "idle");

    if (r > 0 && options.connections > 1) {
        pthread_mutex_lock(&flowing_mutex);
        while (!flowing)
            pthread_cond_wait(&flowing_changed, &flowing_mutex);
        pthread_mutex_unlock(&flowing_mutex);
        r = ask(fd, "busy");
    }
    return r < 0 ? r : 0;
}

static void *serve_thread(void *data)
{
    int fd = (int)(intptr_t)data, r;
    char kind[HEADER_BYTES];

    r = read_all(fd, kind, sizeof(kind));
    if (r == 0)
        r = -ECONNRESET;
    else if (r > 0 && memcmp(kind, KIND_STREAM, sizeof(kind)) == 0)
        r = serve_stream(fd);
    else if (r > 0)
        r = memcmp(kind, KIND_PAGES, sizeof(kind)) == 0 ? serve_pages(fd) : -EBADMSG;
    close(fd);
    if (r < 0)
        printf("{\"kind\": \"error\", \"text\": \"%s\"}\n", strerror(-r));
    return NULL;
}

static int run_serve(void)
{
    struct sockaddr_storage at;
    pthread_t threads[CHANNELS_MAX];
    socklen_t size;
    int one = 1, listener = make_socket(options.address, &at, &size);

    if (listener < 0)
        return listener;
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(listener, (const struct sockaddr *)&at, size) < 0 || listen(listener, CHANNELS_MAX) < 0)
        return -errno;
    for (size_t i = 0; i < options.connections; i++) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            return -errno;
        set_nodelay(fd);
        if (pthread_create(&threads[i], NULL, serve_thread, (void *)(intptr_t)fd) != 0)
            return -EAGAIN;
    }
    close(listener);
    for (size_t i = 0; i < options.connections; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

static bool read_options(int argc, char **argv)
{
    options.address = argv[2];
    for (int i = 3; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--verify") == 0) {
            options.verify = true;
            continue;
        }
        if (!value)
            return false;
        if (strcmp(argv[i], "--mib") == 0)
            options.mib = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--connections") == 0)
            options.connections = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--channels") == 0)
            options.channels = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--requests") == 0)
            options.requests = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            options.seconds = strtod(value, NULL);
        else
            return false;
        i++;
    }
    return options.mib > 0 && options.requests > 0 && options.seconds > 0 && options.channels > 0 &&
           options.channels <= CHANNELS_MAX && options.connections > 0 && options.connections <= CHANNELS_MAX;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } commands[] = {{"serve", run_serve}, {"stream", run_stream}, {"pages", run_pages}};

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; argc > 2 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        int r;

        if (strcmp(argv[1], commands[i].name) != 0 || !read_options(argc, argv))
            continue;
        r = commands[i].run();
        if (r < 0)
            fprintf(stderr, "pump %s %s: %s\n", argv[1], argv[2], strerror(-r));
        return r < 0 ? 1 : 0;
    }
    fprintf(stderr,
            "usage: pump serve|stream|pages ADDRESS [--mib N] [--connections N] [--channels N] "
            "[--requests N] [--seconds S] [--verify]\n");
    return 2;
}
