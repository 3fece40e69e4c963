/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "address.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "message.h"

static void format_inet6(const struct sockaddr_in6 *in6, char ret[static ADDRESS_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";

    /* A dual-stack listener sees IPv4 peers as mapped addresses (RFC 4291, 2.5.5.2); people do not. */
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, host, sizeof(host));
        snprintf(ret, ADDRESS_TEXT_MAX, "tcp:%s:%u", host, ntohs(in6->sin6_port));
        return;
    }
    inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
    if (in6->sin6_scope_id != 0)
        snprintf(ret, ADDRESS_TEXT_MAX, "tcp:[%s%%%u]:%u", host, in6->sin6_scope_id, ntohs(in6->sin6_port));
    else
        snprintf(ret, ADDRESS_TEXT_MAX, "tcp:[%s]:%u", host, ntohs(in6->sin6_port));
}

void address_format(const struct sockaddr_storage *address, socklen_t size, char ret[static ADDRESS_TEXT_MAX])
{
    union {
        struct sockaddr_storage storage;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_vm vm;
    } u = {.storage = *address};
    char host[INET_ADDRSTRLEN] = "?", text[ADDRESS_TEXT_MAX];
    size_t path;

    switch (address->ss_family) {
    case AF_INET:
        inet_ntop(AF_INET, &u.in.sin_addr, host, sizeof(host));
        snprintf(ret, ADDRESS_TEXT_MAX, "tcp:%s:%u", host, ntohs(u.in.sin_port));
        break;
    case AF_INET6:
        format_inet6(&u.in6, ret);
        break;
    case AF_UNIX:
        path =
            size > offsetof(struct sockaddr_un, sun_path) ? size - offsetof(struct sockaddr_un, sun_path) : 0;
        snprintf(text, sizeof(text), "unix:%.*s", (int)strnlen(u.un.sun_path, path), u.un.sun_path);
        message_text_set(ret, ADDRESS_TEXT_MAX, text); /* the peer chooses what its own end is bound to */
        break;
    case AF_VSOCK:
        snprintf(ret, ADDRESS_TEXT_MAX, "vsock:%u:%u", u.vm.svm_cid, u.vm.svm_port);
        break;
    default:
        snprintf(ret, ADDRESS_TEXT_MAX, "unknown");
    }
}

void address_of_peer(int fd, char ret[static ADDRESS_TEXT_MAX])
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);

    if (getpeername(fd, (struct sockaddr *)&address, &size) < 0)
        address.ss_family = AF_UNSPEC;
    address_format(&address, size, ret);
}
