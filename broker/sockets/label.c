/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/label.h"

#include <errno.h>

#ifdef HAVE_SELINUX

#include <selinux/selinux.h>
#include <stddef.h>

int socket_label_begin(const char *label)
{
    if (label[0] == '\0' || is_selinux_enabled() <= 0)
        return 0;
    return setsockcreatecon(label) < 0 ? -errno : 0;
}

void socket_label_end(const char *label)
{
    int saved = errno;

    if (label[0] != '\0' && is_selinux_enabled() > 0)
        setsockcreatecon(NULL);
    errno = saved;
}

#else

int socket_label_begin(const char *label)
{
    return label[0] == '\0' ? 0 : -ENOTSUP;
}

void socket_label_end(const char *label)
{
}

#endif
