/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ssh/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/address.h"
#include "common/cleanup.h"
#include "ctl/shell.h"
#include "ctl/ssh/master.h"
#include "ctl/units.h"

struct remote {
    struct ctl *ctl;
    char *host;
    struct ssh *ssh;
    sd_event_source *greeting_source;
    bool ready;
    uid_t uid;
    size_t n_greeting;
    char greeting[128];
    char address[INET6_ADDRSTRLEN];
};

/* Byte by byte: what follows the greeting is not ours to read. */
static int on_greeting(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct remote *remote = userdata;
    char c;
    ssize_t n;

    while ((n = read(fd, &c, 1)) == 1) {
        if (c == '\n' || remote->n_greeting == sizeof(remote->greeting) - 1) {
            remote->ready = true;
            break;
        }
        remote->greeting[remote->n_greeting++] = c;
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        remote->ready = true;
    if (remote->ready)
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

static bool make_command(const struct ctl *ctl, const char *const *what,
                         char command[static SHELL_COMMAND_MAX])
{
    bool fits = shell_append(command, SHELL_COMMAND_MAX, "vmferryctl") &&
                (!ctl->arguments.user || shell_append(command, SHELL_COMMAND_MAX, "--user")) &&
                shell_append(command, SHELL_COMMAND_MAX, "stdio");

    for (; fits && *what; what++)
        fits = shell_append(command, SHELL_COMMAND_MAX, *what);
    return fits;
}

/* Whether vmferryctl answers; takes what it says. */
static bool take_greeting(struct remote *remote)
{
    char *uid = remote->greeting + strlen(REMOTE_GREETING), *address;
    uint64_t number;

    if (strncmp(remote->greeting, REMOTE_GREETING, strlen(REMOTE_GREETING)) != 0)
        return false;
    address = strchr(uid, ' ');
    if (address) {
        *address++ = '\0';
        if (strlen(address) < sizeof(remote->address) && address_is_ip(address))
            strcpy(remote->address, address);
    }
    if (!parse_number(uid, 0, UINT32_MAX, &number))
        return false;
    remote->uid = (uid_t)number;
    return true;
}

static int judge(struct remote *remote, struct trouble *trouble)
{
    if (take_greeting(remote)) {
        ssh_is_through(remote->ssh);
        return 0;
    }
    if (remote->n_greeting > 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "'%s' is no answer of vmferryctl at %s. Does a start-up file there print something, or is "
            "vmferryctl of another version?",
            remote->greeting, remote->host);
    return ssh_failed(remote->ssh, trouble);
}

static int wait_greeting(struct remote *remote, struct trouble *trouble)
{
    struct ctl *ctl = remote->ctl;
    char quoted[SHELL_COMMAND_MAX];
    uint64_t end = ctl_now() + ssh_patience(ctl);
    int r = sd_event_add_io(ctl->event, &remote->greeting_source, ssh_fd(remote->ssh), EPOLLIN, on_greeting,
                            remote);

    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot watch ssh: %s.", strerror(-r));
    while (!remote->ready && ctl->interrupts == 0 && ctl_now() < end)
        if (ctl_turn(ctl, end - ctl_now(), trouble) < 0)
            return -1;
    if (ctl->interrupts > 0)
        return trouble_set(trouble, STATUS_CANCELLED, "Interrupted while ssh was connecting to %s.",
                           remote->host);
    if (!remote->ready)
        return trouble_set(trouble, STATUS_TIMED_OUT,
                           "ssh to %s did not get through in time. Does 'ssh %s true' work?", remote->host,
                           shell_word(remote->host, quoted));
    return judge(remote, trouble);
}

int remote_begin(struct ctl *ctl, const char *host, bool stays, const char *const *what, struct remote **ret,
                 struct trouble *trouble)
{
    _cleanup_(remote_freep) struct remote *remote = calloc(1, sizeof(*remote));
    char command[SHELL_COMMAND_MAX] = "";
    struct ssh_use use = {.way = SSH_ALONE, .stays = stays, .command = command};

    if (!remote)
        return trouble_no_memory(trouble);
    remote->ctl = ctl;
    remote->host = strdup(host);
    if (!remote->host)
        return trouble_no_memory(trouble);
    if (!make_command(ctl, what, command))
        return trouble_set(trouble, STATUS_USAGE, "What is to be told to %s is too long.", host);
    if (master_get(ctl, host, &use.control, trouble) < 0)
        return -1;
    if (use.control)
        use.way = SSH_SHARED;
    else if (!stays && master_lead(ctl, host, &use, trouble) < 0)
        return -1;
    if (ssh_start(ctl, host, &use, &remote->ssh, trouble) < 0)
        return -1;
    *ret = remote;
    remote = NULL;
    return 0;
}

int remote_finish(struct remote *remote, struct trouble *trouble)
{
    int r = wait_greeting(remote, trouble);

    remote->greeting_source = sd_event_source_disable_unref(remote->greeting_source);
    return r;
}

int remote_open(struct ctl *ctl, const char *host, bool stays, const char *const *what, struct remote **ret,
                struct trouble *trouble)
{
    _cleanup_(remote_freep) struct remote *remote = NULL;

    if (remote_begin(ctl, host, stays, what, &remote, trouble) < 0 || remote_finish(remote, trouble) < 0)
        return -1;
    *ret = remote;
    remote = NULL;
    return 0;
}

int remote_take_fd(struct remote *remote)
{
    return ssh_take_fd(remote->ssh);
}

uid_t remote_uid(const struct remote *remote)
{
    return remote->uid;
}

int remote_hear_out(struct remote *remote, struct trouble *trouble)
{
    return ssh_hear_out(remote->ssh, trouble);
}

const char *remote_address(const struct remote *remote)
{
    return remote->address;
}

bool remote_ended(const struct remote *remote)
{
    return ssh_ended(remote->ssh);
}

const char *remote_reason(struct remote *remote)
{
    const char *reason = ssh_reason(remote->ssh);

    return reason[0] ? reason : master_reason(remote->ctl, remote->host);
}

void remote_leave(struct remote *remote)
{
    ssh_leave(remote->ssh);
    remote->ssh = NULL;
    master_leave(remote->ctl, remote->host);
    remote_free(remote);
}

void remote_free(struct remote *remote)
{
    if (!remote)
        return;
    sd_event_source_disable_unref(remote->greeting_source);
    ssh_free(remote->ssh);
    free(remote->host);
    free(remote);
}
