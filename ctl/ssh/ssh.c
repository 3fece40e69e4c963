/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ssh/ssh.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/shell.h"
#include "ctl/ssh/words.h"

#define PATIENCE      (60 * SECOND)  /* for ssh to connect and the far end to greet */
#define PATIENCE_TYPE (300 * SECOND) /* the same where the user may have to type a password */

enum { WORDS_OF_PROGRAM = 32, OPTION_MAX = 40, CONTROL_MAX = 160 };

/*
 * What each of our ssh is told, whatever ssh_config(5) says: ssh takes the first value that it finds for an
 * option, and the command line comes first. The exception is what $VMFERRY_SSH itself says: it stands before
 * these, and a user who writes it there means vmferryctl. All are known to OpenSSH 8.7, and so to Debian
 * 12's 9.2; an option that ssh does not know would end it.
 *
 * Left to the user, for they say how to get there and as which user: HostName, Port, User, Identity*, Proxy*,
 * HostKey*, Ciphers and the like, ConnectTimeout, Compression, SendEnv and SetEnv (a locale, at most),
 * GSSAPI*. Of no effect without a terminal at the far end: EscapeChar. A jump host's connection is made by an
 * ssh of ssh's own, which takes no option of ours: the manual says what to mind there.
 */
static const char options[][OPTION_MAX] = {
    "-oControlPersist=no", /* no ssh of ours goes on behind our back */
    /* The second of our connections would find the first one's ports taken. Ports are not what we are for. */
    "-oClearAllForwardings=yes",
    "-oTunnel=no", /* likewise a tun device, which is not counted among the forwardings */
    /* The far end needs neither the user's keys nor their display. */
    "-a",
    "-x",
    "-oPermitLocalCommand=no",      /* a command per login is not meant for each channel */
    "-oRemoteCommand=none",         /* with one of ssh_config's, ours would be refused */
    "-oSessionType=default",        /* likewise with "none" */
    "-T",                           /* a terminal would change bytes */
    "-oForkAfterAuthentication=no", /* it must remain our child */
    "-oStdinNull=no",               /* its stdin is half of our connection */
    /* A path that is dead shows after 15 s, however patient the user is at a shell. */
    "-oServerAliveInterval=5",
    "-oServerAliveCountMax=3",
    /*
     * Errors are said even to users that want to hear nothing (QUIET), for they are quoted as the reason. No
     * Banner, no warnings, no picture of a host key: they come with INFO.
     */
    "-oLogLevel=ERROR",
};

struct ssh {
    struct ctl *ctl;
    char *host;
    pid_t pid;
    int fd;     /* our end of its stdin and stdout */
    int errors; /* its stderr */
    sd_event_source *child, *stderr_source;
    bool ended;
    int status; /* of exit(3), once ended; -1: a signal ended it */
    struct words words;
    char reason[WORDS_MAX];
};

/* Its command line, before it is one for execvp(3). */
struct command_line {
    char *program; /* split in place */
    char control[CONTROL_MAX];
    unsigned n;
    const char *argv[WORDS_OF_PROGRAM + sizeof(options) / OPTION_MAX + 8];
};

static void command_line_clear(struct command_line *line)
{
    free(line->program);
}

bool ssh_may_ask(const struct ctl *ctl)
{
    return !ctl->arguments.no_ask_password && isatty(STDIN_FILENO);
}

uint64_t ssh_patience(const struct ctl *ctl)
{
    return ssh_may_ask(ctl) ? PATIENCE_TYPE : PATIENCE;
}

/* ---- What it is told ---- */

static int make_line(const struct ctl *ctl, const char *host, const struct ssh_use *use,
                     struct command_line *ret)
{
    /*
     * Never a connection that the user shares (ControlMaster auto): the ssh that made it carries all others,
     * and they end when it does. If that is ours, a migration in post-copy would lose its channels with us.
     */
    static const char *const master[] = {[SSH_ALONE] = "-oControlMaster=no",
                                         [SSH_MASTER] = "-oControlMaster=yes",
                                         [SSH_SHARED] = "-oControlMaster=no"};
    const char *program = getenv("VMFERRY_SSH");
    char *rest = NULL;

    ret->program = strdup(program && program[0] ? program : "ssh");
    if (!ret->program)
        return -ENOMEM;
    for (char *word = strtok_r(ret->program, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (ret->n == WORDS_OF_PROGRAM)
            return -E2BIG;
        ret->argv[ret->n++] = word;
    }
    if (ret->n == 0)
        return -EINVAL;
    if ((size_t)snprintf(ret->control, CONTROL_MAX, "-oControlPath=%s",
                         use->control ? use->control : "none") >= CONTROL_MAX)
        return -E2BIG;
    for (size_t i = 0; i < sizeof(options) / OPTION_MAX; i++)
        ret->argv[ret->n++] = options[i];
    ret->argv[ret->n++] = master[use->way];
    ret->argv[ret->n++] = ret->control;
    if (!ssh_may_ask(ctl))
        ret->argv[ret->n++] = "-oBatchMode=yes";
    ret->argv[ret->n++] = "--";
    ret->argv[ret->n++] = host;
    ret->argv[ret->n++] = use->command;
    ret->argv[ret->n] = NULL;
    return 0;
}

/* ---- Its process ---- */

static int on_stderr(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct ssh *ssh = userdata;
    char data[1024];
    ssize_t n = read(fd, data, sizeof(data));

    if (n > 0)
        words_add(&ssh->words, data, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

static int on_child(sd_event_source *source, const siginfo_t *si, void *userdata)
{
    struct ssh *ssh = userdata;

    ssh->ended = true;
    ssh->status = si->si_code == CLD_EXITED ? si->si_status : -1;
    return 0;
}

static void child(const struct command_line *line, int stdio, int errors, bool stays, pid_t parent)
{
    char *argv[sizeof(line->argv) / sizeof(line->argv[0])];
    sigset_t mask;

    memcpy(argv, line->argv, sizeof(argv)); /* execvp(3) writes nothing to the texts */
    if (!stays) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(255);
    }
    /*
     * Ctrl-C is for vmferryctl, which then decides, and so is the terminal's end. ssh leaves an ignored
     * signal ignored, but not where it uses another one's connection: there it has to be blocked.
     */
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    signal(SIGINT, SIG_IGN);
    if (stays) {
        sigaddset(&mask, SIGHUP);
        signal(SIGHUP, SIG_IGN);
    }
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    if (dup2(stdio, STDIN_FILENO) >= 0 && dup2(stdio, STDOUT_FILENO) >= 0 &&
        dup2(errors, STDERR_FILENO) >= 0) {
        execvp(argv[0], argv);
        dprintf(STDERR_FILENO, "%s: %s", argv[0], strerror(errno));
    }
    _exit(255);
}

static int spawn(struct ssh *ssh, const struct command_line *line, bool stays, struct trouble *trouble)
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
    ssh->fd = pair[0];
    theirs = pair[1];
    fcntl(ssh->fd, F_SETFL, O_NONBLOCK);
    if (pipe2(pair, O_CLOEXEC) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot make a pipe for ssh: %s.", strerror(errno));
    ssh->errors = pair[0];
    errors_in = pair[1];
    fcntl(ssh->errors, F_SETFL, O_NONBLOCK);
    ssh->pid = fork();
    if (ssh->pid < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot start ssh: %s.", strerror(errno));
    if (ssh->pid == 0)
        child(line, theirs, errors_in, stays, parent);
    r = sd_event_add_child(ssh->ctl->event, &ssh->child, ssh->pid, WEXITED, on_child, ssh);
    if (r >= 0)
        r = sd_event_add_io(ssh->ctl->event, &ssh->stderr_source, ssh->errors, EPOLLIN, on_stderr, ssh);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "Cannot watch ssh: %s.", strerror(-r)) : 0;
}

int ssh_start(struct ctl *ctl, const char *host, const struct ssh_use *use, struct ssh **ret,
              struct trouble *trouble)
{
    _cleanup_(ssh_freep) struct ssh *ssh = calloc(1, sizeof(*ssh));
    _cleanup_(command_line_clear) struct command_line line = {0};
    int r;

    if (!ssh)
        return trouble_no_memory(trouble);
    ssh->ctl = ctl;
    ssh->fd = ssh->errors = -1;
    ssh->host = strdup(host);
    if (!ssh->host)
        return trouble_no_memory(trouble);
    if (host[0] == '-' || host[0] == '\0')
        return trouble_set(trouble, STATUS_USAGE, "'%s' is no host.", host);
    r = make_line(ctl, host, use, &line);
    if (r == -ENOMEM)
        return trouble_no_memory(trouble);
    if (r < 0)
        return trouble_set(trouble, STATUS_USAGE, "$VMFERRY_SSH ('%s') is no command, or too long a one.",
                           getenv("VMFERRY_SSH"));
    if (spawn(ssh, &line, use->stays, trouble) < 0)
        return -1;
    *ret = ssh;
    ssh = NULL;
    return 0;
}

int ssh_fd(const struct ssh *ssh)
{
    return ssh->fd;
}

int ssh_take_fd(struct ssh *ssh)
{
    return fd_steal(&ssh->fd);
}

bool ssh_ended(const struct ssh *ssh)
{
    return ssh->ended;
}

/* ---- What it said, and its end ---- */

const char *ssh_reason(struct ssh *ssh)
{
    words_reason(&ssh->words, ssh->reason, sizeof(ssh->reason));
    /* That is a mere INFO of ssh's, and not said. */
    if (ssh->reason[0] == '\0' && ssh->ended && ssh->status == 255)
        snprintf(ssh->reason, sizeof(ssh->reason),
                 "ssh ended without a word, as it does when the other host was silent for 15 s");
    return ssh->reason;
}

void ssh_is_through(struct ssh *ssh)
{
    ssh->words.n = 0;
}

int ssh_hear_out(struct ssh *ssh, struct trouble *trouble)
{
    for (uint64_t end = ctl_now() + 5 * SECOND; !ssh->ended && ctl_now() < end;)
        if (ctl_turn(ssh->ctl, SECOND, trouble) < 0)
            return -1;
    while (sd_event_source_get_enabled(ssh->stderr_source, NULL) > 0 && ctl_turn(ssh->ctl, 0, trouble) >= 0) {
        struct pollfd p = {.fd = ssh->errors, .events = POLLIN};

        if (poll(&p, 1, 0) <= 0)
            break;
    }
    return 0;
}

int ssh_failed(struct ssh *ssh, struct trouble *trouble)
{
    char quoted[SHELL_COMMAND_MAX];
    bool far;

    if (ssh_hear_out(ssh, trouble) < 0)
        return -1;
    far = words_reason(&ssh->words, ssh->reason, sizeof(ssh->reason));
    if (far && ssh->status > 0 && ssh->status <= STATUS_DENIED)
        return trouble_set(trouble, ssh->status, "At %s: %s", ssh->host, ssh->reason);
    if (ssh->status == 127)
        return trouble_set(trouble, STATUS_FAILED,
                           "There is no vmferryctl at %s (%s). Install vmferry there.", ssh->host,
                           ssh->reason);
    return trouble_set(trouble, STATUS_FAILED, "ssh to %s failed: %s. Does 'ssh %s true' work?", ssh->host,
                       ssh->reason[0] ? ssh->reason : "it said nothing", shell_word(ssh->host, quoted));
}

void ssh_leave(struct ssh *ssh)
{
    ssh->pid = 0;
    ssh_free(ssh);
}

void ssh_free(struct ssh *ssh)
{
    if (!ssh)
        return;
    sd_event_source_disable_unref(ssh->stderr_source);
    sd_event_source_disable_unref(ssh->child);
    fd_closep(&ssh->fd);
    if (ssh->pid > 0 && !ssh->ended) {
        kill(ssh->pid, SIGTERM);
        while (waitpid(ssh->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    fd_closep(&ssh->errors);
    free(ssh->host);
    free(ssh);
}
