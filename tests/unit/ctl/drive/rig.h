/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A world for drive/: two QEMUs that follow a script, a tunnel, and a clock that only the waiting sets
 * forward. What drive/ calls below it is defined here, in the place of qemu/, bus/, peers.c and loop.c, which
 * are not linked then; what it does to them is written down in rig.log, one word or two per deed. A VM that
 * is started at the destination before the source has let go fails whatever case it is in.
 */

#include "test-util.h"

#include "ctl/bus/report.h"
#include "ctl/drive/drive.h"
#include "ctl/drive/handover.h"
#include "ctl/terminal/meter.h"

/* What a QEMU says at one look; the last step stays. */
struct step {
    enum qemu_phase phase;
    const char *status;   /* NULL: after the last one */
    const char *run;      /* its VM's run state; NULL: as before */
    uint64_t transferred; /* bytes */
    uint64_t passes;
    bool ctrl_c; /* pressed right then */
    bool gone;   /* it does not answer, and never will */
};

struct qmp {
    const char *name;
    const struct step *step;
    char run[32];
    const char *arrives; /* its run state from the second time that it is asked; NULL: as before */
    const char *goes_on; /* what it is after 'cont'; NULL: "running" */
    unsigned stops;      /* how often its VM stopped */
    unsigned refusals;   /* of 'cont', before it does it */
    bool gone, ended;    /* ended: it is gone because it has ended */
    const struct step *on_cancel, *on_resume;
};

static struct rig {
    struct ctl ctl;
    struct side here, there;
    struct ends ends;
    struct qmp source, destination;
    const char *tunnel_state, *tunnel_result; /* of its record; no state: the brokers do not know it */
    const char *outcome;                      /* that the source's broker was told last; "": none */
    unsigned n_outcomes;                      /* that it was told */
    uint64_t took;                            /* ms, as the source says */
    unsigned knows_late;                      /* how often it does not say it yet */
    const char *phase;                        /* that it was told last */
    char phases[128];                         /* all of them */
    bool socket_refused, source_cut, destination_cut;
    bool held;   /* the destination was told 'stop' while it waited: it does not start the VM by itself */
    bool came;   /* the destination has said that it has the VM, which does not run yet */
    bool let_go; /* the source has said what it cannot take back */
    uint64_t now;
    char log[1024], said[1024];
    struct trouble trouble;
} rig;

static void deed(const char *who, const char *what)
{
    size_t n = strlen(rig.log);

    snprintf(rig.log + n, sizeof(rig.log) - n, "%s%s%s%s", n ? ", " : "", who, who[0] ? " " : "", what);
}

/* ---- loop.c ---- */

uint64_t ctl_now(void)
{
    return rig.now;
}

int ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble)
{
    assert_true(usec > 0 && usec < UINT64_MAX);
    rig.now += usec;
    return 0;
}

void ctl_say(const struct ctl *ctl, const char *format, ...)
{
    size_t n = strlen(rig.said);
    va_list args;

    va_start(args, format);
    vsnprintf(rig.said + n, sizeof(rig.said) - n, format, args);
    va_end(args);
}

/* ---- qemu/ ---- */

static void set_run(struct qmp *qmp, const char *state)
{
    if (strcmp(qmp->run, "running") == 0 && strcmp(state, "running") != 0)
        qmp->stops++;
    snprintf(qmp->run, sizeof(qmp->run), "%s", state);
}

/* In post-copy that is what it answers after the destination had the devices' state. */
static bool has_let_go(enum qemu_phase phase)
{
    return phase == QEMU_DONE || ((phase == QEMU_POSTCOPY || phase == QEMU_PAUSED) && rig.came);
}

int qemu_query(struct qmp *qmp, struct qemu_info *ret, struct trouble *trouble)
{
    const struct step *step = qmp->step;

    qmp->gone = qmp->gone || step->gone;
    if (qmp->gone)
        return trouble_set(trouble, STATUS_FAILED, "QEMU (%s) is gone.", qmp->name);
    *ret = (struct qemu_info){.phase = step->phase, .transferred = step->transferred, .passes = step->passes};
    snprintf(ret->status, sizeof(ret->status), "%s", step->status);
    if (step->phase == QEMU_FAILED)
        snprintf(ret->error, sizeof(ret->error), "no more luck");
    if (step->run)
        set_run(qmp, step->run);
    if (qmp == &rig.source)
        rig.let_go = has_let_go(step->phase);
    rig.ctl.interrupts += step->ctrl_c;
    if (step[1].status || step[1].gone)
        qmp->step++;
    return 0;
}

int qemu_run_state(struct qmp *qmp, char ret[static 32], struct trouble *trouble)
{
    if (qmp->gone)
        return trouble_set(trouble, STATUS_FAILED, "QEMU (%s) is gone.", qmp->name);
    snprintf(ret, 32, "%s", qmp->run);
    rig.came = rig.came || (qmp == &rig.destination && strcmp(ret, "paused") == 0);
    if (qmp->arrives)
        set_run(qmp, qmp == &rig.destination && !rig.held ? "running" : qmp->arrives);
    qmp->arrives = NULL;
    return 0;
}

void qemu_query_times(struct qmp *qmp, struct qemu_info *info)
{
    if (rig.knows_late > 0)
        rig.knows_late--;
    else
        info->total_msec = rig.took;
}

int qemu_migrate(struct qmp *qmp, const char *socket, bool resume, struct trouble *trouble)
{
    assert_string_equal(socket, "/source.sock");
    deed(qmp->name, resume ? "resumes" : "migrates");
    if (resume && qmp->on_resume)
        qmp->step = qmp->on_resume;
    return 0;
}

int qemu_listen(struct qmp *qmp, const char *socket, bool recover, struct trouble *trouble)
{
    assert_string_equal(socket, "/destination.sock");
    deed(qmp->name, recover ? "listens again" : "listens");
    return 0;
}

void settings_restore(struct qmp *qmp, struct settings *before)
{
    deed(qmp->name, "restored");
}

void settings_clear(struct settings *settings)
{
}

const char *qemu_hint_at_owner(const char *error)
{
    return "";
}

static int hear_cont(struct qmp *qmp, struct trouble *trouble)
{
    if (qmp != &rig.destination || !rig.let_go)
        fail_msg("the VM is started while the source can let it go on: %s", rig.log);
    if (qmp->refusals > 0) {
        qmp->refusals--;
        return trouble_set(trouble, STATUS_FAILED, "QEMU (%s) says: not now.", qmp->name);
    }
    set_run(qmp, qmp->goes_on ? qmp->goes_on : "running");
    return 0;
}

int qmp_execute(struct qmp *qmp, const char *command, json_object *arguments, json_object **ret,
                struct trouble *trouble)
{
    json_object_put(arguments);
    deed(qmp->name, command);
    if (strcmp(command, "migrate_cancel") == 0 && qmp->on_cancel)
        qmp->step = qmp->on_cancel;
    if (strcmp(command, "stop") == 0) {
        rig.held = rig.held || (qmp == &rig.destination && strcmp(qmp->run, "inmigrate") == 0);
        if (strcmp(qmp->run, "running") == 0)
            set_run(qmp, "paused");
    }
    return strcmp(command, "cont") == 0 ? hear_cont(qmp, trouble) : 0;
}

int qmp_open(struct side *side, const char *path, struct qmp **ret, struct trouble *trouble)
{
    assert_ptr_equal(side, &rig.there);
    deed("destination", "opened");
    rig.destination.gone = false;
    *ret = &rig.destination;
    return 0;
}

void qmp_be_patient(struct qmp *qmp, qmp_silent_t on_silent, void *userdata)
{
}

uint64_t qmp_silence(const struct qmp *qmp)
{
    return 0;
}

bool qmp_is_open(const struct qmp *qmp)
{
    return !qmp->gone;
}

bool qmp_has_ended(const struct qmp *qmp)
{
    return qmp->gone && qmp->ended;
}

unsigned qmp_stops(const struct qmp *qmp)
{
    return qmp->stops;
}

const char *qmp_shutdown(const struct qmp *qmp)
{
    return "";
}

uid_t qmp_uid(const struct qmp *qmp)
{
    return 107;
}

unsigned qmp_events(const struct qmp *qmp)
{
    return 0;
}

const char *qmp_name(const struct qmp *qmp)
{
    return qmp->name;
}

void qmp_free(struct qmp *qmp)
{
}

/* ---- bus/ ---- */

static char near[] = "near", far[] = "far", from[] = "/source.sock", to[] = "/destination.sock";

static json_object *record(void)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "State", json_object_new_string(rig.tunnel_state ? rig.tunnel_state : ""));
    json_object_object_add(object, "Result", json_object_new_string(rig.tunnel_result));
    return object;
}

int tunnel_read(const struct tunnel *tunnel, json_object **ret, struct trouble *trouble)
{
    if (!tunnel->path)
        return trouble_set(trouble, STATUS_FAILED, "There is no tunnel.");
    if (!rig.tunnel_state)
        return trouble_set(trouble, STATUS_FAILED, "Cannot read it: " TROUBLE_GONE ".");
    *ret = record();
    return 0;
}

int tunnel_wait_finished(const struct tunnel *tunnel, uint64_t usec, json_object **ret,
                         struct trouble *trouble)
{
    if (!tunnel->path)
        return trouble_set(trouble, STATUS_FAILED, "There is no tunnel.");
    *ret = record();
    return rig.tunnel_result[0] != '\0';
}

void report_progress(const struct tunnel *tunnel, const struct report_progress *progress)
{
    size_t n = strlen(rig.phases);

    if (tunnel == &rig.ends.tunnel && (!rig.phase || strcmp(rig.phase, progress->phase) != 0))
        snprintf(rig.phases + n, sizeof(rig.phases) - n, "%s%s", n ? ", " : "", progress->phase);
    rig.phase = progress->phase;
}

void report_outcome(const struct tunnel *tunnel, const struct outcome *outcome)
{
    if (tunnel != &rig.ends.tunnel)
        return;
    rig.outcome = vf_outcome_to_string(outcome->outcome);
    rig.n_outcomes++;
}

void tunnel_cancel(const struct tunnel *tunnel)
{
    bool *cut = tunnel == &rig.ends.tunnel ? &rig.source_cut : &rig.destination_cut;

    if (!tunnel->path)
        return;
    if (!*cut)
        deed(tunnel->path, "cut");
    *cut = true;
}

int tunnel_check_socket(const struct tunnel *tunnel, uid_t qemu, struct trouble *trouble)
{
    assert_int_equal(qemu, 107);
    assert_non_null(tunnel->path);
    return rig.socket_refused ? trouble_set(trouble, STATUS_DENIED, "The socket is another user's.") : 0;
}

const char *tunnel_id(const struct tunnel *tunnel)
{
    return "0123456789abcdef";
}

void tunnel_clear(struct tunnel *tunnel)
{
}

int tunnel_find(struct side *side, const char *vm, const char *role, uid_t qemu, struct tunnel *ret,
                struct trouble *trouble)
{
    fail_msg("drive_run() looks for a tunnel, which it was given");
    return -1;
}

/* Another pair, in the place of one that has finished; they have the same paths again. */
int tunnel_prepare_as(struct side *side, const char *vm, const struct tunnel_shape *shape, struct tunnel *ret,
                      char **ret_ticket, struct trouble *trouble)
{
    assert_ptr_equal(side, &rig.there);
    *ret = (struct tunnel){.side = side, .path = far, .socket = to};
    deed(far, "prepared");
    return 0;
}

int tunnel_start_as(struct side *side, const char *vm, const char *ticket, const struct tunnel_shape *shape,
                    struct tunnel *ret, struct trouble *trouble)
{
    assert_ptr_equal(side, &rig.here);
    *ret = (struct tunnel){.side = side, .path = near, .socket = from};
    deed(near, "started");
    rig.tunnel_state = "active";
    rig.source_cut = rig.destination_cut = false;
    return 0;
}

int tunnel_wait_connected(const struct tunnel *tunnel, struct trouble *trouble)
{
    return 0;
}

const char *tunnel_owner(const struct arguments *arguments, uid_t uid, char ret[static 16])
{
    return "";
}

void tunnel_forget_ticket(char **ticket)
{
}

int side_open_host(struct ctl *ctl, const char *host, struct side *ret, struct trouble *trouble)
{
    deed(host, "reached");
    return 0;
}

void side_close(struct side *side)
{
}

int side_call(struct side *side, const char *path, const char *interface, const char *member,
              sd_bus_message **ret, struct trouble *trouble, const char *doing, const char *types, ...)
{
    fail_msg("%s is called past the tunnel", member);
    return -1;
}

/* ---- peers.c ---- */

int peers_new(const struct tunnel *source, const struct tunnel *destination, unsigned channels,
              struct peers **ret, struct trouble *trouble)
{
    fail_msg("no case has --ssh");
    return -1;
}

int peers_supply(struct peers *peers, struct trouble *trouble)
{
    fail_msg("no case has --ssh");
    return -1;
}

void peers_mend(struct peers *peers)
{
}

void peers_leave(struct peers *peers)
{
}

void peers_free(struct peers *peers)
{
}

/* ---- What the cases say ---- */

/*
 * 'migrate' from a source to a destination, both in hand; a script each. The destination was told to wait,
 * as the verb does.
 */
static void begin(const struct step *source, const struct step *destination)
{
    rig = (struct rig){
        .outcome = "",
        .tunnel_state = "active",
        .tunnel_result = "done",
        .now = 1000 * SECOND,
        .source = {.name = "source", .step = source, .run = "running"},
        .destination = {.name = "destination", .step = destination, .run = "inmigrate", .arrives = "paused"},
        .ends = {.ctl = &rig.ctl,
                 .vm = "web1",
                 .host = "host2",
                 .source = &rig.here,
                 .qmp = &rig.source,
                 .destination = &rig.there,
                 .destination_qmp = &rig.destination}};
    rig.ends.tunnel = (struct tunnel){.side = &rig.here, .path = near, .socket = from};
    rig.ends.destination_tunnel = (struct tunnel){.side = &rig.there, .path = far, .socket = to};
    rig.ctl.arguments.quiet = true;
    assert_return_code(handover_hold(&rig.ends, &rig.trouble), 0);
    assert_string_equal(rig.log, "destination stop");
    assert_true(rig.held && rig.ends.held);
    rig.log[0] = '\0';
}

/* The destination has had this run state since before the case begins. */
static void is_there(const char *state)
{
    rig.destination.arrives = NULL;
    snprintf(rig.destination.run, sizeof(rig.destination.run), "%s", state);
}

/* 'send': the source alone. */
static void begin_send(const struct step *source)
{
    begin(source, NULL);
    rig.ends.destination = NULL;
    rig.ends.destination_qmp = NULL;
    rig.ends.destination_tunnel = (struct tunnel){0};
}
