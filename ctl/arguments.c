/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/arguments.h"

#include <assert.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/units.h"

#define V(name) (1U << VERB_##name)
#define ALL     (~0U)
#define DRIVE   (V(RECEIVE) | V(SEND) | V(MIGRATE))

struct verb_rule {
    const char *name;
    const char *operands; /* for people; "[" begins what may be left out, "…" says that there may be more */
    int min, max;
    const char *help;
};

static const struct verb_rule verbs[VERB_MAX_] = {
    [VERB_LIST] = {"list", "", 0, 0, "the migrations of this host"},
    [VERB_STATUS] = {"status", "[MIGRATION…]", 0, 64, "all about them; without one: the broker"},
    [VERB_SHOW] = {"show", "[MIGRATION…]", 0, 64, "their properties, for scripts"},
    [VERB_WATCH] = {"watch", "MIGRATION", 1, 1, "its progress, until it is finished"},
    [VERB_WAIT] = {"wait", "MIGRATION…", 1, 64, "return when they are finished"},
    [VERB_CANCEL] = {"cancel", "MIGRATION…", 1, 64, "end them on both hosts"},
    [VERB_LIMIT] = {"limit", "MIGRATION RATE", 2, 2, "bytes/s it may take of QEMU: 100M; 0: no limit"},
    [VERB_FORGET] = {"forget", "MIGRATION…", 1, 64, "remove finished ones from the list"},
    [VERB_RECEIVE] = {"receive", "VM", 1, 1, "at the destination: expect VM, print the ticket"},
    [VERB_SEND] = {"send", "VM", 1, 1, "at the source: take the ticket, and move VM"},
    [VERB_MIGRATE] = {"migrate", "VM HOST", 2, 2, "both of it: move VM to HOST, over ssh"},
    [VERB_CHECK] = {"check", "[HOST]", 0, 1, "what would stop a migration (to HOST)"},
    [VERB_METRICS] = {"metrics", "", 0, 0, "figures as OpenMetrics text"},
    [VERB_STDIO] = {"stdio", "WHAT [ARGUMENT…]", 1, 3, NULL},
};

struct option_rule {
    const char *name;
    char letter;
    const char *argument; /* NULL: takes none; "[…": may be left out */
    unsigned verbs;
    const char *help; /* NULL: in common_help */
};

enum option_id {
    OPTION_HOST,
    OPTION_USER,
    OPTION_ADDRESS,
    OPTION_JSON,
    OPTION_J,
    OPTION_QUIET,
    OPTION_NO_LEGEND,
    OPTION_NO_PAGER,
    OPTION_NO_ASK_PASSWORD,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_PROPERTY,
    OPTION_VALUE,
    OPTION_FORCE,
    OPTION_TIMEOUT,
    OPTION_QMP,
    OPTION_DST_QMP,
    OPTION_SSH,
    OPTION_POSTCOPY,
    OPTION_MULTIFD,
    OPTION_RESUME,
    OPTION_BANDWIDTH,
    OPTION_DOWNTIME_LIMIT,
    OPTION_TICKET_FILE,
    OPTION_SECURITY,
    OPTION_SOCKET,
    OPTION_SOCKET_OWNER,
    OPTION_ENDPOINT,
    OPTION_EXPIRE,
    OPTION_RESUME_TIMEOUT,
    OPTION_OUTPUT,
    OPTION_MAX_,
};

static const struct option_rule rules[OPTION_MAX_] = {
    [OPTION_HOST] = {"host", 'H', "[USER@]HOST", ALL, NULL},
    [OPTION_USER] = {"user", 0, NULL, ALL, NULL},
    [OPTION_ADDRESS] = {"address", 0, "ADDRESS", ALL, NULL},
    [OPTION_JSON] = {"json", 0, "MODE", ALL, NULL},
    [OPTION_J] = {NULL, 'j', NULL, ALL, NULL},
    [OPTION_QUIET] = {"quiet", 'q', NULL, ALL, NULL},
    [OPTION_NO_LEGEND] = {"no-legend", 0, NULL, ALL, NULL},
    [OPTION_NO_PAGER] = {"no-pager", 0, NULL, ALL, NULL},
    [OPTION_NO_ASK_PASSWORD] = {"no-ask-password", 0, NULL, ALL, NULL},
    [OPTION_HELP] = {"help", 'h', NULL, ALL, NULL},
    [OPTION_VERSION] = {"version", 'V', NULL, ALL, NULL},
    [OPTION_PROPERTY] = {"property", 'p', "NAME", V(SHOW), "only this one; may be given again"},
    [OPTION_VALUE] = {"value", 0, NULL, V(SHOW), "values without their names"},
    [OPTION_FORCE] = {"force", 0, NULL, V(CANCEL), "even if that can lose the guest"},
    [OPTION_TIMEOUT] = {"timeout", 0, "TIME", V(WAIT), "give up after this long"},
    [OPTION_QMP] = {"qmp", 0, "SOCKET", DRIVE | V(CANCEL), "QEMU's monitor: drive it, too"},
    [OPTION_DST_QMP] = {"dst-qmp", 0, "SOCKET", V(MIGRATE), "that of the QEMU at HOST"},
    [OPTION_SSH] = {"ssh", 0, NULL, V(MIGRATE), "QEMU's bytes go through ssh as well"},
    [OPTION_POSTCOPY] = {"postcopy", 0, "[WHEN]", DRIVE, "now; or WHEN: 'after TIME', 'auto'"},
    [OPTION_MULTIFD] = {"multifd", 0, "N", DRIVE, "pre-copy over N connections at once"},
    [OPTION_RESUME] = {"resume", 0, NULL, DRIVE, "recover a post-copy that is paused"},
    [OPTION_BANDWIDTH] = {"bandwidth", 0, "RATE", V(SEND) | V(MIGRATE),
                          "bytes/s QEMU may send (default: no limit)"},
    [OPTION_DOWNTIME_LIMIT] = {"downtime-limit", 0, "TIME", V(SEND) | V(MIGRATE),
                               "how long the VM may stand still"},
    [OPTION_TICKET_FILE] = {"ticket-file", 0, "FILE", V(SEND), "where the ticket is (default -: stdin)"},
    [OPTION_SECURITY] = {"security", 0, "WHICH", DRIVE, "tls or plain (default tls)"},
    [OPTION_SOCKET] = {"socket", 0, "PATH", V(RECEIVE) | V(SEND), "where QEMU's socket is to be"},
    [OPTION_SOCKET_OWNER] = {"socket-owner", 0, "USER", DRIVE, "whose QEMU's socket is"},
    [OPTION_ENDPOINT] = {"endpoint", 0, "ENDPOINT", DRIVE, "where to reach the destination"},
    [OPTION_EXPIRE] = {"expire", 0, "TIME", DRIVE, "how long to wait for the other host (60)"},
    [OPTION_RESUME_TIMEOUT] = {"resume-timeout", 0, "TIME", DRIVE, "how long to outlive a lost network (60)"},
    [OPTION_OUTPUT] = {"output", 'o', "FILE", V(METRICS), "write there, all at once"},
};

const char *verb_name(enum verb_id verb)
{
    return verbs[verb].name;
}

/* ---- Reading ---- */

static int bad(struct trouble *trouble, enum option_id id, const char *text, const char *what)
{
    return trouble_set(trouble, STATUS_USAGE, "--%s=%s: %s", rules[id].name, text, what);
}

static int read_json(struct arguments *a, const char *text, struct trouble *trouble)
{
    static const char *const names[] = {[JSON_OFF] = "off", [JSON_SHORT] = "short", [JSON_PRETTY] = "pretty"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0) {
            a->json = i;
            return 0;
        }
    return bad(trouble, OPTION_JSON, text, "it can be short, pretty or off.");
}

static int read_postcopy(struct arguments *a, const char *text, struct trouble *trouble)
{
    a->postcopy = POSTCOPY_NOW;
    if (!text)
        return 0;
    if (strcmp(text, "auto") == 0) {
        a->postcopy = POSTCOPY_AUTO;
        return 0;
    }
    a->postcopy = POSTCOPY_AFTER;
    if (strncmp(text, "after ", 6) == 0 && parse_time(text + 6, &a->postcopy_after))
        return 0;
    return bad(trouble, OPTION_POSTCOPY, text,
               "it can be 'after 30' (seconds) or 'auto'; alone it means at once.");
}

static int read_text_list(struct text_list *list, enum option_id id, const char *text,
                          struct trouble *trouble)
{
    if (text[0] == '\0')
        return bad(trouble, id, text, "it is empty.");
    if (list->n == ARGUMENTS_MANY_MAX)
        return bad(trouble, id, text, "it is given more than 16 times.");
    list->texts[list->n++] = text;
    return 0;
}

static int read_time(uint64_t *ret, enum option_id id, const char *text, bool zero, struct trouble *trouble)
{
    if (parse_time(text, ret) && (zero || *ret > 0))
        return 0;
    return bad(trouble, id, text,
               "it is no time. Give seconds, or a unit: 90, 300ms, 2min, 1h; at most a day.");
}

static int read_texts(struct arguments *a, enum option_id id, const char *text, struct trouble *trouble)
{
    const struct {
        enum option_id id;
        const char **to;
    } texts[] = {
        {OPTION_HOST, &a->host},         {OPTION_ADDRESS, &a->address},
        {OPTION_QMP, &a->qmp},           {OPTION_DST_QMP, &a->dst_qmp},
        {OPTION_SOCKET, &a->socket},     {OPTION_SOCKET_OWNER, &a->socket_owner},
        {OPTION_SECURITY, &a->security}, {OPTION_TICKET_FILE, &a->ticket_file},
        {OPTION_OUTPUT, &a->output},
    };

    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].id != id)
            continue;
        if (text[0] == '\0')
            return bad(trouble, id, text, "it is empty.");
        *texts[i].to = text;
        return 0;
    }
    return bad(trouble, id, text, "it cannot be used.");
}

static bool read_flag(struct arguments *a, enum option_id id)
{
    const struct {
        enum option_id id;
        bool *to;
    } flags[] = {
        {OPTION_USER, &a->user},           {OPTION_QUIET, &a->quiet},
        {OPTION_NO_LEGEND, &a->no_legend}, {OPTION_NO_PAGER, &a->no_pager},
        {OPTION_HELP, &a->help},           {OPTION_NO_ASK_PASSWORD, &a->no_ask_password},
        {OPTION_VERSION, &a->version},     {OPTION_VALUE, &a->value},
        {OPTION_FORCE, &a->force},         {OPTION_SSH, &a->ssh},
        {OPTION_RESUME, &a->resume},
    };

    for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (flags[i].id == id) {
            *flags[i].to = true;
            return true;
        }
    return false;
}

static int read_option(struct arguments *a, enum option_id id, const char *text, struct trouble *trouble)
{
    if (read_flag(a, id))
        return 0;
    switch (id) {
    case OPTION_JSON:
        return read_json(a, text, trouble);
    case OPTION_J:
        a->json = JSON_SHORT; /* arguments_parse() looks whether there is a terminal */
        return 0;
    case OPTION_PROPERTY:
        return read_text_list(&a->properties, id, text, trouble);
    case OPTION_ENDPOINT:
        return read_text_list(&a->endpoints, id, text, trouble);
    case OPTION_POSTCOPY:
        return read_postcopy(a, text, trouble);
    case OPTION_MULTIFD:
        return parse_number(text, 1, 255, &a->multifd)
                   ? 0
                   : bad(trouble, id, text, "it is no number from 1 to 255.");
    case OPTION_BANDWIDTH:
        return parse_size(text, &a->bandwidth)
                   ? 0
                   : bad(trouble, id, text,
                         "it is no rate. Give bytes per second: 100M, 1.5G; 0 for no limit.");
    case OPTION_DOWNTIME_LIMIT:
        return read_time(&a->downtime_limit, id, text, false, trouble);
    case OPTION_EXPIRE:
        return read_time(&a->expire, id, text, false, trouble);
    case OPTION_TIMEOUT:
        return read_time(&a->timeout, id, text, false, trouble);
    case OPTION_RESUME_TIMEOUT:
        a->has_resume_timeout = true;
        return read_time(&a->resume_timeout, id, text, true, trouble);
    default:
        return read_texts(a, id, text, trouble);
    }
}

/* What getopt_long(3) wants, from our table. */
static void make_getopt(struct option ret[static OPTION_MAX_ + 1], char letters[static 3 * OPTION_MAX_])
{
    size_t n = 0, at = 0;

    letters[at++] = ':';
    for (unsigned i = 0; i < OPTION_MAX_; i++) {
        const struct option_rule *rule = &rules[i];
        int has = !rule->argument                         ? no_argument
                  : strcmp(rule->argument, "[WHEN]") == 0 ? optional_argument
                                                          : required_argument;

        if (rule->name)
            ret[n++] = (struct option){rule->name, has, NULL, 256 + (int)i};
        if (rule->letter) {
            letters[at++] = rule->letter;
            if (has == required_argument)
                letters[at++] = ':';
        }
    }
    ret[n] = (struct option){0};
    letters[at] = '\0';
}

/* c is a letter of the rules, or 256 + the id: getopt_long(3) returns nothing else but '?' and ':'. */
static enum option_id option_of(int c)
{
    unsigned id = 0;

    if (c >= 256)
        id = (unsigned)c - 256;
    else
        while (id < OPTION_MAX_ && rules[id].letter != c)
            id++;
    assert(id < OPTION_MAX_);
    return id;
}

static int unknown(char **argv, int c, struct trouble *trouble)
{
    const char *given = argv[optind - 1];

    if (c == ':')
        return trouble_set(trouble, STATUS_USAGE, "%s wants a value. See --help.", given);
    if (optopt >= 256)
        return trouble_set(trouble, STATUS_USAGE, "%s takes no value. See --help.", given);
    if (optopt > 0)
        return trouble_set(trouble, STATUS_USAGE, "There is no option -%c. See --help.", optopt);
    return trouble_set(trouble, STATUS_USAGE,
                       "There is no option %s, or it is not the only one that begins so. See --help.", given);
}

static int read_verb(struct arguments *a, unsigned long long given, struct trouble *trouble)
{
    const char *name = a->n_operands > 0 ? a->operands[0] : "list";
    const struct verb_rule *verb;

    for (a->verb = 0; a->verb < VERB_MAX_; a->verb++)
        if (strcmp(name, verbs[a->verb].name) == 0)
            break;
    if (a->verb == VERB_MAX_)
        return trouble_set(trouble, STATUS_USAGE, "There is no verb '%s'. See 'vmferryctl --help'.", name);
    verb = &verbs[a->verb];
    a->verb_given = a->n_operands > 0;
    if (a->verb_given) {
        a->operands++;
        a->n_operands--;
    }
    for (unsigned i = 0; i < OPTION_MAX_; i++)
        if ((given & (1ULL << i)) && !(rules[i].verbs & (1U << a->verb)))
            return trouble_set(trouble, STATUS_USAGE, "'%s' has no option --%s. See 'vmferryctl %s --help'.",
                               verb->name, rules[i].name, verb->name);
    if (a->help || a->version)
        return 0;
    for (int i = 0; i < a->n_operands; i++)
        if (strncmp(a->operands[i], "vmferry1:", 9) == 0)
            return trouble_set(
                trouble, STATUS_USAGE,
                "That is a ticket, and everybody on this host can read command lines. Do not use it any "
                "more: prepare another one, and give it on stdin or with --ticket-file=.");
    if (a->n_operands < verb->min || a->n_operands > verb->max)
        return trouble_set(trouble, STATUS_USAGE,
                           "The command is 'vmferryctl %s%s%s'. See 'vmferryctl %s --help'.", verb->name,
                           verb->operands[0] ? " " : "", verb->operands, verb->name);
    return 0;
}

static int check_together(const struct arguments *a, struct trouble *trouble)
{
    if ((a->host != NULL) + (a->address != NULL) + a->user > 1 && !(a->host && a->user))
        return trouble_set(trouble, STATUS_USAGE, "--address= goes with neither --host= nor --user.");
    if (a->verb == VERB_MIGRATE && (!a->qmp || !a->dst_qmp))
        return trouble_set(
            trouble, STATUS_USAGE,
            "'migrate' drives both QEMUs: give it --qmp=SOCKET and --dst-qmp=SOCKET, the paths of their "
            "monitors (QEMU's option -qmp unix:SOCKET,server=on,wait=off).");
    if ((a->postcopy || a->multifd || a->resume || a->bandwidth || a->downtime_limit) && !a->qmp)
        return trouble_set(
            trouble, STATUS_USAGE,
            "--postcopy, --multifd, --resume, --bandwidth and --downtime-limit are things to tell QEMU: "
            "give --qmp=SOCKET as well.");
    if (a->ssh && a->endpoints.n > 0)
        return trouble_set(trouble, STATUS_USAGE, "With --ssh nothing is dialled: leave --endpoint= out.");
    if (a->verb == VERB_SEND && a->endpoints.n > 1)
        return trouble_set(trouble, STATUS_USAGE, "'send' dials one endpoint: give --endpoint= once.");
    if (a->security && strcmp(a->security, "tls") != 0 && strcmp(a->security, "plain") != 0)
        return bad(trouble, OPTION_SECURITY, a->security, "it can be tls or plain.");
    return 0;
}

int arguments_parse(int argc, char **argv, struct arguments *ret, struct trouble *trouble)
{
    struct option options[OPTION_MAX_ + 1];
    char letters[3 * OPTION_MAX_];
    unsigned long long given = 0;
    int c;

    *ret = (struct arguments){0};
    make_getopt(options, letters);
    optind = 0; /* once more from the start, for tests */
    opterr = 0;
    while ((c = getopt_long(argc, argv, letters, options, NULL)) >= 0) {
        enum option_id id;

        if (c == '?' || c == ':')
            return unknown(argv, c, trouble);
        id = option_of(c);
        given |= 1ULL << id;
        if (read_option(ret, id, optarg, trouble) < 0)
            return -1;
        if (id == OPTION_J)
            ret->json = isatty(STDOUT_FILENO) ? JSON_PRETTY : JSON_SHORT;
    }
    ret->operands = argv + optind;
    ret->n_operands = argc - optind;
    if (read_verb(ret, given, trouble) < 0)
        return -1;
    return ret->help || ret->version ? 0 : check_together(ret, trouble);
}

/* ---- Help ---- */

static const char common_help[] =
    "\n"
    "  -H, --host=[USER@]HOST     the broker of that host, over ssh\n"
    "      --user                 the user's broker, not the system's\n"
    "      --address=ADDRESS      the broker on this D-Bus\n"
    "  -j, --json=MODE            JSON: short, pretty or off; -j: as fits stdout\n"
    "  -q, --quiet                no progress, no hints\n"
    "      --no-legend, --no-pager, --no-ask-password\n"
    "  -h, --help, -V, --version  of a verb, with its own options: VERB --help\n";

static void help_option(FILE *file, const struct option_rule *rule)
{
    bool optional = rule->argument && strcmp(rule->argument, "[WHEN]") == 0;
    char text[48], letter[8] = "    ";

    if (rule->letter)
        snprintf(letter, sizeof(letter), "-%c, ", rule->letter);
    snprintf(text, sizeof(text), "%s--%s%s%s", letter, rule->name,
             optional         ? "[="
             : rule->argument ? "="
                              : "",
             optional         ? "WHEN]"
             : rule->argument ? rule->argument
                              : "");
    fprintf(file, "  %-26s %s\n", text, rule->help);
}

static void help_verb(FILE *file, enum verb_id id)
{
    const struct verb_rule *verb = &verbs[id];

    fprintf(file, "Usage: vmferryctl [OPTION…] %s%s%s\n\n%s\n\n", verb->name, verb->operands[0] ? " " : "",
            verb->operands, verb->help ? verb->help : "internal: the far end of an ssh connection");
    for (unsigned i = 0; i < OPTION_MAX_; i++)
        if (rules[i].verbs != ALL && (rules[i].verbs & (1U << id)))
            help_option(file, &rules[i]);
    fprintf(file, "\n'vmferryctl --help' has what all verbs have; vmferryctl(1) says more of each.\n");
}

void arguments_help(FILE *file, const struct arguments *arguments)
{
    if (arguments->verb_given) {
        help_verb(file, arguments->verb);
        return;
    }
    fprintf(file, "Usage: vmferryctl [OPTION…] VERB [ARGUMENT…]    Moves live VMs between hosts.\n\n");
    for (unsigned i = 0; i < VERB_MAX_; i++)
        if (verbs[i].help)
            fprintf(file, "  %-7s %-*s %s\n", verbs[i].name,
                    18 + 2 * (strstr(verbs[i].operands, "…") != NULL), verbs[i].operands, verbs[i].help);
    fputs(common_help, file);
}
