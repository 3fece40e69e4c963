/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/message.h"
#include "ctl/qemu/qemu.h"

#define LOOK    (SECOND / 4)
#define NEAR    (SECOND / 200) /* between two looks while the VM stands still for them */
#define SETTLES (10 * SECOND)  /* for QEMU to notice that the tunnel has finished; for a broker to be back */

/* ---- The process ---- */

static volatile pid_t keeper_pid; /* for the signal handler of the process that waits for it */

static void pass_on(int signal)
{
    kill(keeper_pid, signal);
}

/* The keeper says all, and knows the exit status; so Ctrl-C is for it. */
static int wait_keeper(pid_t pid, int fd, struct trouble *trouble)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    char status = STATUS_FAILED;
    int how;
    ssize_t n;

    keeper_pid = pid;
    for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        sigaction(ends[i], &action, NULL);
    while ((n = read(fd, &status, 1)) < 0 && errno == EINTR)
        ;
    if (n == 1)
        return status;
    while (waitpid(pid, &how, 0) < 0)
        if (errno != EINTR)
            return trouble_set(trouble, STATUS_FAILED, "Cannot wait for a process: %s.", strerror(errno));
    return WIFEXITED(how) ? WEXITSTATUS(how) : STATUS_FAILED;
}

int keeper_fork(struct ctl *ctl, int *ret_fd, int *ret_status, struct trouble *trouble)
{
    _cleanup_fd_ int out = -1, in = -1;
    pid_t parent = getpid(), pid;
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot make a pipe: %s.", strerror(errno));
    out = pair[0];
    in = pair[1];
    /* Before fork(2), for later versions of libsystemd do not free in a child what the parent made. The
     * parent only waits. */
    ctl->event = sd_event_unref(ctl->event);
    pid = fork();
    if (pid < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot start another process: %s.", strerror(errno));
    if (pid > 0) {
        fd_closep(&in);
        *ret_status = wait_keeper(pid, out, trouble);
        return *ret_status < 0 ? -1 : 0;
    }
    /* Asked for first, looked at second: a parent that ended in between sends no signal. */
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* until keeper_detach() */
    if (getppid() != parent)
        _exit(STATUS_FAILED);
    if (sd_event_new(&ctl->event) < 0)
        return trouble_no_memory(trouble);
    *ret_fd = fd_steal(&in);
    return 1;
}

void keeper_detach(int fd)
{
    const char done = STATUS_DONE;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    /* All before the byte: when the parent has read it, the parent exits, and its signals and terminal must
     * not reach the keeper any more. */
    prctl(PR_SET_PDEATHSIG, 0);
    setsid();
    for (int i = STDIN_FILENO; null >= 0 && i <= STDERR_FILENO; i++)
        dup2(null, i);
    fd_closep(&null);
    while (write(fd, &done, 1) < 0 && errno == EINTR)
        ;
    fd_closep(&fd);
}

/* ---- What it stays for ---- */

enum verdict {
    GOES_ON,
    NEARLY, /* the VM has arrived, and stands still */
    OVER,
};

struct keeper {
    const struct tunnel *tunnel;
    struct qmp *qmp;
    bool starts;
    bool refused;      /* QEMU does not let the VM run: said once, for it is told 'cont' again and again */
    bool interrupted;  /* the tunnel is */
    uint64_t unread;   /* since when the broker does not tell of the tunnel; 0: it does */
    uint64_t finished; /* when the tunnel was first seen to be; 0: it goes on */
    char result[32];   /* the tunnel's; "" where it is not known */
};

/* A broker that does not answer may be restarting. */
static void look_at_tunnel(struct keeper *keeper)
{
    _cleanup_json_ json_object *record = NULL;

    if (keeper->finished > 0)
        return;
    if (tunnel_read(keeper->tunnel, &record, NULL) < 0) {
        if (keeper->unread == 0)
            keeper->unread = ctl_now();
        if (ctl_now() > keeper->unread + SETTLES)
            keeper->finished = ctl_now();
        return;
    }
    keeper->unread = 0;
    keeper->interrupted = strcmp(record_text(record, "State"), "interrupted") == 0;
    if (strcmp(record_text(record, "State"), "finished") != 0)
        return;
    keeper->finished = ctl_now();
    message_text_set(keeper->result, sizeof(keeper->result), record_text(record, "Result"));
}

static enum verdict start(struct keeper *keeper)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    int r = qmp_execute(keeper->qmp, "cont", NULL, NULL, &trouble);

    if (r >= 0)
        sd_journal_print(LOG_NOTICE, "VM '%s' has arrived, and runs.", keeper->tunnel->vm);
    else if (!keeper->refused)
        sd_journal_print(LOG_ERR, "VM '%s' has arrived, and stands still: %s", keeper->tunnel->vm,
                         trouble.text ? trouble.text : "QEMU does not let it run.");
    keeper->refused = r < 0;
    return GOES_ON;
}

/* All of it is there. The source has let go of it if QEMU's last word has reached it: the tunnel's ledgers
 * say so, and not what its connection came to. */
static enum verdict on_arrived(struct keeper *keeper, const char *state)
{
    if (strcmp(state, "paused") != 0 || !keeper->starts)
        return OVER;
    look_at_tunnel(keeper);
    if (keeper->finished == 0)
        return keeper->interrupted ? GOES_ON : NEARLY;
    if (strcmp(keeper->result, "done") == 0) {
        start(keeper);
        return OVER;
    }
    sd_journal_print(
        LOG_WARNING,
        "All of VM '%s' has arrived, but it stands still: the source may not have let go of it, "
        "for the tunnel says '%s'. If it does not run there, and QEMU has ended there, tell QEMU "
        "here 'cont'.",
        keeper->tunnel->vm, keeper->result[0] ? keeper->result : "nothing");
    return OVER;
}

static enum verdict look(struct keeper *keeper)
{
    struct qemu_info info;
    char state[32];

    if (qemu_query(keeper->qmp, &info, NULL) < 0 || qemu_run_state(keeper->qmp, state, NULL) < 0)
        return OVER;
    switch (info.phase) {
    case QEMU_DONE:
        return on_arrived(keeper, state);
    case QEMU_FAILED: /* and it was told to stay (exit-on-error) */
        sd_journal_print(LOG_WARNING, "VM '%s' has not arrived, says QEMU: %s", keeper->tunnel->vm,
                         info.error[0] ? info.error : info.status);
        return OVER;
    case QEMU_CANCELLED:
        return OVER;
    case QEMU_PAUSED: /* 'receive --resume' needs the monitor */
    case QEMU_POSTCOPY:
        /* The source has sent the devices' state, after which it does not let the VM go on. */
        if (strcmp(state, "paused") == 0 && keeper->starts)
            start(keeper);
        return info.phase == QEMU_PAUSED ? OVER : GOES_ON;
    default:
        break;
    }
    look_at_tunnel(keeper);
    return keeper->finished > 0 && ctl_now() > keeper->finished + SETTLES ? OVER : GOES_ON;
}

static bool on_silent(struct qmp *qmp, uint64_t usec, void *userdata)
{
    return true; /* it holds its lock */
}

void keeper_stay(const struct tunnel *tunnel, struct qmp *qmp, struct settings *before, bool starts)
{
    struct keeper keeper = {.tunnel = tunnel, .qmp = qmp, .starts = starts};
    struct ctl *ctl = tunnel->side->ctl;
    enum verdict verdict;

    qmp_be_patient(qmp, on_silent, NULL);
    ctl->interrupts = 0;
    while (ctl->interrupts == 0 && (verdict = look(&keeper)) != OVER && qmp_is_open(qmp)) {
        unsigned seen = qmp_events(qmp);

        for (uint64_t now = ctl_now(), end = now + (verdict == NEARLY ? NEAR : LOOK);
             now < end && qmp_events(qmp) == seen && ctl->interrupts == 0 && qmp_is_open(qmp);
             now = ctl_now())
            if (ctl_turn(ctl, end - now, NULL) < 0)
                return;
    }
    if (ctl->interrupts > 0)
        sd_journal_print(
            LOG_WARNING,
            "A signal ends the process that lets VM '%s' run when it has arrived: it stands still "
            "then, until QEMU is told 'cont'.",
            tunnel->vm);
    settings_restore(qmp, before);
}
