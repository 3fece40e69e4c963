/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/libvirt/plan.h"
#include "ctl/libvirt/thread.h"
#include "ctl/ssh/relay.h"
#include "ctl/units.h"

/* ---- Connecting ---- */

/* virConnectOpen() in its thread, which takes what it said, for each thread has its own errors. */
struct opening {
    const struct libvirt *libvirt;
    const char *uri;
    virConnectPtr connection;
    int code;
    char words[512];
};

static void run_open(void *argument)
{
    struct opening *opening = argument;

    opening->connection = opening->libvirt->virConnectOpen(opening->uri);
    if (opening->connection)
        return;
    opening->code = libvirt_code(opening->libvirt);
    snprintf(opening->words, sizeof(opening->words), "%s", libvirt_words(opening->libvirt));
}

static int connect_host(struct host *host, struct trouble *trouble)
{
    const char *reason = host->link ? remote_reason(host->link) : "";
    struct opening opening = {.libvirt = host->libvirt, .uri = host->uri};

    if (thread_run(host->ctl, run_open, &opening, trouble) < 0)
        return -1;
    host->connection = opening.connection;
    if (!host->connection)
        return trouble_set(
            trouble, plan_is_denied(opening.code) ? STATUS_DENIED : STATUS_FAILED,
            "Cannot connect to libvirt%s (%s): %s%s%s. %s", host->where, host->uri, opening.words,
            reason[0] ? "; " : "", reason,
            plan_is_denied(opening.code)           ? "Run it as root, or as a member of the group libvirt."
            : strstr(opening.words, "Cannot recv") ? plan_remedy(opening.code, opening.words)
                                                   : "Does libvirtd run there? For a QEMU of your own give "
                                                     "--qmp= and --dst-qmp=.");
    if (host->libvirt->virConnectGetLibVersion(host->connection, &host->libvirt_version) < 0 ||
        host->libvirt->virConnectGetVersion(host->connection, &host->qemu_version) < 0)
        return trouble_set(trouble, STATUS_FAILED, "libvirt%s does not tell its version: %s.", host->where,
                           libvirt_words(host->libvirt));
    return 0;
}

static int begin(struct ctl *ctl, const char *where, struct host *ret, struct trouble *trouble)
{
    *ret = (struct host){.ctl = ctl, .where = where, .libvirt = libvirt_get(trouble)};
    return ret->libvirt ? 0 : -1;
}

static int end(struct host *host, int r)
{
    if (r < 0)
        host_close(host);
    return r;
}

int host_open(struct ctl *ctl, const char *uri, const char *where, struct host *ret, struct trouble *trouble)
{
    if (begin(ctl, where, ret, trouble) < 0)
        return -1;
    snprintf(ret->uri, sizeof(ret->uri), "%s", uri);
    return end(ret, connect_host(ret, trouble));
}

int host_open_here(struct ctl *ctl, const char *where, struct host *ret, struct trouble *trouble)
{
    char uri[URI_MAX];

    snprintf(uri, sizeof(uri), "qemu:///%s", libvirt_instance(ctl));
    return host_open(ctl, uri, where, ret, trouble);
}

/* A process carries the bytes between libvirt's library and ssh, until they end. */
static bool give_to_ssh(int fd, void *userdata)
{
    int *far = userdata;
    bool ok = *far >= 0 && relay_start(fd, *far) >= 0;

    fd_closep(far); /* the relay has it; one connection is what ssh carries */
    return ok;
}

int host_open_by_ssh(struct ctl *ctl, const char *name, const char *where, struct host *ret,
                     struct trouble *trouble)
{
    static const char *const what[] = {"libvirt", NULL};
    _cleanup_fd_ int far = -1;
    struct door *door = NULL;
    int r;

    if (begin(ctl, where, ret, trouble) < 0)
        return -1;
    r = remote_open(ctl, name, false, what, &ret->link, trouble);
    if (r >= 0) {
        far = remote_take_fd(ret->link);
        r = door_open(ctl, give_to_ssh, &far, &door, trouble);
    }
    if (r >= 0) {
        door_uri(door, ret->uri);
        r = connect_host(ret, trouble);
        snprintf(ret->uri, sizeof(ret->uri), "qemu:///%s at %s", libvirt_instance(ctl), name);
    }
    door_close(door);
    return end(ret, r);
}

int host_open_through(struct ctl *ctl, const struct door *door, const char *where, struct host *ret,
                      struct trouble *trouble)
{
    char uri[URI_MAX];

    return host_open(ctl, door_uri(door, uri), where, ret, trouble);
}

void host_close(struct host *host)
{
    if (host->connection)
        host->libvirt->virConnectClose(host->connection);
    remote_free(host->link);
    *host = (struct host){.where = ""};
}

/* ---- Domains ---- */

virDomainPtr host_find(const struct host *host, const char *text, struct trouble *trouble)
{
    const struct libvirt *libvirt = host->libvirt;
    virDomainPtr domain = libvirt->virDomainLookupByName(host->connection, text);
    uint64_t id;

    if (!domain && libvirt_code(libvirt) == VIR_ERR_NO_DOMAIN)
        domain = libvirt->virDomainLookupByUUIDString(host->connection, text);
    if (!domain && parse_number(text, 1, INT32_MAX, &id))
        domain = libvirt->virDomainLookupByID(host->connection, (int)id);
    if (domain)
        return domain;
    trouble_set(trouble, STATUS_FAILED,
                "There is no domain '%s' at %s (virsh list --all). For a QEMU of your own give --qmp= and "
                "--dst-qmp=.",
                text, host->uri);
    return NULL;
}

enum domain_state domain_look(const struct libvirt *libvirt, virDomainPtr domain)
{
    int state, reason;

    if (libvirt->virDomainGetState(domain, &state, &reason, 0) < 0)
        return libvirt_code(libvirt) == VIR_ERR_NO_DOMAIN ? DOMAIN_NONE : DOMAIN_UNKNOWN;
    switch (state) {
    case VIR_DOMAIN_RUNNING:
        return reason == VIR_DOMAIN_RUNNING_POSTCOPY || reason == VIR_DOMAIN_RUNNING_POSTCOPY_FAILED
                   ? DOMAIN_RUNS_POSTCOPY
                   : DOMAIN_RUNS;
    case VIR_DOMAIN_PAUSED:
        return reason == VIR_DOMAIN_PAUSED_POSTCOPY          ? DOMAIN_PAUSED_POSTCOPY
               : reason == VIR_DOMAIN_PAUSED_POSTCOPY_FAILED ? DOMAIN_PAUSED_POSTCOPY_FAILED
               : reason == VIR_DOMAIN_PAUSED_MIGRATION       ? DOMAIN_PAUSED_MIGRATION
                                                             : DOMAIN_PAUSED;
    case VIR_DOMAIN_SHUTOFF:
        return DOMAIN_OFF;
    default:
        return DOMAIN_ELSE;
    }
}

typedef virDomainPtr (*lookup_t)(virConnectPtr connection, const char *text);

static enum domain_state look(const struct host *host, lookup_t lookup, const char *text,
                              bool *ret_persistent)
{
    virDomainPtr domain;
    enum domain_state state;

    if (ret_persistent)
        *ret_persistent = false;
    if (!host->connection)
        return DOMAIN_UNKNOWN;
    domain = lookup(host->connection, text);
    if (!domain)
        return libvirt_code(host->libvirt) == VIR_ERR_NO_DOMAIN ? DOMAIN_NONE : DOMAIN_UNKNOWN;
    state = domain_look(host->libvirt, domain);
    if (ret_persistent)
        *ret_persistent = host->libvirt->virDomainIsPersistent(domain) > 0;
    host->libvirt->virDomainFree(domain);
    return state;
}

enum domain_state host_look(const struct host *host, const char *name, bool *ret_persistent)
{
    return look(host, host->libvirt ? host->libvirt->virDomainLookupByName : NULL, name, ret_persistent);
}

enum domain_state host_look_uuid(const struct host *host, const char *uuid, bool *ret_persistent)
{
    return look(host, host->libvirt ? host->libvirt->virDomainLookupByUUIDString : NULL, uuid,
                ret_persistent);
}

const char *domain_state_text(enum domain_state state)
{
    static const char *const texts[] = {
        [DOMAIN_UNKNOWN] = "cannot be asked about",
        [DOMAIN_NONE] = "is not there",
        [DOMAIN_OFF] = "is shut off",
        [DOMAIN_RUNS] = "runs",
        [DOMAIN_RUNS_POSTCOPY] = "runs, in post-copy",
        [DOMAIN_PAUSED] = "is paused",
        [DOMAIN_PAUSED_MIGRATION] = "is paused for the migration",
        [DOMAIN_PAUSED_POSTCOPY] = "is paused, in post-copy",
        [DOMAIN_PAUSED_POSTCOPY_FAILED] = "is paused, in a post-copy that has lost its connection",
        [DOMAIN_ELSE] = "is in another state",
    };

    return texts[state];
}

bool domain_uid(const struct libvirt *libvirt, virDomainPtr domain, uid_t *ret)
{
    virSecurityLabelPtr labels = NULL;
    int n = libvirt->virDomainGetSecurityLabelList(domain, &labels);
    bool found = false;

    /* One of each model; "+64055:+64055" is that of DAC. */
    for (int i = 0; i < n && !found; i++) {
        char *text = labels[i].label + (labels[i].label[0] == '+');
        size_t size = strcspn(text, ":");
        uint64_t uid;

        if (text[size] != ':')
            continue;
        text[size] = '\0';
        found = parse_number(text, 0, UINT32_MAX - 1, &uid);
        if (found)
            *ret = (uid_t)uid;
    }
    free(labels);
    return found;
}

const char *version_text(unsigned long version, char ret[static 32])
{
    snprintf(ret, 32, "%lu.%lu.%lu", version / 1000000, version / 1000 % 1000, version % 1000);
    return ret;
}
