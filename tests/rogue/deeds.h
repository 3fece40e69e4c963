/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the sandbox has to kill a helper for. A table ends with a row without a name. */
struct deed {
    const char *name;
    void (*try)(void);
};

enum { SOCKET_FD = 3 };

/* Calls that the filter allows, with arguments that it must not allow. */
extern const struct deed arguments[];

/* The same, in the gate alone. */
extern const struct deed gate_arguments[];
