/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One migration of a broker, as 'receive', 'send' and 'migrate' use it. */

#include "ctl/bus/record.h"
#include "ctl/bus/side.h"

#define TICKET_PREFIX "vmferry" /* then the version, a colon, and base64url */
#define TICKET_MAX    4096      /* bytes, the NUL included */

/* All empty: there is none. It cannot be read or waited for, and there is nothing to cancel or to clear. */
struct tunnel {
    struct side *side;
    const char *vm;
    char *path;
    char *socket; /* of the stream "migrate": QEMU's */
};

/* What it is to be besides what the options say; all zero: nothing. */
struct tunnel_shape {
    const char *owner;       /* of the sockets; NULL: as the broker has it */
    const char *layout;      /* the name of a domain of libvirt, for whose QEMU the sockets are; NULL: none */
    bool disks, libvirt;     /* it carries these streams, too */
    uint64_t resume_timeout; /* µs, where the options do not say; 0: as the broker has it */
};

int tunnel_prepare_as(struct side *side, const char *vm, const struct tunnel_shape *shape, struct tunnel *ret,
                      char **ret_ticket, struct trouble *trouble);
int tunnel_start_as(struct side *side, const char *vm, const char *ticket, const struct tunnel_shape *shape,
                    struct tunnel *ret, struct trouble *trouble);

/* PrepareIncoming with what the options say. The ticket is a secret: tunnel_forget_ticket(). */
int tunnel_prepare(struct side *side, const char *vm, const char *owner, struct tunnel *ret,
                   char **ret_ticket, struct trouble *trouble);

/* StartOutgoing. */
int tunnel_start(struct side *side, const char *vm, const char *ticket, const char *owner, struct tunnel *ret,
                 struct trouble *trouble);

/*
 * Finds the unfinished migration in this role that vm names: a VM's name, or an id. qemu: the uid of the QEMU
 * that will use it; see find_running(). 0: there is none, 1, or -1.
 */
int tunnel_find(struct side *side, const char *vm, const char *role, uid_t qemu, struct tunnel *ret,
                struct trouble *trouble);

/*
 * Call this right before telling a QEMU, which runs as uid qemu, to use the tunnel's socket. Checks that the
 * socket and its directory belong to root, the caller, QEMU's user or the user of --socket-owner=, so that no
 * other user can have put a socket there. The socket of another host is not checked: only its broker can see
 * it.
 */
int tunnel_check_socket(const struct tunnel *tunnel, uid_t qemu, struct trouble *trouble);

/* The migration's id. */
const char *tunnel_id(const struct tunnel *tunnel);

int tunnel_read(const struct tunnel *tunnel, json_object **ret, struct trouble *trouble);

/*
 * That something of it has changed, as its broker says by a signal. Over a lost network none comes, where a
 * call would wait. Borrows news until the end.
 */
struct tunnel_news {
    sd_bus_slot *slot;
    bool came; /* the reader takes it back */
};

void tunnel_news_begin(const struct tunnel *tunnel, struct tunnel_news *news);
void tunnel_news_end(struct tunnel_news *news);

/* Waits until it is connected; fails with its own error, or when Ctrl-C was pressed. */
int tunnel_wait_connected(const struct tunnel *tunnel, struct trouble *trouble);

/* Waits until it is finished, at most so long. ret: its record of then. 0: it is not, 1, or -1. */
int tunnel_wait_finished(const struct tunnel *tunnel, uint64_t usec, json_object **ret,
                         struct trouble *trouble);

/* Ends it, where there is one that has not ended, and waits for that. */
void tunnel_cancel(const struct tunnel *tunnel);

/* Ends it, and removes it from the broker's list: for one that was only tried. */
void tunnel_forget(struct tunnel *tunnel);

/* The owner to ask for where QEMU runs as uid: --socket-owner= if it was given, else the uid as a text in
 * ret. */
const char *tunnel_owner(const struct arguments *arguments, uid_t uid, char ret[static 16]);

void tunnel_clear(struct tunnel *tunnel);
void tunnel_forget_ticket(char **ticket);
