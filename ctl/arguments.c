/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/arguments.h"

#include <assert.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/options.h"
#include "ctl/spelling.h"
#include "ctl/units.h"

#define INTERRUPTION  (UINT64_C(60) * 1000000) /* µs that one lasts before --notify tells of it */
#define LONG_DOWNTIME ((uint64_t)10000000)     /* µs; QEMU's own option is in ms */
#define MULTIFD_MAX   240 /* a tunnel has 256 channels, of which disks and libvirt need some */

/* ---- Reading ---- */

static int bad(struct trouble *trouble, enum option_id id, const char *text, const char *what)
{
    return trouble_set(trouble, STATUS_USAGE, "--%s=%s: %s", option_rules[id].name, text, what);
}

static int read_json(struct arguments *a, const char *text, struct trouble *trouble)
{
    static const char *const names[] = {
        [JSON_OFF] = "off", [JSON_SHORT] = "short", [JSON_PRETTY] = "pretty", [JSON_SEQUENCE] = "seq"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0) {
            a->json = i;
            return 0;
        }
    return bad(trouble, OPTION_JSON, text, "it can be short, pretty, seq or off.");
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
    if (parse_time(strncmp(text, "after ", 6) == 0 ? text + 6 : text, &a->postcopy_after))
        return 0;
    return bad(trouble, OPTION_POSTCOPY, text, "it can be a time ('30s') or 'auto'; alone it means at once.");
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
        {OPTION_OUTPUT, &a->output},     {OPTION_CONNECT, &a->connect},
        {OPTION_RPC, &a->rpc},           {OPTION_NAME, &a->name},
        {OPTION_DOMAIN, &a->domain},     {OPTION_COLUMNS, &a->columns},
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
        {OPTION_USER, &a->user},
        {OPTION_QUIET, &a->quiet},
        {OPTION_NO_LEGEND, &a->no_legend},
        {OPTION_NO_PAGER, &a->no_pager},
        {OPTION_HELP, &a->help},
        {OPTION_NO_ASK_PASSWORD, &a->no_ask_password},
        {OPTION_VERSION, &a->version},
        {OPTION_VALUE, &a->value},
        {OPTION_FORCE, &a->force},
        {OPTION_SSH, &a->ssh},
        {OPTION_RESUME, &a->resume},
        {OPTION_LIBVIRT, &a->libvirt},
        {OPTION_TEMPORARY, &a->temporary},
        {OPTION_UNSAFE, &a->unsafe},
        {OPTION_PAUSED, &a->paused},
        {OPTION_AUTO_CONVERGE, &a->auto_converge},
        {OPTION_VERBOSE, &a->verbose},
        {OPTION_BACKGROUND, &a->background},
        {OPTION_ATTACH, &a->attach},
        {OPTION_DRY_RUN, &a->dry_run},
        {OPTION_OPENMETRICS, &a->openmetrics},
        {OPTION_ALL, &a->all},
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
    case OPTION_DISKS:
        a->disks = text ? text : "";
        return 0;
    case OPTION_POSTCOPY:
        return read_postcopy(a, text, trouble);
    case OPTION_MULTIFD:
        return parse_number(text, 1, MULTIFD_MAX, &a->multifd)
                   ? 0
                   : bad(trouble, id, text, "it is no number from 1 to 240.");
    case OPTION_BANDWIDTH:
        return parse_size(text, &a->bandwidth)
                   ? 0
                   : bad(trouble, id, text,
                         "it is no rate. Give bytes per second: 100M, 1.5G; 0 for no limit.");
    case OPTION_DOWNTIME_LIMIT:
        if (parse_time(text, &a->downtime_limit) && a->downtime_limit > LONG_DOWNTIME && !time_has_unit(text))
            return trouble_set(trouble, STATUS_USAGE,
                               "--downtime-limit=%s: is that %sms or %ss? Give the unit.", text, text, text);
        return read_time(&a->downtime_limit, id, text, false, trouble);
    case OPTION_EXPIRE:
        return read_time(&a->expire, id, text, false, trouble);
    case OPTION_TIMEOUT:
        return read_time(&a->timeout, id, text, false, trouble);
    case OPTION_NOTIFY:
        a->notify = true;
        a->notify_after = INTERRUPTION;
        return text ? read_time(&a->notify_after, id, text, false, trouble) : 0;
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
        const struct option_rule *rule = &option_rules[i];
        int has = !rule->argument                  ? no_argument
                  : option_takes_none_or_one(rule) ? optional_argument
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
        while (id < OPTION_MAX_ && option_rules[id].letter != c)
            id++;
    assert(id < OPTION_MAX_);
    return id;
}

/* The name that is spelt most like the word, NULL where none is: a word of two letters is like everything. */
static const char *nearest(const char *word, size_t size, const char *(*name_of)(unsigned i), unsigned n)
{
    unsigned least = size > SPELLING_FAR ? SPELLING_FAR + 1 : (unsigned)size;
    const char *found = NULL;

    for (unsigned i = 0; i < n; i++) {
        const char *name = name_of(i);
        unsigned distance = name ? spelling_distance(word, size, name) : least;

        if (distance < least) {
            least = distance;
            found = name;
        }
    }
    return found;
}

static const char *verb_to_offer(unsigned i)
{
    return verb_rules[i].help ? verb_rules[i].name : NULL;
}

static const char *option_to_offer(unsigned i)
{
    return option_rules[i].name;
}

static int unknown(char **argv, int c, struct trouble *trouble)
{
    const char *given = argv[optind - 1], *near;

    if (c == ':')
        return trouble_set(trouble, STATUS_USAGE, "%s wants a value. See --help.", given);
    if (optopt >= 256)
        return trouble_set(trouble, STATUS_USAGE, "%s takes no value. See --help.", given);
    if (optopt > 0)
        return trouble_set(trouble, STATUS_USAGE, "There is no option -%c. See --help.", optopt);
    near = nearest(given + 2, strcspn(given + 2, "="), option_to_offer, OPTION_MAX_);
    if (near)
        return trouble_set(trouble, STATUS_USAGE, "There is no option %s. Did you mean --%s? See --help.",
                           given, near);
    return trouble_set(trouble, STATUS_USAGE,
                       "There is no option %s, or it is not the only one that begins so. See --help.", given);
}

static int read_verb(struct arguments *a, unsigned long long given, struct trouble *trouble)
{
    const char *name = a->n_operands > 0 ? a->operands[0] : "list", *near;
    const struct verb_rule *verb;

    for (a->verb = 0; a->verb < VERB_MAX_; a->verb++)
        if (strcmp(name, verb_rules[a->verb].name) == 0)
            break;
    if (a->verb == VERB_MAX_) {
        near = nearest(name, strlen(name), verb_to_offer, VERB_MAX_);
        return trouble_set(trouble, STATUS_USAGE, "There is no verb '%s'.%s%s%s See 'vmferryctl --help'.",
                           name, near ? " Did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    verb = &verb_rules[a->verb];
    a->verb_given = a->n_operands > 0;
    if (a->verb_given) {
        a->operands++;
        a->n_operands--;
    }
    for (unsigned i = 0; i < OPTION_MAX_; i++)
        if ((given & (1ULL << i)) && !(option_rules[i].verbs & (1U << a->verb)))
            return trouble_set(trouble, STATUS_USAGE, "'%s' has no option --%s. See 'vmferryctl %s --help'.",
                               verb->name, option_rules[i].name, verb->name);
    if (a->help || a->version)
        return 0;
    for (int i = 0; i < a->n_operands; i++)
        if (strncmp(a->operands[i], "vmferry1:", 9) == 0)
            return trouble_set(
                trouble, STATUS_USAGE,
                "That is a ticket, and everybody on this host can read command lines. Do not use it any "
                "more: prepare another one, and give it on stdin or with --ticket-file=.");
    /* The shell has taken the blank for the end of the option. */
    if (a->postcopy == POSTCOPY_NOW && a->n_operands > verb->max)
        for (int i = 0; i < a->n_operands; i++)
            if (strcmp(a->operands[i], "auto") == 0 || strncmp(a->operands[i], "after", 5) == 0)
                return trouble_set(trouble, STATUS_USAGE, "'--postcopy %s': write --postcopy=%s.",
                                   a->operands[i], strcmp(a->operands[i], "auto") == 0 ? "auto" : "30s");
    if (a->n_operands < verb->min || a->n_operands > verb->max)
        return trouble_set(trouble, STATUS_USAGE,
                           "The command is 'vmferryctl %s%s%s'. See 'vmferryctl %s --help'.", verb->name,
                           verb->operands[0] ? " " : "", verb->operands, verb->name);
    return 0;
}

bool arguments_want_libvirt(const struct arguments *a)
{
    return a->verb == VERB_MIGRATE ? !a->qmp : a->libvirt;
}

/* What is for a domain of libvirt alone, and what is not for one. */
static int check_libvirt(const struct arguments *a, struct trouble *trouble)
{
    bool wanted = arguments_want_libvirt(a);

    if (wanted && a->qmp)
        return trouble_set(trouble, STATUS_USAGE,
                           "With --libvirt it is libvirt that has the monitor: leave --qmp= out.");
    if (!wanted && a->verb != VERB_CHECK && a->verb != VERB_CANCEL && a->verb != VERB_TUNNEL &&
        ((a->disks && a->verb != VERB_MIGRATE) || a->connect || a->rpc || a->name || a->temporary ||
         a->unsafe || a->auto_converge || (a->paused && a->verb == VERB_MIGRATE)))
        return trouble_set(
            trouble, STATUS_USAGE,
            "--connect=, --rpc=, --name=, --temporary, --unsafe, --auto-converge, --paused, and --disks of "
            "'send' are for a domain of libvirt: leave --qmp= and --dst-qmp= out.");
    if (wanted && a->socket)
        return trouble_set(trouble, STATUS_USAGE, "For a domain of libvirt leave --socket= out.");
    if (wanted && a->verb == VERB_RECEIVE && (a->multifd || a->postcopy || a->resume))
        return trouble_set(
            trouble, STATUS_USAGE,
            "With --libvirt the source says how: give --postcopy, --multifd= and --resume to 'send'.");
    if (a->rpc && strcmp(a->rpc, "tunnel") != 0 && strcmp(a->rpc, "ssh") != 0)
        return bad(trouble, OPTION_RPC, a->rpc, "it can be tunnel or ssh.");
    if (wanted && a->host && a->verb != VERB_MIGRATE)
        return trouble_set(trouble, STATUS_USAGE,
                           "'%s --libvirt' hands sockets to the broker of this host: leave --host= out.",
                           verb_rules[a->verb].name);
    return 0;
}

static int check_together(const struct arguments *a, struct trouble *trouble)
{
    if ((a->host != NULL) + (a->address != NULL) + a->user > 1 && !(a->host && a->user))
        return trouble_set(trouble, STATUS_USAGE, "--address= goes with neither --host= nor --user.");
    if (a->verb == VERB_MIGRATE && a->n_operands < 2 && !a->attach)
        return trouble_set(trouble, STATUS_USAGE,
                           "The command is 'vmferryctl migrate VM HOST'. See 'vmferryctl migrate --help'.");
    if (a->attach)
        return 0; /* the options are those that were noted down */
    if (a->dry_run && arguments_want_libvirt(a))
        return trouble_set(
            trouble, STATUS_USAGE,
            "--dry-run is not for a domain of libvirt; 'vmferryctl check' looks at the tunnel.");
    if (a->verb == VERB_MIGRATE && !a->qmp != !a->dst_qmp)
        return trouble_set(
            trouble, STATUS_USAGE,
            "'migrate' drives both QEMUs: give it --qmp=SOCKET and --dst-qmp=SOCKET, the paths of their "
            "monitors (QEMU's option -qmp unix:SOCKET,server=on,wait=off); or neither for a domain of "
            "libvirt.");
    if ((a->postcopy || a->multifd || a->resume || a->paused || a->bandwidth || a->downtime_limit) &&
        !a->qmp && !arguments_want_libvirt(a))
        return trouble_set(trouble, STATUS_USAGE,
                           "--postcopy, --multifd, --resume, --paused, --bandwidth and --downtime-limit are "
                           "things to tell QEMU: "
                           "give --qmp=SOCKET as well, or for a domain of libvirt --libvirt.");
    if (a->json == JSON_SEQUENCE && a->verb != VERB_MIGRATE && a->verb != VERB_SEND && a->verb != VERB_WATCH)
        return trouble_set(trouble, STATUS_USAGE, "--json=seq is for 'migrate', 'send' and 'watch'.");
    if (check_libvirt(a, trouble) < 0)
        return -1;
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
    "  -j, --json=MODE            JSON: short, pretty, seq or off; -j: as fits stdout\n"
    "  -q, --quiet, --verbose     no progress and no hints; or each step\n"
    "      --no-legend, --no-pager, --no-ask-password\n"
    "  -h, --help, -V, --version  of a verb, with its own options: VERB --help\n";

static void help_option(FILE *file, const struct option_rule *rule)
{
    bool optional = option_takes_none_or_one(rule);
    char text[48], letter[8] = "    ";

    if (rule->letter)
        snprintf(letter, sizeof(letter), "-%c, ", rule->letter);
    snprintf(text, sizeof(text), "%s--%s%s%s", letter, rule->name,
             optional         ? "[="
             : rule->argument ? "="
                              : "",
             rule->argument ? rule->argument + optional : "");
    fprintf(file, "  %-26s %s\n", text, rule->help);
}

static bool is_of(const struct option_rule *rule, enum verb_id id)
{
    return rule->verbs != OPTION_ALL_VERBS && (rule->verbs & (1U << id));
}

/* Those that are named alone, in lines of at most 79 columns. */
static void help_brief(FILE *file, enum verb_id id)
{
    size_t column = 0;

    for (unsigned i = 0; i < OPTION_MAX_; i++) {
        const struct option_rule *rule = &option_rules[i];
        char text[48];
        int n = snprintf(text, sizeof(text), " --%s%s%s", rule->name ? rule->name : "",
                         rule->argument ? "=" : "", rule->argument ? rule->argument : "");

        if (!is_of(rule, id) || !rule->brief)
            continue;
        if (column == 0 || column + (size_t)n > 79)
            column = (size_t)fprintf(file, "%s", column == 0 ? "   others:" : "\n          ");
        column += (size_t)fprintf(file, "%s", text);
    }
    if (column > 0)
        fputc('\n', file);
}

static void help_verb(FILE *file, enum verb_id id)
{
    const struct verb_rule *verb = &verb_rules[id];

    fprintf(file, "Usage: vmferryctl [OPTION…] %s%s%s\n\n%s\n\n", verb->name, verb->operands[0] ? " " : "",
            verb->operands, verb->help ? verb->help : "internal: the far end of an ssh connection");
    for (unsigned i = 0; i < OPTION_MAX_; i++)
        if (is_of(&option_rules[i], id) && !option_rules[i].brief)
            help_option(file, &option_rules[i]);
    help_brief(file, id);
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
        if (verb_rules[i].help)
            fprintf(file, "  %-7s %-*s %s\n", verb_rules[i].name,
                    18 + 2 * (strstr(verb_rules[i].operands, "…") != NULL), verb_rules[i].operands,
                    verb_rules[i].help);
    fputs(common_help, file);
}
