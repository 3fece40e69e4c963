/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/net/endpoint.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/config/config.h"
#include "broker/net/ticket.h"
#include "common/cleanup.h"
#include "common/fd-pass.h"

enum {
    BACKLOG = 512,
    RECEIVE_WINDOW = DEFAULT_WINDOW_MIB << 20, /* bytes: of a channel so much may be under way */
};

void endpoint_tune(int fd)
{
    const int on = 1, idle = 10, interval = 5, count = 3, window = RECEIVE_WINDOW;

    /* Errors are not looked at: a socket that is not TCP has no such options, and needs none. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    /*
     * The receive buffer begins at 128 KiB. Linux lets it grow by what the program read within a round trip,
     * less what is still unread: with what 6.16 to 6.18 subtract (tcp_rcv_space_adjust()), it stays small
     * where all of a round trip's data lies there when the helper comes to read, as in TLS over a distance.
     * SO_RCVBUF would end the growth; SO_RCVLOWAT enlarges the buffer (up to half of tcp_rmem's most) and
     * leaves it on, and the buffer stays when the mark is taken back.
     */
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &window, sizeof(window));
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &on, sizeof(on));
    socket_refuse_descriptors(fd);
}

void endpoint_tune_control(int fd)
{
    const unsigned give_up = 20000; /* ms */

    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &give_up, sizeof(give_up));
}

/* Removes a UNIX socket that no process listens on any more. */
static bool remove_stale(const struct endpoint *endpoint)
{
    union any_address a = {.storage = endpoint->address};
    struct stat st;
    _cleanup_fd_ int fd = -1;

    if (a.any.sa_family != AF_UNIX || lstat(a.un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, &a.any, endpoint->size) >= 0 || errno != ECONNREFUSED)
        return false;
    return unlink(a.un.sun_path) >= 0;
}

int endpoint_listen(const struct endpoint *endpoint)
{
    union any_address a = {.storage = endpoint->address};
    const int on = 1, off = 0;
    _cleanup_fd_ int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = endpoint->size;

    /* Without IPv6 in the kernel, all addresses are those of IPv4. */
    if (fd < 0 && errno == EAFNOSUPPORT && a.any.sa_family == AF_INET6 && endpoint->any) {
        in_port_t port = a.in6.sin6_port;

        a = (union any_address){.in = {.sin_family = AF_INET, .sin_port = port}};
        size = sizeof(a.in);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    if (fd < 0)
        return -errno;
    socket_refuse_descriptors(fd); /* so do those that it accepts */
    if (a.any.sa_family == AF_INET || a.any.sa_family == AF_INET6)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a.any.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, endpoint->any ? &off : &on, sizeof(on));
    if (bind(fd, &a.any, size) < 0) {
        if (errno != EADDRINUSE)
            return -errno;
        if (!remove_stale(endpoint) || bind(fd, &a.any, size) < 0)
            return -EADDRINUSE;
    }
    if (listen(fd, BACKLOG) < 0)
        return -errno;
    return fd_steal(&fd);
}

bool endpoint_listens(int fd)
{
    const short ended =
        POLLHUP | POLLRDHUP | POLLERR; /* a UNIX listener that was shut down keeps SO_ACCEPTCONN */
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    int listens = 0;
    socklen_t size = sizeof(listens);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) >= 0 && listens != 0 &&
           poll(&p, 1, 0) >= 0 && !(p.revents & ended);
}

void endpoint_of_listener(int fd, struct endpoint *ret)
{
    union any_address a = {0};
    socklen_t size = sizeof(a), int_size = sizeof(int);
    int only_v6 = 1;

    *ret = (struct endpoint){0};
    if (getsockname(fd, &a.any, &size) < 0)
        return;
    ret->address = a.storage;
    ret->size = size;
    ret->any = a.any.sa_family == AF_INET6 &&
               getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, &int_size) >= 0 && only_v6 == 0;
}

int endpoint_connect(const struct endpoint *endpoint)
{
    union any_address a = {.storage = endpoint->address};
    _cleanup_fd_ int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    endpoint_tune(fd);
    if (connect(fd, &a.any, endpoint->size) < 0 && errno != EINPROGRESS)
        return -errno;
    return fd_steal(&fd);
}

int endpoint_connected(int fd)
{
    union any_address a = {0};
    socklen_t size = sizeof(a), int_size = sizeof(int);
    int error = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &int_size) < 0)
        return -errno;
    if (error != 0)
        return -error;
    if (getpeername(fd, &a.any, &size) < 0)
        return -errno;
    if (a.any.sa_family != AF_INET && a.any.sa_family != AF_INET6)
        return 0; /* the kernel has marked it already */
    return connect(fd, &a.any, size) < 0 && errno != EISCONN ? -errno : 0;
}

static void freeifaddrsp(struct ifaddrs **list)
{
    freeifaddrs(*list);
}

/* Whether an interface's address is one that peers may try. */
static bool is_reachable(const struct ifaddrs *ifa, int family, bool loopback)
{
    const struct sockaddr_in6 *in6;

    if (!ifa->ifa_addr || !(ifa->ifa_flags & IFF_UP) || !(ifa->ifa_flags & IFF_LOOPBACK) == loopback)
        return false;
    if (ifa->ifa_addr->sa_family == AF_INET)
        return true;
    if (ifa->ifa_addr->sa_family != AF_INET6 || family != AF_INET6)
        return false;
    in6 = (const void *)ifa->ifa_addr;
    return !IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr); /* means nothing on another host */
}

/* This host's address in vsock(7). */
static bool own_cid(unsigned *ret)
{
    _cleanup_fd_ int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);

    return fd >= 0 && ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, ret) >= 0 && *ret != VMADDR_CID_ANY;
}

/* Whether two addresses are the same but for the port. */
static bool is_same_host(const union any_address *a, const struct sockaddr *b)
{
    const struct sockaddr_in *in = (const void *)b;
    const struct sockaddr_in6 *in6 = (const void *)b;

    if (!b || a->any.sa_family != b->sa_family)
        return false;
    if (b->sa_family == AF_INET)
        return a->in.sin_addr.s_addr == in->sin_addr.s_addr;
    return b->sa_family == AF_INET6 && IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &in6->sin6_addr);
}

/* The interface by which this host reaches the internet, by the routes as they are: a socket that is
 * connected there has its address, and sends nothing. NULL: there is none. */
static const char *default_interface(const struct ifaddrs *list, int family)
{
    /* Of the documentation's networks (RFC 5737, RFC 3849): no route leads there but the default one. */
    union any_address a = {0};
    _cleanup_fd_ int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = family == AF_INET ? sizeof(a.in) : sizeof(a.in6);

    a.any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        a.in.sin_addr.s_addr = htonl(0xc0000201);
        a.in.sin_port = htons(9);
    } else {
        a.in6.sin6_addr = (struct in6_addr){{{0x20, 0x01, 0x0d, 0xb8, [15] = 1}}};
        a.in6.sin6_port = htons(9);
    }
    if (fd < 0 || connect(fd, &a.any, size) < 0 || getsockname(fd, &a.any, &size) < 0)
        return NULL;
    for (const struct ifaddrs *ifa = list; ifa; ifa = ifa->ifa_next)
        if (is_same_host(&a, ifa->ifa_addr))
            return ifa->ifa_name;
    return NULL;
}

static bool is_named(const struct ifaddrs *ifa, const char *name)
{
    return name && strcmp(ifa->ifa_name, name) == 0;
}

static void leave_out(struct endpoints_left *left, const char *name)
{
    size_t n = strlen(left->names);

    left->n++;
    if (n + strlen(name) + 2 < sizeof(left->names))
        snprintf(left->names + n, sizeof(left->names) - n, "%s%s", n > 0 ? " " : "", name);
}

/* The address of an interface, with a listener's port. */
static void write_one(const struct ifaddrs *ifa, const union any_address *listener,
                      char ret[static ADDRESS_TEXT_MAX])
{
    union any_address a = {0};
    socklen_t size = ifa->ifa_addr->sa_family == AF_INET ? sizeof(a.in) : sizeof(a.in6);

    memcpy(&a, ifa->ifa_addr, size);
    if (a.any.sa_family == AF_INET)
        a.in.sin_port = listener->in.sin_port; /* at the same place in both */
    else
        a.in6.sin6_port = listener->in6.sin6_port;
    address_format(&a.storage, size, ret);
}

/* The interface that has this address; NULL: none. */
static const char *interface_of(const struct ifaddrs *list, const char *address)
{
    union any_address in = {.in.sin_family = AF_INET}, in6 = {.in6.sin6_family = AF_INET6};
    bool is_in = address && inet_pton(AF_INET, address, &in.in.sin_addr) == 1;
    bool is_in6 = address && inet_pton(AF_INET6, address, &in6.in6.sin6_addr) == 1;

    for (const struct ifaddrs *ifa = list; (is_in || is_in6) && ifa; ifa = ifa->ifa_next)
        if (is_same_host(is_in ? &in : &in6, ifa->ifa_addr))
            return ifa->ifa_name;
    return NULL;
}

/* The order in which the interfaces are announced. */
enum rank { RANK_NEAR, RANK_DEFAULT, RANK_OTHER, RANK_LOOPBACK, N_RANKS };

static size_t announce_all(const struct ifaddrs *list, const union any_address *listener, const char *near,
                           char (*ret)[ADDRESS_TEXT_MAX], size_t max, struct endpoints_left *left)
{
    const char *by = interface_of(list, near);
    const char *in = default_interface(list, AF_INET), *in6 = default_interface(list, AF_INET6);
    size_t n = 0;

    for (enum rank rank = 0; rank < N_RANKS && (rank < RANK_LOOPBACK || n == 0); rank++) {
        for (const struct ifaddrs *ifa = list; ifa; ifa = ifa->ifa_next) {
            char text[ADDRESS_TEXT_MAX];

            if (!is_reachable(ifa, listener->any.sa_family, rank == RANK_LOOPBACK) ||
                (rank < RANK_LOOPBACK && rank != (is_named(ifa, by)                         ? RANK_NEAR
                                                  : is_named(ifa, in) || is_named(ifa, in6) ? RANK_DEFAULT
                                                                                            : RANK_OTHER)))
                continue;
            write_one(ifa, listener, text);
            if (n < max)
                memcpy(ret[n++], text, sizeof(text));
            else if (left)
                leave_out(left, text);
        }
    }
    return n;
}

size_t endpoint_announce(int listener, const char *near, char (*ret)[ADDRESS_TEXT_MAX], size_t max,
                         struct endpoints_left *left)
{
    union any_address a = {0};
    socklen_t size = sizeof(a);
    _cleanup_(freeifaddrsp) struct ifaddrs *list = NULL;
    bool any;

    if (max == 0 || getsockname(listener, &a.any, &size) < 0)
        return 0;
    any = (a.any.sa_family == AF_INET && a.in.sin_addr.s_addr == INADDR_ANY) ||
          (a.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a.in6.sin6_addr));
    if (a.any.sa_family == AF_VSOCK && a.vm.svm_cid == VMADDR_CID_ANY && !own_cid(&a.vm.svm_cid))
        return 0;
    if (!any) {
        address_format(&a.storage, size, ret[0]);
        return 1;
    }
    return getifaddrs(&list) < 0 ? 0 : announce_all(list, &a, near, ret, max, left);
}

enum place { ELSEWHERE, OWN_ADDRESS, OWN_PATH };

/* An address is this host's own where a socket can be bound to it. */
static enum place place_of(const char *text)
{
    _cleanup_fd_ int fd = -1;
    struct endpoint endpoint;
    union any_address a;

    if (endpoint_parse(text, &endpoint) || endpoint.any)
        return ELSEWHERE;
    a = (union any_address){.storage = endpoint.address};
    if (a.any.sa_family == AF_UNIX)
        return OWN_PATH;
    if (a.any.sa_family != AF_INET && a.any.sa_family != AF_INET6)
        return ELSEWHERE;
    a.in.sin_port = 0; /* any; at the same place in both */
    fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && bind(fd, &a.any, endpoint.size) >= 0 ? OWN_ADDRESS : ELSEWHERE;
}

size_t endpoint_remove_own(char (*endpoints)[ADDRESS_TEXT_MAX], size_t n)
{
    enum place places[TICKET_ENDPOINTS_MAX];
    size_t others = 0, kept = 0;

    assert(n <= TICKET_ENDPOINTS_MAX);
    for (size_t i = 0; i < n; i++) {
        places[i] = place_of(endpoints[i]);
        others += places[i] == ELSEWHERE;
    }
    if (others == 0)
        return n;
    for (size_t i = 0; i < n; i++)
        if (places[i] != OWN_ADDRESS)
            memmove(endpoints[kept++], endpoints[i], ADDRESS_TEXT_MAX);
    return kept;
}
