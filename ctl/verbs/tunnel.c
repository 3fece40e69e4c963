/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/tunnel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/tunnel.h"
#include "ctl/libvirt/cancel.h"
#include "ctl/libvirt/socket.h"
#include "ctl/shell.h"

#define KEEP     (86400 * SECOND) /* what drives it can choose post-copy */
#define END_WAIT (10 * SECOND)    /* for the tunnel to end after what used it */

enum { ARGUMENT_MAX = 4096, COMMAND_MAX = 256 };

/* What stands for what, in the command and in its environment. */
struct word {
    const char *placeholder, *variable;
    char value[URI_MAX];
};

struct run {
    struct ctl *ctl;
    const char *vm, *host;
    struct side source, destination;
    struct tunnel tunnel, far_tunnel;
    struct door *door;
    struct word words[3];
    pid_t pid;
    bool over;
    int status;
};

static bool give(int fd, void *userdata)
{
    return libvirt_supply(userdata, fd, NULL) >= 0;
}

/* What brings the destination's libvirtd, as in ctl/libvirt/way.c. */
static int open_libvirt(struct run *run, struct remote **ret, struct trouble *trouble)
{
    const char *const what[] = {"libvirt-in", run->far_tunnel.path, NULL};

    if (run->source.host || !run->destination.host)
        return trouble_set(trouble, STATUS_USAGE,
                           "--libvirt is for a source on this host and a destination that ssh reaches.");
    if (door_open(run->ctl, give, &run->tunnel, &run->door, trouble) < 0)
        return -1;
    return remote_open(run->ctl, run->destination.host, false, what, ret, trouble);
}

static int make_tunnel(struct run *run, struct trouble *trouble)
{
    const struct arguments *a = &run->ctl->arguments;
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    const struct tunnel_shape shape = {.owner = a->socket_owner,
                                       .layout = a->name ? a->name : run->vm,
                                       .disks = a->disks != NULL,
                                       .libvirt = a->libvirt,
                                       .resume_timeout = KEEP};

    if (tunnel_prepare_as(&run->destination, run->vm, &shape, &run->far_tunnel, &ticket, trouble) < 0 ||
        tunnel_start_as(&run->source, run->vm, ticket, &shape, &run->tunnel, trouble) < 0)
        return -1;
    return tunnel_wait_connected(&run->tunnel, trouble);
}

static int find_words(struct run *run, struct trouble *trouble)
{
    static const char *const names[][2] = {{"{migrate-uri}", "VMFERRY_MIGRATE_URI"},
                                           {"{disks-uri}", "VMFERRY_DISKS_URI"},
                                           {"{dest-uri}", "VMFERRY_DEST_URI"}};
    _cleanup_json_ json_object *record = NULL;

    if (tunnel_read(&run->tunnel, &record, trouble) < 0)
        return -1;
    for (size_t i = 0; i < 3; i++) {
        run->words[i].placeholder = names[i][0];
        run->words[i].variable = names[i][1];
    }
    socket_uri(record_socket(record, "migrate"), run->words[0].value);
    if (run->ctl->arguments.disks)
        socket_uri(record_socket(record, "disks"), run->words[1].value);
    if (run->door)
        door_uri(run->door, run->words[2].value);
    else
        snprintf(run->words[2].value, URI_MAX, "qemu+ssh://%.400s/%s", run->host, libvirt_instance(run->ctl));
    return 0;
}

/* ---- The command ---- */

/* One argument with what its placeholders stand for; NULL where that is too long. */
static char *expand(const struct run *run, const char *text)
{
    char out[ARGUMENT_MAX];
    size_t n = 0;

    while (*text) {
        const struct word *found = NULL;

        for (size_t i = 0; i < 3; i++)
            if (strncmp(text, run->words[i].placeholder, strlen(run->words[i].placeholder)) == 0)
                found = &run->words[i];
        if (n + (found ? strlen(found->value) : 1) >= sizeof(out))
            return NULL;
        if (found) {
            strcpy(out + n, found->value);
            n += strlen(found->value);
            text += strlen(found->placeholder);
        } else {
            out[n++] = *text++;
        }
    }
    out[n] = '\0';
    return strdup(out);
}

static int on_child(sd_event_source *source, const siginfo_t *si, void *userdata)
{
    struct run *run = userdata;

    run->over = true;
    run->status = si->si_code == CLD_EXITED ? si->si_status : 128 + si->si_status;
    return 0;
}

static void child(const struct run *run, char **argv, pid_t parent)
{
    sigset_t none;

    /* A command whose vmferryctl is killed must not go on with a tunnel that ends under it. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
    for (size_t i = 0; i < 3; i++)
        if (run->words[i].value[0])
            setenv(run->words[i].variable, run->words[i].value, true);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], argv);
    fprintf(stderr, "vmferryctl: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/*
 * Runs it to its end. Ctrl-C reaches it by itself, and SIGTERM (or SIGHUP) is passed on to it; it decides.
 * Its status, or -1.
 */
static int run_command(struct run *run, struct trouble *trouble)
{
    const struct arguments *a = &run->ctl->arguments;
    char *argv[COMMAND_MAX] = {0};
    pid_t parent = getpid();
    bool told = false;
    sigset_t chld;
    int r = 0;

    for (int i = 2; r == 0 && i < a->n_operands && i < COMMAND_MAX; i++) {
        argv[i - 2] = expand(run, a->operands[i]);
        if (!argv[i - 2])
            r = trouble_set(trouble, STATUS_USAGE, "'%.40s…' is too long with what is to stand in it.",
                            a->operands[i]);
    }
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    if (r == 0) {
        run->pid = fork();
        if (run->pid == 0)
            child(run, argv, parent);
        if (run->pid < 0 || sd_event_add_child(run->ctl->event, NULL, run->pid, WEXITED, on_child, run) < 0)
            r = trouble_set(trouble, STATUS_FAILED, "Cannot start %s: %s.", argv[0], strerror(errno));
    }
    for (int i = 0; i < COMMAND_MAX; i++)
        free(argv[i]);
    while (r == 0 && !run->over) {
        if (run->ctl->hangup && !told)
            kill(run->pid, SIGTERM);
        told = run->ctl->hangup;
        if (ctl_turn(run->ctl, UINT64_MAX, trouble) < 0)
            r = -1;
    }
    return r < 0 ? -1 : run->status;
}

/* ---- Without one ---- */

static void say_how(const struct run *run)
{
    char command[SHELL_COMMAND_MAX] = "virsh migrate";

    shell_append(command, sizeof(command), run->vm);
    shell_append(command, sizeof(command), run->words[2].value);
    for (const char *const *word =
             (const char *const[]){"--live", "--p2p", "--migrateuri", run->words[0].value, NULL};
         *word; word++)
        shell_append(command, sizeof(command), *word);
    if (run->words[1].value[0])
        for (const char *const *word =
                 (const char *const[]){"--copy-storage-all", "--disks-uri", run->words[1].value, NULL};
             *word; word++)
            shell_append(command, sizeof(command), *word);
    puts(command);
    ctl_say(run->ctl,
            "The tunnel stays until the migration through it is over; Ctrl-C takes it away before.");
}

static int stay(struct run *run, struct trouble *trouble)
{
    say_how(run);
    if (ctl_flush(trouble) < 0)
        return -1;
    while (run->ctl->interrupts == 0) {
        _cleanup_json_ json_object *record = NULL;

        if (tunnel_wait_finished(&run->tunnel, SECOND, &record, trouble) < 0)
            return -1;
        if (strcmp(record_text(record, "State"), "finished") != 0)
            continue;
        if (strcmp(record_text(record, "Result"), "done") == 0)
            return STATUS_DONE;
        return trouble_set(trouble,
                           trouble_status_of(record_text(record, "Result"), record_text(record, "ErrorName")),
                           "%s", record_text(record, "ErrorMessage"));
    }
    return STATUS_CANCELLED;
}

/* ---- Its end ---- */

/* Whether something goes on through the tunnel: libvirt is told to end it, which it does before post-copy. */
static int end_migration(struct run *run, struct trouble *trouble)
{
    struct found found = {.role = "outgoing", .state = "active"};

    snprintf(found.id, sizeof(found.id), "%s", tunnel_id(&run->tunnel));
    snprintf(found.path, sizeof(found.path), "%s", run->tunnel.path);
    snprintf(found.vm, sizeof(found.vm), "%s", run->vm);
    return libvirt_cancel(&run->source, &found, trouble);
}

/* A post-copy goes on without what began it, and must not lose its tunnel. false: why says why. */
static bool may_end(struct run *run, json_object *record, struct trouble *why)
{
    const char *state = record_text(record, "State");

    if (strcmp(state, "active") == 0)
        return end_migration(run, why) >= 0;
    if (strcmp(state, "interrupted") == 0)
        return trouble_set(why, STATUS_FAILED,
                           "The network is lost, and a post-copy goes on by itself when it is back.") >= 0;
    return true;
}

/* What was used comes to its end soon after a command that went well. As tunnel_wait_finished(). */
static int wait_for_end(const struct run *run, int status, json_object **ret)
{
    int r = tunnel_wait_finished(&run->tunnel, 0, ret, NULL);

    if (r != 0 || status != 0 || strcmp(record_text(*ret, "State"), "connected") == 0)
        return r;
    json_object_put(*ret);
    *ret = NULL;
    return tunnel_wait_finished(&run->tunnel, END_WAIT, ret, NULL);
}

/* Takes away what is left of the tunnel. false: it stays, which was said. */
static bool end(struct run *run, int status)
{
    _cleanup_(trouble_clear) struct trouble why = {0};
    _cleanup_json_ json_object *record = NULL;
    int r = run->tunnel.path ? wait_for_end(run, status, &record) : 0;

    if (r == 0 && run->tunnel.path && !may_end(run, record, &why)) {
        ctl_say(run->ctl,
                "Tunnel %s is left. %s Once the VM is where it should be:  vmferryctl cancel --force %s",
                tunnel_id(&run->tunnel), why.text ? why.text : "", tunnel_id(&run->tunnel));
        return false;
    }
    if (r == 0) {
        tunnel_cancel(&run->tunnel);
        tunnel_cancel(&run->far_tunnel);
    }
    return true;
}

static void run_clear(struct run *run)
{
    door_close(run->door);
    tunnel_clear(&run->tunnel);
    tunnel_clear(&run->far_tunnel);
    side_close(&run->destination);
    side_close(&run->source);
}

int verb_tunnel(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(run_clear) struct run run = {
        .ctl = ctl, .vm = ctl->arguments.operands[0], .host = ctl->arguments.operands[1]};
    _cleanup_(remote_freep) struct remote *supplier = NULL;
    int r = -1;
    bool gone;

    if (ctl_catch_signals(ctl, trouble) < 0 || side_open(ctl, &run.source, trouble) < 0 ||
        side_open_host(ctl, run.host, &run.destination, trouble) < 0)
        return -1;
    if (make_tunnel(&run, trouble) >= 0 &&
        (!ctl->arguments.libvirt || open_libvirt(&run, &supplier, trouble) >= 0) &&
        find_words(&run, trouble) >= 0)
        r = ctl->arguments.n_operands > 2 ? run_command(&run, trouble) : stay(&run, trouble);
    gone = end(&run, r);
    if (r != STATUS_CANCELLED || ctl->arguments.n_operands > 2)
        return r;
    return gone ? trouble_set(trouble, STATUS_CANCELLED, "Cancelled: the tunnel for VM '%s' is gone.", run.vm)
                : STATUS_FAILED;
}
