/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "shell.h"
#include "units.h"

enum { ARGV_MAX = 48, SAID_MAX = 512 };

#define PATIENCE      (60 * SECOND)  /* for ssh to connect and the far end to greet */
#define PATIENCE_TYPE (300 * SECOND) /* the same where somebody may have to type a password */

struct remote {
    const char *host;
    pid_t pid;
    int fd;     /* our end of its stdin and stdout */
    int errors; /* its stderr */
    sd_event_source *child, *stderr_source, *greeting_source;
    bool ended, ready;
    int status; /* of waitpid(2), once ended */
    uid_t uid;
    size_t n_greeting, n_said;
    char greeting[128], said[SAID_MAX];
};

/* Keeps the end of what is said. */
static int on_stderr(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct remote *remote = userdata;
    char data[SAID_MAX - 1];
    ssize_t n = read(fd, data, sizeof(data));
    size_t size = n > 0 ? (size_t)n : 0, drop = 0;

    (void)revents;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
        return 0;
    }
    if (remote->n_said + size > SAID_MAX - 1)
        drop = remote->n_said + size - (SAID_MAX - 1);
    remote->n_said -= drop;
    memmove(remote->said, remote->said + drop, remote->n_said);
    memcpy(remote->said + remote->n_said, data, size);
    remote->n_said += size;
    remote->said[remote->n_said] = '\0';
    return 0;
}

/* Byte by byte: what follows the greeting is not ours to read. */
static int on_greeting(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct remote *remote = userdata;
    char c;
    ssize_t n;

    (void)revents;
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

static int on_child(sd_event_source *source, const siginfo_t *si, void *userdata)
{
    struct remote *remote = userdata;

    (void)source;
    remote->ended = true;
    remote->status = si->si_code == CLD_EXITED ? si->si_status : -1;
    return 0;
}

const char *remote_said(const struct remote *remote)
{
    return remote->said;
}

/* ---- Starting it ---- */

/* ssh's arguments; ssh is split in place. */
static unsigned make_argv(char *ssh, const char *host, bool batch, char *command, char *ret[static ARGV_MAX])
{
    static char option[] = "-o", x[] = "-xT", alive[] = "ServerAliveInterval=5", mode[] = "BatchMode=yes",
                end[] = "--";
    unsigned n = 0;
    char *rest = NULL;

    for (char *word = strtok_r(ssh, " ", &rest); word && n < ARGV_MAX - 12; word = strtok_r(NULL, " ", &rest))
        ret[n++] = word;
    if (n == 0)
        return 0;
    ret[n++] = x;
    ret[n++] = option;
    ret[n++] = alive;
    if (batch) {
        ret[n++] = option;
        ret[n++] = mode;
    }
    ret[n++] = end;
    memcpy(&ret[n++], &host, sizeof(host)); /* execvp(3) writes nothing to it */
    ret[n++] = command;
    ret[n] = NULL;
    return n;
}

static void child(char *const *argv, int stdio, int errors, bool stays, pid_t parent)
{
    sigset_t none;

    if (!stays) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(255);
    }
    /* Ctrl-C is for us, who then decide; ssh leaves an ignored signal ignored. */
    signal(SIGINT, SIG_IGN);
    if (stays)
        signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(stdio, STDIN_FILENO) >= 0 && dup2(stdio, STDOUT_FILENO) >= 0 &&
        dup2(errors, STDERR_FILENO) >= 0) {
        execvp(argv[0], argv);
        dprintf(STDERR_FILENO, "%s: %s", argv[0], strerror(errno));
    }
    _exit(255);
}

static int start(struct ctl *ctl, struct remote *remote, char *const *argv, bool stays,
                 struct trouble *trouble)
{
    _cleanup_fd_ int theirs = -1, errors_in = -1;
    pid_t parent = getpid();
    int pair[2], r;
    sigset_t chld;

    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL); /* sd_event_add_child(3) wants it so */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot make a socket for ssh: %s.", strerror(errno));
    remote->fd = pair[0];
    theirs = pair[1];
    fcntl(remote->fd, F_SETFL, O_NONBLOCK);
    if (pipe2(pair, O_CLOEXEC) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot make a pipe for ssh: %s.", strerror(errno));
    remote->errors = pair[0];
    errors_in = pair[1];
    fcntl(remote->errors, F_SETFL, O_NONBLOCK);
    remote->pid = fork();
    if (remote->pid < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot start ssh: %s.", strerror(errno));
    if (remote->pid == 0)
        child(argv, theirs, errors_in, stays, parent);
    r = sd_event_add_child(ctl->event, &remote->child, remote->pid, WEXITED, on_child, remote);
    if (r >= 0)
        r = sd_event_add_io(ctl->event, &remote->stderr_source, remote->errors, EPOLLIN, on_stderr, remote);
    if (r >= 0)
        r = sd_event_add_io(ctl->event, &remote->greeting_source, remote->fd, EPOLLIN, on_greeting, remote);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "Cannot watch ssh: %s.", strerror(-r)) : 0;
}

/* What ssh or the far end said, without the end of the last line. */
static const char *last_words(struct remote *remote)
{
    for (size_t i = 0; i < remote->n_said; i++)
        if (remote->said[i] == '\n' || remote->said[i] == '\r')
            remote->said[i] = ' ';
    while (remote->n_said > 0 && remote->said[remote->n_said - 1] == ' ')
        remote->said[--remote->n_said] = '\0';
    return remote->said;
}

static int judge(struct ctl *ctl, struct remote *remote, struct trouble *trouble)
{
    char quoted[SHELL_COMMAND_MAX];
    uint64_t uid;

    if (remote->n_greeting > strlen(REMOTE_GREETING) &&
        strncmp(remote->greeting, REMOTE_GREETING, strlen(REMOTE_GREETING)) == 0 &&
        parse_number(remote->greeting + strlen(REMOTE_GREETING), 0, UINT32_MAX, &uid)) {
        remote->uid = (uid_t)uid;
        return 0;
    }
    if (remote->n_greeting > 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "'%s' is no answer of vmferryctl at %s. Does a start-up file there print something, or is "
            "vmferryctl of another version?",
            remote->greeting, remote->host);
    /* It has closed its stdout; what it has to say and how it ended follow at once. */
    for (uint64_t end = ctl_now() + 5 * SECOND; !remote->ended && ctl_now() < end;)
        if (ctl_turn(ctl, SECOND, trouble) < 0)
            return -1;
    while (sd_event_source_get_enabled(remote->stderr_source, NULL) > 0 && ctl_turn(ctl, 0, trouble) >= 0) {
        struct pollfd p = {.fd = remote->errors, .events = POLLIN};

        if (poll(&p, 1, 0) <= 0)
            break;
    }
    last_words(remote);
    if (strncmp(remote->said, "vmferryctl: ", 12) == 0 && remote->status > 0 &&
        remote->status <= STATUS_DENIED)
        return trouble_set(trouble, remote->status, "At %s: %s", remote->host, remote->said + 12);
    if (remote->status == 127)
        return trouble_set(trouble, STATUS_FAILED,
                           "There is no vmferryctl at %s (%s). Install vmferry there.", remote->host,
                           remote->said);
    return trouble_set(trouble, STATUS_FAILED, "ssh to %s failed: %s. Does 'ssh %s true' work?", remote->host,
                       remote->said[0] ? remote->said : "it said nothing", shell_word(remote->host, quoted));
}

int remote_open(struct ctl *ctl, const char *host, bool stays, const char *const *what, struct remote **ret,
                struct trouble *trouble)
{
    _cleanup_(remote_freep) struct remote *remote = calloc(1, sizeof(*remote));
    const char *program = getenv("VMFERRY_SSH");
    _cleanup_free_ char *ssh = strdup(program && program[0] ? program : "ssh");
    bool batch = ctl->arguments.no_ask_password || !isatty(STDIN_FILENO);
    char *argv[ARGV_MAX], command[SHELL_COMMAND_MAX] = "";
    uint64_t end = ctl_now() + (batch ? PATIENCE : PATIENCE_TYPE);
    bool fits = shell_append(command, sizeof(command), "vmferryctl") &&
                (!ctl->arguments.user || shell_append(command, sizeof(command), "--user")) &&
                shell_append(command, sizeof(command), "stdio");

    if (!remote || !ssh)
        return trouble_no_memory(trouble);
    remote->fd = remote->errors = -1;
    remote->host = host;
    for (; fits && *what; what++)
        fits = shell_append(command, sizeof(command), *what);
    if (!fits)
        return trouble_set(trouble, STATUS_USAGE, "What is to be told to %s is too long.", host);
    if (host[0] == '-' || make_argv(ssh, host, batch, command, argv) == 0)
        return trouble_set(trouble, STATUS_USAGE, "'%s' is no host.", host);
    if (start(ctl, remote, argv, stays, trouble) < 0)
        return -1;
    while (!remote->ready && ctl->interrupts == 0 && ctl_now() < end)
        if (ctl_turn(ctl, end - ctl_now(), trouble) < 0)
            return -1;
    if (ctl->interrupts > 0)
        return trouble_set(trouble, STATUS_CANCELLED, "Interrupted while ssh was connecting to %s.", host);
    if (!remote->ready)
        return trouble_set(trouble, STATUS_TIMED_OUT,
                           "ssh to %s did not get through in time. Does 'ssh %s true' work?", host,
                           shell_word(host, command));
    if (judge(ctl, remote, trouble) < 0)
        return -1;
    remote->greeting_source = sd_event_source_disable_unref(remote->greeting_source);
    *ret = remote;
    remote = NULL;
    return 0;
}

int remote_take_fd(struct remote *remote)
{
    return fd_steal(&remote->fd);
}

uid_t remote_uid(const struct remote *remote)
{
    return remote->uid;
}

bool remote_ended(const struct remote *remote)
{
    return remote->ended;
}

void remote_leave(struct remote *remote)
{
    remote->pid = 0;
    remote_free(remote);
}

void remote_free(struct remote *remote)
{
    if (!remote)
        return;
    sd_event_source_disable_unref(remote->greeting_source);
    sd_event_source_disable_unref(remote->stderr_source);
    sd_event_source_disable_unref(remote->child);
    fd_closep(&remote->fd);
    if (remote->pid > 0 && !remote->ended) {
        kill(remote->pid, SIGTERM);
        while (waitpid(remote->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    fd_closep(&remote->errors);
    free(remote);
}
