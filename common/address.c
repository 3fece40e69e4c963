/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"

/* ---- Address → text ---- */

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
    union any_address u = {.storage = *address};
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

bool address_is_ip(const char *text)
{
    struct in6_addr any;

    return inet_pton(AF_INET, text, &any) == 1 || inet_pton(AF_INET6, text, &any) == 1;
}

void address_of_peer(int fd, char ret[static ADDRESS_TEXT_MAX])
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);

    if (getpeername(fd, (struct sockaddr *)&address, &size) < 0)
        address.ss_family = AF_UNSPEC;
    address_format(&address, size, ret);
}

/* ---- Text → address ---- */

/* A number in decimal, nothing else; false where it is none or above max. */
static bool parse_number(const char *text, uint32_t max, uint32_t *ret)
{
    size_t n = strlen(text);
    unsigned long long v;

    if (n == 0 || n > 10 || strspn(text, "0123456789") != n)
        return false;
    v = strtoull(text, NULL, 10);
    if (v > max)
        return false;
    *ret = (uint32_t)v;
    return true;
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT"; host gets what stands in the brackets. */
static const char *split_host(const char *text, char host[static 64], uint32_t *port, bool *v6)
{
    const char *end;

    *v6 = text[0] == '[';
    if (*v6)
        text++;
    end = *v6 ? strchr(text, ']') : strchrnul(text, ':');
    if (!end || end == text || end - text > 63)
        return "the host is missing or too long; write tcp:192.0.2.1:16520 or tcp:[2001:db8::1]:16520";
    memcpy(host, text, (size_t)(end - text));
    host[end - text] = '\0';
    if (*v6)
        end++;
    if (*end == '\0')
        *port = ENDPOINT_PORT;
    else if (*end != ':' || !parse_number(end + 1, UINT16_MAX, port))
        return "the port is no number up to 65535";
    return NULL;
}

static const char *parse_tcp(const char *text, struct endpoint *ret)
{
    union any_address a = {0};
    char host[64], *scope;
    uint32_t port;
    bool v6;
    const char *why = split_host(text, host, &port, &v6);

    if (why)
        return why;
    ret->any = !v6 && strcmp(host, "*") == 0;
    if (v6 || ret->any) {
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons((uint16_t)port);
        scope = strchr(host, '%');
        if (scope) {
            *scope++ = '\0';
            a.in6.sin6_scope_id = if_nametoindex(scope);
            if (a.in6.sin6_scope_id == 0 && !parse_number(scope, UINT32_MAX, &a.in6.sin6_scope_id))
                return "there is no network interface of that name";
        }
        if (!ret->any && inet_pton(AF_INET6, host, &a.in6.sin6_addr) != 1)
            return "what stands in the brackets is no IPv6 address";
        ret->size = sizeof(a.in6);
    } else {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, host, &a.in.sin_addr) != 1)
            return "the host is no IP address; names are not resolved";
        ret->size = sizeof(a.in);
    }
    ret->address = a.storage;
    return NULL;
}

static const char *parse_unix(const char *text, struct endpoint *ret)
{
    union any_address a = {.un = {.sun_family = AF_UNIX}};

    if (text[0] != '/')
        return "the path is not absolute";
    if (strlen(text) >= sizeof(a.un.sun_path))
        return "the path is longer than 107 bytes";
    if (!message_text_ok(text, strlen(text) + 1))
        return "the path is not printable";
    strcpy(a.un.sun_path, text);
    ret->address = a.storage;
    ret->size = sizeof(a.un);
    return NULL;
}

static const char *parse_vsock(const char *text, struct endpoint *ret)
{
    union any_address a = {.vm = {.svm_family = AF_VSOCK}};
    const char *colon = strchrnul(text, ':');
    char cid[16];

    if (colon - text >= (ptrdiff_t)sizeof(cid))
        return "the CID is no number";
    memcpy(cid, text, (size_t)(colon - text));
    cid[colon - text] = '\0';
    ret->any = strcmp(cid, "*") == 0;
    if (ret->any)
        a.vm.svm_cid = VMADDR_CID_ANY;
    else if (!parse_number(cid, UINT32_MAX - 1, &a.vm.svm_cid))
        return "the CID is no number";
    if (*colon == '\0')
        a.vm.svm_port = ENDPOINT_PORT;
    else if (!parse_number(colon + 1, UINT32_MAX - 1, &a.vm.svm_port))
        return "the port is no number";
    ret->address = a.storage;
    ret->size = sizeof(a.vm);
    return NULL;
}

const char *endpoint_parse(const char *text, struct endpoint *ret)
{
    *ret = (struct endpoint){0};
    if (strlen(text) >= ADDRESS_TEXT_MAX)
        return "it is longer than 127 bytes";
    if (strncmp(text, "tcp:", 4) == 0)
        return parse_tcp(text + 4, ret);
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, ret);
    if (strncmp(text, "vsock:", 6) == 0)
        return parse_vsock(text + 6, ret);
    return "it begins with none of tcp:, unix:, vsock:";
}
