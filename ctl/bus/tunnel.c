/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/tunnel.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "ctl/bus/find.h"
#include "ctl/units.h"

#define POLL       (SECOND / 10)
#define POLL_FIRST (SECOND / 100) /* most hosts are connected soon */

/* ---- Options ---- */

static int add_list(sd_bus_message *m, const char *key, const struct text_list *list)
{
    int r = sd_bus_message_open_container(m, 'e', "sv");

    if (r >= 0)
        r = sd_bus_message_append(m, "s", key);
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'v', "as");
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'a', "s");
    for (unsigned i = 0; r >= 0 && i < list->n; i++)
        r = sd_bus_message_append(m, "s", list->texts[i]);
    for (unsigned i = 0; r >= 0 && i < 3; i++)
        r = sd_bus_message_close_container(m);
    return r;
}

static int add_shape(sd_bus_message *m, const struct tunnel_shape *shape)
{
    struct text_list streams = {.texts = {"migrate"}, .n = 1};
    char layout[300];
    int r = 0;

    if (shape->owner)
        r = sd_bus_message_append(m, "{sv}", "socket-owner", "s", shape->owner);
    snprintf(layout, sizeof(layout), "libvirt:%s", shape->layout ? shape->layout : "");
    if (r >= 0 && shape->layout)
        r = sd_bus_message_append(m, "{sv}", "layout", "s", layout);
    if (shape->disks)
        streams.texts[streams.n++] = "disks";
    if (shape->libvirt)
        streams.texts[streams.n++] = "libvirt";
    return r >= 0 && streams.n > 1 ? add_list(m, "streams", &streams) : r;
}

static int add_options(sd_bus_message *m, const struct side *side, bool incoming,
                       const struct tunnel_shape *shape)
{
    const struct arguments *a = &side->ctl->arguments;
    uint64_t resume_timeout = a->has_resume_timeout ? a->resume_timeout : shape->resume_timeout;
    char near[INET6_ADDRSTRLEN];
    int r = sd_bus_message_open_container(m, 'a', "{sv}");

    side_address(side, near);
    if (r >= 0)
        r = add_shape(m, shape);
    if (r >= 0 && a->socket)
        r = sd_bus_message_append(m, "{sv}", "sockets", "a{ss}", 1, "migrate", a->socket);
    if (r >= 0 && a->security && incoming)
        r = sd_bus_message_append(m, "{sv}", "security", "s", a->security);
    if (r >= 0 && a->security && !incoming && a->verb == VERB_SEND)
        r = sd_bus_message_append(m, "{sv}", "security", "s", a->security);
    if (r >= 0 && incoming && (a->ssh || a->endpoints.n > 0))
        r = add_list(m, "endpoints", &a->endpoints);
    else if (r >= 0 && incoming && near[0])
        r = sd_bus_message_append(m, "{sv}", "near-address", "s", near);
    if (r >= 0 && a->verb == VERB_SEND && a->endpoints.n > 0)
        r = sd_bus_message_append(m, "{sv}", "endpoint", "s", a->endpoints.texts[0]);
    if (r >= 0 && a->expire > 0)
        r = sd_bus_message_append(m, "{sv}", "expire-usec", "t", a->expire);
    if (r >= 0 && (a->has_resume_timeout || resume_timeout > 0))
        r = sd_bus_message_append(m, "{sv}", "resume-timeout-usec", "t", resume_timeout);
    return r < 0 ? r : sd_bus_message_close_container(m);
}

const char *tunnel_owner(const struct arguments *arguments, uid_t uid, char ret[static 16])
{
    if (arguments->socket_owner)
        return arguments->socket_owner;
    snprintf(ret, 16, "%u", (unsigned)uid);
    return ret;
}

/* ---- Making one ---- */

/* Fills in what there is to know of the object at path. */
static int adopt(struct side *side, const char *vm, const char *path, struct tunnel *ret,
                 struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;

    *ret = (struct tunnel){.side = side, .vm = vm, .path = strdup(path)};
    if (!ret->path)
        return trouble_no_memory(trouble);
    /* It is there, but cannot be used: nobody else knows its path, so it is taken away again. */
    if (tunnel_read(ret, &record, trouble) < 0) {
        tunnel_cancel(ret);
        tunnel_clear(ret);
        return -1;
    }
    ret->socket = strdup(record_socket(record, "migrate"));
    return ret->socket ? 0 : trouble_no_memory(trouble);
}

static int call(struct side *side, sd_bus_message *m, int appended, sd_bus_message **ret, const char *doing,
                struct trouble *trouble)
{
    if (appended < 0)
        return trouble_set(trouble, STATUS_USAGE,
                           "%s: what is to be said does not fit D-Bus (%s). Is it UTF-8?", doing,
                           strerror(-appended));
    return side_send(side, m, 0, ret, trouble, doing);
}

/* Of any version. A hostile broker must not get another text to where tickets are printed. */
static bool is_ticket(const char *text)
{
    static const char letters[] = ":-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    return strncmp(text, TICKET_PREFIX, strlen(TICKET_PREFIX)) == 0 && strlen(text) < TICKET_MAX &&
           text[strspn(text, letters)] == '\0';
}

int tunnel_prepare_as(struct side *side, const char *vm, const struct tunnel_shape *shape, struct tunnel *ret,
                      char **ret_ticket, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
    const char *path, *ticket;
    char doing[400];
    int r;

    ctl_step(side->ctl, "Broker%s: PrepareIncoming of '%s'", side->where, vm);
    snprintf(doing, sizeof(doing), "Cannot prepare for VM '%s'%s", vm, side->where);
    if (side_message(side, BROKER_PATH, BROKER_NAME, "PrepareIncoming", &m, trouble) < 0)
        return -1;
    r = sd_bus_message_append(m, "s", vm);
    if (r >= 0)
        r = add_options(m, side, true, shape);
    if (call(side, m, r, &reply, doing, trouble) < 0)
        return -1;
    sd_bus_message_sensitive(reply);
    r = sd_bus_message_read(reply, "os", &path, &ticket);
    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "%s: the answer cannot be understood (%s).", doing,
                           strerror(-r));
    if (!is_ticket(ticket))
        return trouble_set(trouble, STATUS_FAILED, "%s: what was to be a ticket is none.", doing);
    *ret_ticket = strdup(ticket);
    if (!*ret_ticket)
        return trouble_no_memory(trouble);
    r = adopt(side, vm, path, ret, trouble);
    if (r >= 0)
        find_say_namesakes(side, vm, path);
    return r;
}

int tunnel_prepare(struct side *side, const char *vm, const char *owner, struct tunnel *ret,
                   char **ret_ticket, struct trouble *trouble)
{
    const struct tunnel_shape shape = {.owner = owner};

    return tunnel_prepare_as(side, vm, &shape, ret, ret_ticket, trouble);
}

int tunnel_start_as(struct side *side, const char *vm, const char *ticket, const struct tunnel_shape *shape,
                    struct tunnel *ret, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
    const char *path;
    char doing[400];
    int r;

    ctl_step(side->ctl, "Broker%s: StartOutgoing of '%s'", side->where, vm);
    snprintf(doing, sizeof(doing), "Cannot start the migration of VM '%s'%s", vm, side->where);
    if (side_message(side, BROKER_PATH, BROKER_NAME, "StartOutgoing", &m, trouble) < 0)
        return -1;
    r = sd_bus_message_sensitive(m);
    if (r >= 0)
        r = sd_bus_message_append(m, "ss", vm, ticket);
    if (r >= 0)
        r = add_options(m, side, false, shape);
    if (call(side, m, r, &reply, doing, trouble) < 0)
        return -1;
    r = sd_bus_message_read(reply, "o", &path);
    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "%s: the answer cannot be understood (%s).", doing,
                           strerror(-r));
    r = adopt(side, vm, path, ret, trouble);
    if (r >= 0)
        find_say_namesakes(side, vm, path);
    return r;
}

int tunnel_start(struct side *side, const char *vm, const char *ticket, const char *owner, struct tunnel *ret,
                 struct trouble *trouble)
{
    const struct tunnel_shape shape = {.owner = owner};

    return tunnel_start_as(side, vm, ticket, &shape, ret, trouble);
}

int tunnel_find(struct side *side, const char *vm, const char *role, uid_t qemu, struct tunnel *ret,
                struct trouble *trouble)
{
    struct found found;
    int r = find_running(side, vm, role, qemu, &found, trouble);

    if (r > 0)
        r = adopt(side, vm, found.path, ret, trouble) < 0 ? -1 : 1;
    return r;
}

/* ---- Its socket ---- */

/* The user of --socket-owner=; false where it names none. */
static bool option_owner(const struct arguments *arguments, uid_t *ret)
{
    _cleanup_free_ char *user = arguments->socket_owner ? strdup(arguments->socket_owner) : NULL;
    const struct passwd *entry;
    uint64_t number;

    if (!user)
        return false;
    user[strcspn(user, ":")] = '\0';
    if (parse_number(user, 0, UINT32_MAX, &number)) {
        *ret = (uid_t)number;
        return true;
    }
    entry = getpwnam(user);
    if (entry)
        *ret = entry->pw_uid;
    return entry;
}

static bool is_trusted(const struct side *side, uid_t uid, uid_t qemu)
{
    uid_t owner;

    return uid == 0 || uid == side->uid || uid == qemu ||
           (option_owner(&side->ctl->arguments, &owner) && uid == owner);
}

/* The path comes from the broker, QEMU may be root's: a broker of a user's must not make it send the VM's
 * memory to a socket of another user's. Only a path of this host can be looked at. */
int tunnel_check_socket(const struct tunnel *tunnel, uid_t qemu, struct trouble *trouble)
{
    bool incoming = strstr(tunnel->path, "/incoming/");
    _cleanup_free_ char *directory = strdup(tunnel->socket);
    char *slash = directory ? strrchr(directory, '/') : NULL;
    struct stat st;

    if (tunnel->side->host)
        return 0;
    if (!slash || directory[0] != '/')
        return trouble_set(trouble, STATUS_FAILED, "Migration %s has no socket for QEMU: '%s' is no path.",
                           tunnel_id(tunnel), tunnel->socket);
    slash[slash == directory] = '\0';
    if (stat(directory, &st) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot look at %s, where QEMU's socket is to be: %s.",
                           directory, strerror(errno));
    if (!is_trusted(tunnel->side, st.st_uid, qemu) || ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX)))
        return trouble_set(trouble, STATUS_DENIED,
                           "QEMU is not told to use %s: user %u can put another socket there.",
                           tunnel->socket, (unsigned)st.st_uid);
    if (lstat(tunnel->socket, &st) < 0) {
        if (errno == ENOENT && incoming)
            return 0; /* QEMU makes it */
        return trouble_set(trouble, STATUS_FAILED, "Cannot look at QEMU's socket %s: %s.", tunnel->socket,
                           strerror(errno));
    }
    if (!is_trusted(tunnel->side, st.st_uid, qemu) || (!incoming && !S_ISSOCK(st.st_mode)))
        return trouble_set(trouble, STATUS_DENIED,
                           "QEMU is not told to use %s: it is of user %u, or no socket.", tunnel->socket,
                           (unsigned)st.st_uid);
    return 0;
}

const char *tunnel_id(const struct tunnel *tunnel)
{
    const char *slash = tunnel->path ? strrchr(tunnel->path, '/') : NULL;

    if (!tunnel->path)
        return "-";
    return slash ? slash + 1 : tunnel->path;
}

/* ---- Watching it ---- */

int tunnel_read(const struct tunnel *tunnel, json_object **ret, struct trouble *trouble)
{
    if (!tunnel->path)
        return trouble_set(trouble, STATUS_FAILED, "There is no tunnel.");
    return record_read(tunnel->side, tunnel->path, MIGRATION_INTERFACE, ret, trouble);
}

static int on_news(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct tunnel_news *news = userdata;

    news->came = true;
    return 0;
}

void tunnel_news_begin(const struct tunnel *tunnel, struct tunnel_news *news)
{
    if (tunnel->path)
        sd_bus_match_signal_async(tunnel->side->bus, &news->slot, BROKER_NAME, tunnel->path,
                                  "org.freedesktop.DBus.Properties", "PropertiesChanged", on_news, NULL,
                                  news);
}

void tunnel_news_end(struct tunnel_news *news)
{
    news->slot = sd_bus_slot_unref(news->slot);
}

static int news_await(struct ctl *ctl, struct tunnel_news *news, uint64_t usec, struct trouble *trouble)
{
    unsigned interrupts = ctl->interrupts;

    for (uint64_t now = ctl_now(), end = now + usec;
         now < end && !news->came && ctl->interrupts == interrupts; now = ctl_now())
        if (ctl_turn(ctl, end - now, trouble) < 0)
            return -1;
    news->came = false;
    return 0;
}

/* What is waited for comes soon, as a rule: asks often at first. */
static uint64_t next_wait(uint64_t wait)
{
    return wait * 3 / 2 < POLL ? wait * 3 / 2 : POLL;
}

int tunnel_wait_connected(const struct tunnel *tunnel, struct trouble *trouble)
{
    _cleanup_(tunnel_news_end) struct tunnel_news news = {0};
    struct ctl *ctl = tunnel->side->ctl;
    uint64_t wait = POLL_FIRST;

    tunnel_news_begin(tunnel, &news);
    for (;;) {
        _cleanup_json_ json_object *record = NULL;
        const char *state;

        if (ctl->interrupts > 0)
            return trouble_set(trouble, STATUS_CANCELLED,
                               "Cancelled while the two hosts were connecting. Nothing has "
                               "happened to VM '%s'.",
                               tunnel->vm);
        if (tunnel_read(tunnel, &record, trouble) < 0)
            return -1;
        state = record_text(record, "State");
        if (strcmp(state, "finished") == 0)
            return trouble_set(
                trouble, trouble_status_of(record_text(record, "Result"), record_text(record, "ErrorName")),
                "The two hosts could not be connected. Nothing has happened to VM '%s'. %s", tunnel->vm,
                record_text(record, "ErrorMessage"));
        if (strcmp(state, "waiting") != 0)
            return 0;
        if (news_await(ctl, &news, wait, trouble) < 0)
            return -1;
        wait = next_wait(wait);
    }
}

int tunnel_wait_finished(const struct tunnel *tunnel, uint64_t usec, json_object **ret,
                         struct trouble *trouble)
{
    _cleanup_(tunnel_news_end) struct tunnel_news news = {0};

    tunnel_news_begin(tunnel, &news);
    for (uint64_t end = ctl_now() + usec, wait = POLL_FIRST;; wait = next_wait(wait)) {
        _cleanup_json_ json_object *record = NULL;
        struct ctl *ctl;
        bool finished;

        if (tunnel_read(tunnel, &record, trouble) < 0)
            return -1;
        ctl = tunnel->side->ctl;
        finished = strcmp(record_text(record, "State"), "finished") == 0;
        if (finished || ctl_now() >= end || ctl->interrupts > 1) {
            if (ret)
                *ret = json_object_get(record);
            return finished;
        }
        if (news_await(ctl, &news, wait, trouble) < 0)
            return -1;
    }
}

void tunnel_cancel(const struct tunnel *tunnel)
{
    if (!tunnel->path)
        return;
    if (side_call(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "Cancel", NULL, NULL, "", NULL) >= 0)
        tunnel_wait_finished(tunnel, 5 * SECOND, NULL, NULL);
}

void tunnel_forget(struct tunnel *tunnel)
{
    if (!tunnel->path)
        return;
    tunnel_cancel(tunnel);
    side_call(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "Forget", NULL, NULL, "", NULL);
    tunnel_clear(tunnel);
}

void tunnel_clear(struct tunnel *tunnel)
{
    free(tunnel->path);
    free(tunnel->socket);
    *tunnel = (struct tunnel){0};
}

void tunnel_forget_ticket(char **ticket)
{
    if (*ticket)
        explicit_bzero(*ticket, strlen(*ticket));
    free(*ticket);
    *ticket = NULL;
}
