/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/bus-socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"

#define SYSTEM_BUS "unix:path=/run/dbus/system_bus_socket"

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Up to the next ',' or ';', with %XX as bytes. How many bytes, or -1. */
static int unescape(const char *text, char *ret, size_t size)
{
    size_t n = 0;

    for (; *text && *text != ',' && *text != ';'; text++) {
        int c = (unsigned char)*text;

        if (c == '%') {
            int high = hex(text[1]), low = high < 0 ? -1 : hex(text[2]);

            if (low < 0)
                return -1;
            c = high * 16 + low;
            text += 2;
        }
        if (n + 1 >= size || c == 0)
            return -1;
        ret[n++] = (char)c;
    }
    ret[n] = '\0';
    return (int)n;
}

bool bus_address_parse(const char *address, struct sockaddr_un *ret, socklen_t *ret_size)
{
    static const char path_key[] = "path=", abstract_key[] = "abstract=";

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    for (const char *one = address; one; one = strchr(one, ';') ? strchr(one, ';') + 1 : NULL) {
        if (strncmp(one, "unix:", 5) != 0)
            continue;
        for (const char *key = one + 5; key && *key != '\0'; key = strpbrk(key, ",;")) {
            int n = -1;

            if (*key == ';')
                break;
            key += *key == ',';
            if (strncmp(key, path_key, strlen(path_key)) == 0)
                n = unescape(key + strlen(path_key), ret->sun_path, sizeof(ret->sun_path));
            else if (strncmp(key, abstract_key, strlen(abstract_key)) == 0)
                n = unescape(key + strlen(abstract_key), ret->sun_path + 1, sizeof(ret->sun_path) - 1) + 1;
            if (n <= 0)
                continue;
            *ret_size =
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n + (ret->sun_path[0] != '\0'));
            return true;
        }
    }
    return false;
}

bool bus_address_is_socket(const char *address)
{
    struct sockaddr_un parsed;
    socklen_t size;

    if (strncmp(address, "unix:", 5) != 0 || strchr(address, ';') ||
        !bus_address_parse(address, &parsed, &size))
        return false;
    for (const char *key = address + 5; key; key = strchr(key, ',')) {
        key += *key == ',';
        if (strncmp(key, "path=", 5) != 0 && strncmp(key, "abstract=", 9) != 0 &&
            strncmp(key, "guid=", 5) != 0)
            return false;
    }
    return true;
}

/* Where the bus is; false where that cannot be known. */
static bool where(const struct arguments *a, char ret[static 512])
{
    const char *name = a->user ? "DBUS_SESSION_BUS_ADDRESS" : "DBUS_SYSTEM_BUS_ADDRESS";
    const char *address = a->address ? a->address : getenv(name), *runtime = getenv("XDG_RUNTIME_DIR");

    if (address && address[0])
        return snprintf(ret, 512, "%s", address) < 512;
    if (!a->user)
        return snprintf(ret, 512, "%s", SYSTEM_BUS) < 512;
    return runtime && snprintf(ret, 512, "unix:path=%s/bus", runtime) < 512;
}

int bus_socket_connect(const struct arguments *arguments, struct trouble *trouble)
{
    _cleanup_fd_ int fd = -1;
    struct sockaddr_un address;
    socklen_t size;
    char text[512];

    if (!where(arguments, text))
        return trouble_set(trouble, STATUS_FAILED,
                           "There is no user's bus here: $XDG_RUNTIME_DIR is not set.");
    if (!bus_address_parse(text, &address, &size))
        return trouble_set(trouble, STATUS_FAILED, "'%s' is no address of a D-Bus on a UNIX socket.", text);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, size) < 0)
        return trouble_set(trouble, errno == EACCES ? STATUS_DENIED : STATUS_FAILED,
                           "Cannot connect to the D-Bus at '%s': %s. Is it running?", text, strerror(errno));
    return fd_steal(&fd);
}
