/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/library.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define LIBRARY "libvirt.so.0"

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define LIBVIRT_ROW(name) {#name, offsetof(struct libvirt, name)},
    LIBVIRT_SYMBOLS(LIBVIRT_ROW)
#undef LIBVIRT_ROW
};

/* It would print each error by itself. */
static void say_nothing(void *userdata, virErrorPtr error)
{
}

static int open_library(struct libvirt *ret, struct trouble *trouble)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return trouble_set(
            trouble, STATUS_FAILED,
            "libvirt's client library cannot be opened (%s). Install it (Debian: apt-get install "
            "libvirt0), or for a QEMU of your own give --qmp= and --dst-qmp=.",
            dlerror());
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol)
            return trouble_set(trouble, STATUS_FAILED, LIBRARY " has no %s: it is too old. Upgrade libvirt.",
                               symbols[i].name);
        /* ISO C knows no cast from an object to a function; POSIX does, by its bytes. */
        memcpy((char *)ret + symbols[i].offset, &symbol, sizeof(symbol));
    }
    if (ret->virInitialize() < 0)
        return trouble_set(trouble, STATUS_FAILED, LIBRARY " cannot be used: %s.", libvirt_words(ret));
    ret->virSetErrorFunc(NULL, say_nothing);
    return 0;
}

const struct libvirt *libvirt_get(struct trouble *trouble)
{
    static struct libvirt libvirt;
    static bool there;

    if (!there && open_library(&libvirt, trouble) < 0)
        return NULL;
    there = true;
    return &libvirt;
}

const char *libvirt_words(const struct libvirt *libvirt)
{
    const virError *error = libvirt->virGetLastError();

    return error && error->message ? error->message : "it gave no reason";
}

int libvirt_code(const struct libvirt *libvirt)
{
    const virError *error = libvirt->virGetLastError();

    return error ? error->code : VIR_ERR_OK;
}
