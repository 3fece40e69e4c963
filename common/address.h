/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How an address is written everywhere in vmferry: tcp:192.0.2.1:16520, tcp:[2001:db8::1]:16520, unix:/path,
 * vsock:3:16520. */

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDRESS_TEXT_MAX 128   /* bytes, the NUL included; holds any of them */
#define ENDPOINT_PORT    16520 /* where a text names no port */

/* An address of any family that there is here. */
union any_address {
    struct sockaddr_storage storage;
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    struct sockaddr_vm vm;
};

/* An address to listen on or to dial. */
struct endpoint {
    struct sockaddr_storage address;
    socklen_t size;
    bool any; /* all local addresses: only for listening */
};

/* Writes the address, printable (message_text_ok()); "unknown" for a family that is none of ours, "unix:" for
 * an unnamed UNIX socket. */
void address_format(const struct sockaddr_storage *address, socklen_t size,
                    char ret[static ADDRESS_TEXT_MAX]);

/* The other end of a connected socket, in the same way. */
void address_of_peer(int fd, char ret[static ADDRESS_TEXT_MAX]);

/* Whether it is an IPv4 or IPv6 address in numbers, without a port or a scope. */
bool address_is_ip(const char *text);

/*
 * Reads an address. Names are never resolved. For listening there are also tcp:*:PORT (all addresses, IPv4
 * and IPv6) and vsock:*:PORT. NULL, or what is wrong with the text (static).
 */
const char *endpoint_parse(const char *text, struct endpoint *ret);
