/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/message.h"
#include "ctl/qemu/qmp-connect.h"
#include "ctl/qemu/qmp-parser.h"

#define COMMAND_TIMEOUT (30 * SECOND) /* before anything was begun */
#define GRACE           SECOND /* for an answer after the second Ctrl-C: it is there at once, or late */
#define TELL            (SECOND / 4)
#define LAST_WORDS      64 /* reads */
#define STRAY_MAX       64 /* answers to clients before this one; QEMU queues no more than eight commands */

struct qmp {
    struct ctl *ctl;
    struct remote *link; /* where it is on another host */
    int fd;
    sd_event_source *source;
    struct qmp_parser *parser;
    char *name, *path;
    char version[32];
    unsigned major, minor, events, stops;
    char shutdown[32];
    uint64_t key;       /* in the ids of this connection's commands, and of no other's */
    char id[40];        /* of the command that was sent last; "": none was */
    unsigned commands;  /* how many were */
    unsigned strays;    /* answers to commands of other clients */
    json_object *reply; /* the greeting, or that of the command */
    const char *lost;   /* why nothing more can be said; NULL: it is open */
    char lost_text[160];
    uid_t uid;
    bool ended;
    qmp_silent_t on_silent; /* NULL: it has COMMAND_TIMEOUT for each answer */
    void *userdata;
    uint64_t silent; /* µs without an answer after which it was given up */
};

bool qmp_is_open(const struct qmp *qmp)
{
    return !qmp->lost;
}

bool qmp_has_ended(const struct qmp *qmp)
{
    return qmp->ended;
}

uid_t qmp_uid(const struct qmp *qmp)
{
    return qmp->uid;
}

const char *qmp_name(const struct qmp *qmp)
{
    return qmp->name;
}

unsigned qmp_events(const struct qmp *qmp)
{
    return qmp->events;
}

unsigned qmp_stops(const struct qmp *qmp)
{
    return qmp->stops;
}

const char *qmp_shutdown(const struct qmp *qmp)
{
    return qmp->shutdown;
}

const char *qmp_version_text(const struct qmp *qmp)
{
    return qmp->version;
}

void qmp_be_patient(struct qmp *qmp, qmp_silent_t on_silent, void *userdata)
{
    qmp->on_silent = on_silent;
    qmp->userdata = userdata;
}

uint64_t qmp_silence(const struct qmp *qmp)
{
    return qmp->silent;
}

bool qmp_is_at_least(const struct qmp *qmp, unsigned major, unsigned minor)
{
    return qmp->major > major || (qmp->major == major && qmp->minor >= minor);
}

/* ---- What comes in ---- */

static void lose(struct qmp *qmp, const char *why)
{
    if (!qmp->lost)
        qmp->lost = why;
    sd_event_source_set_enabled(qmp->source, SD_EVENT_OFF);
}

/* Says how what is no QMP begins. */
static void lose_garbage(struct qmp *qmp, const char *data, size_t size)
{
    snprintf(qmp->lost_text, sizeof(qmp->lost_text), "what it sends is no QMP: '%.*s%s'",
             (int)(size < 60 ? size : 60), data, size > 60 ? "…" : "");
    lose(qmp, qmp->lost_text);
}

static void take_event(struct qmp *qmp, const char *event, json_object *message)
{
    json_object *data;

    if (strcmp(event, "STOP") == 0)
        qmp->stops++;
    if (strcmp(event, "SHUTDOWN") == 0)
        message_text_set(qmp->shutdown, sizeof(qmp->shutdown),
                         json_object_object_get_ex(message, "data", &data) && record_text(data, "reason")[0]
                             ? record_text(data, "reason")
                             : "shutdown");
    qmp->events += strncmp(event, "MIGRATION", 9) == 0 || strcmp(event, "STOP") == 0 ||
                   strcmp(event, "RESUME") == 0 || qmp->shutdown[0];
}

/*
 * When a client goes while QEMU carries out its command, QEMU sends the answer to the next client, perhaps
 * before the greeting.
 */
static bool is_stray(const struct qmp *qmp, json_object *message)
{
    if (!qmp->id[0])
        return json_object_object_get_ex(message, "return", NULL) ||
               json_object_object_get_ex(message, "error", NULL);
    return strcmp(record_text(message, "id"), qmp->id) != 0;
}

static void take_message(struct qmp *qmp, json_object *message)
{
    json_object *value;

    if (json_object_object_get_ex(message, "event", &value)) {
        if (json_object_is_type(value, json_type_string))
            take_event(qmp, json_object_get_string(value), message);
        return;
    }
    if (is_stray(qmp, message)) {
        if (++qmp->strays > STRAY_MAX)
            lose(qmp, "it keeps answering what it was not asked");
    } else if (qmp->reply)
        lose(qmp, "it answered twice");
    else
        qmp->reply = json_object_get(message);
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct qmp *qmp = userdata;
    char data[16384];
    size_t at = 0;
    ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        qmp->ended = true;
        lose(qmp, "it closed the connection");
        return 0;
    }
    while (!qmp->lost) {
        _cleanup_json_ json_object *message = NULL;
        size_t from = at;

        switch (qmp_parser_feed(qmp->parser, data, (size_t)n, &at, &message)) {
        case QMP_MORE:
            return 0;
        case QMP_MESSAGE:
            take_message(qmp, message);
            break;
        case QMP_BAD:
            lose_garbage(qmp, data + from, (size_t)n - from);
            break;
        case QMP_LONG:
            lose(qmp, "it sends a message that is too long");
            break;
        }
    }
    return 0;
}

/*
 * Turns the loop until the reply is there; 0 where it did not come in time. The loop may run anything
 * meanwhile, but no second command: only the verb's own code, which waits here, sends any. In post-copy QEMU
 * may hold its lock for minutes (a page is missing), so with `on_silent` it is the user who gives up, not a
 * clock.
 */
static int wait_reply(struct qmp *qmp, uint64_t timeout, struct trouble *trouble)
{
    uint64_t begin = ctl_now(), told = begin;

    while (!qmp->reply && !qmp->lost) {
        uint64_t now = ctl_now(), left = now - begin < timeout ? begin + timeout - now : 0;

        if (qmp->ctl->interrupts > 1 && now - begin >= GRACE)
            break;
        if (qmp->on_silent) {
            if (now - told >= TELL) {
                told = now;
                if (!qmp->on_silent(qmp, now - begin, qmp->userdata) || qmp->reply || qmp->lost)
                    break; /* it may have turned the loop */
            }
            left = told + TELL - now;
        }
        if (left == 0)
            return 0;
        if (ctl_turn(qmp->ctl, left < TELL ? left : TELL, trouble) < 0)
            return -1;
    }
    if (!qmp->reply && !qmp->lost)
        qmp->silent = ctl_now() - begin;
    return 1;
}

/* ---- Commands ---- */

static json_object *take_reply(struct qmp *qmp)
{
    json_object *reply = qmp->reply;

    qmp->reply = NULL;
    return reply;
}

static int send_command(struct qmp *qmp, const char *command, json_object *arguments, struct trouble *trouble)
{
    _cleanup_json_ json_object *object = json_object_new_object();
    const char *text;
    size_t n;

    json_object_object_add(object, "execute", json_object_new_string(command));
    if (arguments)
        json_object_object_add(object, "arguments", arguments);
    /* Unique among all clients that this monitor ever had: see is_stray(). */
    snprintf(qmp->id, sizeof(qmp->id), "%016" PRIx64 "-%u", qmp->key, ++qmp->commands);
    json_object_object_add(object, "id", json_object_new_string(qmp->id));
    text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    n = strlen(text);
    /* One command is under way at a time, so a socket that has no room belongs to a QEMU that hangs. */
    if (send(qmp->fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n)
        return 0;
    for (int i = 0; i < LAST_WORDS && !qmp->lost; i++) /* what it said before it ended */
        on_readable(qmp->source, qmp->fd, EPOLLIN, qmp);
    if (qmp->ended)
        return trouble_set(trouble, STATUS_FAILED, "%s cannot be told '%s': %s.", qmp->name, command,
                           qmp->lost);
    lose(qmp, "it takes no commands");
    return trouble_set(trouble, STATUS_FAILED,
                       "%s cannot be told '%s': its monitor takes no commands any more.", qmp->name, command);
}

/* Says what it is told, but for what only asks; with --dry-run that is all that happens. */
static bool is_left_out(const struct qmp *qmp, const char *command, json_object *arguments)
{
    const struct arguments *a = &qmp->ctl->arguments;

    if (strncmp(command, "query-", 6) == 0 || strcmp(command, "qmp_capabilities") == 0)
        return false;
    if (a->verbose || a->dry_run)
        ctl_say(qmp->ctl, "%s%s: %s%s%s", a->dry_run ? "Would tell " : "", qmp->name, command,
                arguments ? " " : "",
                arguments ? json_object_to_json_string_ext(arguments, JSON_C_TO_STRING_PLAIN |
                                                                          JSON_C_TO_STRING_NOSLASHESCAPE)
                          : "");
    return a->dry_run;
}

int qmp_execute(struct qmp *qmp, const char *command, json_object *arguments, json_object **ret,
                struct trouble *trouble)
{
    _cleanup_json_ json_object *reply = NULL;
    json_object *value;
    int r;

    if (qmp->lost) {
        json_object_put(arguments);
        return trouble_set(trouble, STATUS_FAILED, "%s cannot be told '%s': %s.", qmp->name, command,
                           qmp->lost);
    }
    if (is_left_out(qmp, command, arguments)) {
        json_object_put(arguments);
        return 0;
    }
    r = send_command(qmp, command, arguments, trouble);
    if (r < 0)
        return -1;
    r = wait_reply(qmp, COMMAND_TIMEOUT, trouble);
    if (r < 0) {
        lose(qmp, "it was not waited for"); /* as below */
        return -1;
    }
    reply = take_reply(qmp);
    if (r == 0) {
        lose(qmp, "it did not answer in time");
        return trouble_set(trouble, STATUS_TIMED_OUT, "%s did not answer '%s' within %d s. Does it hang?",
                           qmp->name, command, (int)(COMMAND_TIMEOUT / SECOND));
    }
    if (qmp->lost)
        return trouble_set(trouble, STATUS_FAILED, "%s did not answer '%s': %s.", qmp->name, command,
                           qmp->lost);
    if (!reply) {
        lose(qmp, "it has not answered"); /* and what it answers later is for nothing that is asked then */
        return trouble_set(trouble, STATUS_CANCELLED, "Interrupted while %s was asked '%s'.", qmp->name,
                           command);
    }
    if (json_object_object_get_ex(reply, "error", &value))
        return trouble_set(trouble, STATUS_FAILED, "%s refuses '%s': %s", qmp->name, command,
                           record_text(value, "desc")[0] ? record_text(value, "desc")
                                                         : "it gives no reason.");
    if (!json_object_object_get_ex(reply, "return", &value)) {
        lose(qmp, "what it sends is no QMP");
        return trouble_set(trouble, STATUS_FAILED, "%s answers '%s' with what is no QMP.", qmp->name,
                           command);
    }
    if (ret)
        *ret = json_object_get(value);
    return 0;
}

/* ---- Opening it ---- */

static int take_greeting(struct qmp *qmp, struct trouble *trouble)
{
    _cleanup_json_ json_object *greeting = NULL;
    json_object *value, *version;
    int r = wait_reply(qmp, QMP_GREETING_TIMEOUT, trouble);

    if (r < 0)
        return -1;
    if (r == 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "%s did not greet within %d s: another client has its monitor, or it hangs. QEMU serves one "
            "client a socket; give QEMU another -qmp socket for vmferryctl.",
            qmp->name, (int)(QMP_GREETING_TIMEOUT / SECOND));
    if (qmp->lost)
        return trouble_set(trouble, STATUS_FAILED,
                           "%s cannot be used: %s. Is %s the socket of QEMU's option -qmp?", qmp->name,
                           qmp->lost, qmp->path);
    greeting = take_reply(qmp);
    if (!greeting)
        return trouble_set(trouble, STATUS_CANCELLED, "Interrupted while %s was connected to.", qmp->name);
    if (!json_object_object_get_ex(greeting, "QMP", &value) ||
        !json_object_object_get_ex(value, "version", &version) ||
        !json_object_object_get_ex(version, "qemu", &version)) {
        lose(qmp, "what it sends is no QMP");
        return trouble_set(trouble, STATUS_FAILED,
                           "%s greets with what is no QMP. Is %s the socket of QEMU's option -qmp?",
                           qmp->name, qmp->path);
    }
    qmp->major = (unsigned)record_number(version, "major");
    qmp->minor = (unsigned)record_number(version, "minor");
    snprintf(qmp->version, sizeof(qmp->version), "%u.%u", qmp->major, qmp->minor);
    return 0;
}

static int make_names(struct qmp *qmp, const struct side *side, const char *path)
{
    qmp->path = strdup(path);
    if (!qmp->path || asprintf(&qmp->name, "QEMU (%s%s)", path, side->where) < 0)
        qmp->name = NULL;
    return qmp->name ? 0 : -ENOMEM;
}

int qmp_open(struct side *side, const char *path, struct qmp **ret, struct trouble *trouble)
{
    _cleanup_(qmp_freep) struct qmp *qmp = calloc(1, sizeof(*qmp));
    const char *const what[] = {"qmp", path, NULL};
    int r;

    if (!qmp)
        return trouble_no_memory(trouble);
    qmp->ctl = side->ctl;
    qmp->fd = -1;
    qmp->parser = qmp_parser_new();
    if (!qmp->parser || make_names(qmp, side, path) < 0)
        return trouble_no_memory(trouble);
    if (getrandom(&qmp->key, sizeof(qmp->key), 0) != sizeof(qmp->key))
        return trouble_set(trouble, STATUS_FAILED, "There are no random numbers: %s.", strerror(errno));
    if (side->host) {
        if (remote_open(side->ctl, side->host, false, what, &qmp->link, trouble) < 0)
            return -1;
        qmp->fd = remote_take_fd(qmp->link);
        qmp->uid = remote_uid(qmp->link);
    } else {
        qmp->fd = qmp_connect(side->ctl, path, &qmp->uid, trouble);
    }
    if (qmp->fd < 0)
        return -1;
    r = sd_event_add_io(side->ctl->event, &qmp->source, qmp->fd, EPOLLIN, on_readable, qmp);
    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "%s cannot be watched: %s.", qmp->name, strerror(-r));
    if (take_greeting(qmp, trouble) < 0 || qmp_execute(qmp, "qmp_capabilities", NULL, NULL, trouble) < 0)
        return -1;
    /* A thread of QEMU's greets, also before the main one, which carries commands out, has changed its user.
     */
    if (!side->host)
        qmp_peer_uid(qmp->fd, &qmp->uid);
    *ret = qmp;
    qmp = NULL;
    return 0;
}

void qmp_free(struct qmp *qmp)
{
    if (!qmp)
        return;
    sd_event_source_disable_unref(qmp->source);
    fd_closep(&qmp->fd);
    remote_free(qmp->link);
    qmp_parser_free(qmp->parser);
    json_object_put(qmp->reply);
    free(qmp->name);
    free(qmp->path);
    free(qmp);
}
