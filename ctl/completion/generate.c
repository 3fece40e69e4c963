/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Makes a completion at build time: generate {bash|zsh} TEMPLATE. A line "# @PART@" of the template gives way
 * to that part, written from the tables of options.c; all else, which is what handles the names of VMs, is
 * copied as it is. Nothing that a user or a host chose goes in here.
 */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/options.h"

static bool has_verb(const struct option_rule *rule, enum verb_id verb)
{
    return rule->verbs != OPTION_ALL_VERBS && (rule->verbs & (1U << verb));
}

static bool is_optional(const struct option_rule *rule)
{
    return option_takes_none_or_one(rule);
}

/* Between single quotes of a shell. special: what zsh's _arguments wants a backslash before. */
static void put_quoted(const char *text, const char *special)
{
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            printf(strchr(special, *text) ? "\\%c" : "%c", *text);
}

/* The next word of what a verb is given, without its brackets. Returns what follows it; NULL: there is none.
 */
static const char *next_operand(const char *at, char ret[static 16], bool *ret_many)
{
    size_t n;

    at += strspn(at, " [");
    n = strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (n == 0)
        return NULL;
    assert(n < 16);
    memcpy(ret, at, n);
    ret[n] = '\0';
    at += n;
    *ret_many = strncmp(at, "…", strlen("…")) == 0;
    return at + strcspn(at, " ");
}

static bool takes(const struct verb_rule *verb, const char *operand)
{
    char word[16];
    bool many;

    for (const char *at = verb->operands; (at = next_operand(at, word, &many));)
        if (strcmp(word, operand) == 0)
            return true;
    return false;
}

/* ---- bash ---- */

/* As it is offered: with a '=' where a value follows, and both ways where it may. */
static void bash_option(const struct option_rule *rule, const char **separator)
{
    if (!rule->name)
        return;
    if (is_optional(rule))
        printf("%s--%s --%s=", *separator, rule->name, rule->name);
    else
        printf("%s--%s%s", *separator, rule->name, rule->argument ? "=" : "");
    *separator = " ";
}

static void bash_options(void)
{
    const char *separator = "";

    printf("    local common='");
    for (unsigned i = 0; i < OPTION_MAX_; i++)
        if (option_rules[i].verbs == OPTION_ALL_VERBS)
            bash_option(&option_rules[i], &separator);
    printf("'\n    local -A verbs=(\n");
    for (unsigned verb = 0; verb < VERB_MAX_; verb++) {
        if (!verb_rules[verb].help)
            continue;
        separator = "";
        printf("        [%s]='", verb_rules[verb].name);
        for (unsigned i = 0; i < OPTION_MAX_; i++)
            if (has_verb(&option_rules[i], verb))
                bash_option(&option_rules[i], &separator);
        printf("'\n");
    }
    printf("    )\n");
}

/* The arms of a case over the option whose value is typed; values: NULL for those that no value is offered
 * for. */
static void bash_values_arm(const char *values, const char *what)
{
    const char *separator = "        ";

    for (unsigned i = 0; i < OPTION_MAX_; i++) {
        const struct option_rule *rule = &option_rules[i];

        if (!rule->name || !rule->argument ||
            (values ? !rule->values || strcmp(rule->values, values) != 0 : rule->values != NULL))
            continue;
        printf("%s--%s", separator, rule->name);
        if (rule->letter)
            printf(" | -%c", rule->letter);
        separator = " | ";
    }
    printf(") %s;;\n", what);
}

static void bash_values(void)
{
    for (unsigned i = 0; i < OPTION_MAX_; i++) {
        const char *values = option_rules[i].values;
        char what[512];

        if (!values || values[0] == '<')
            continue;
        snprintf(what, sizeof(what), "mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\") ", values);
        bash_values_arm(values, what);
    }
    bash_values_arm(VALUES_USERS, "mapfile -t COMPREPLY < <(compgen -u -- \"$cur\") ");
    bash_values_arm(VALUES_HOSTS, "mapfile -t COMPREPLY < <(compgen -A hostname -- \"$cur\") ");
    bash_values_arm(VALUES_FILES, "__vmferryctl_files ");
    bash_values_arm(NULL, "");
}

static void bash_operands_arm(const char *operand, enum migrations migrations, const char *what)
{
    const char *separator = "                ";

    for (unsigned verb = 0; verb < VERB_MAX_; verb++) {
        const struct verb_rule *rule = &verb_rules[verb];

        if (!rule->help || !takes(rule, operand) || rule->migrations != migrations)
            continue;
        printf("%s%s", separator, rule->name);
        separator = " | ";
    }
    printf(") %s ;;\n", what);
}

static void bash_operands(void)
{
    bash_operands_arm("MIGRATION", MIGRATIONS_ALL, "__vmferryctl_listed migrations && __vmferryctl_offer");
    bash_operands_arm("MIGRATION", MIGRATIONS_FINISHED, "__vmferryctl_listed finished && __vmferryctl_offer");
    bash_operands_arm("HOST", MIGRATIONS_ALL, "mapfile -t COMPREPLY < <(compgen -A hostname -- \"$cur\")");
}

/* ---- zsh ---- */

static void zsh_verbs(void)
{
    printf("    verbs=(\n");
    for (unsigned verb = 0; verb < VERB_MAX_; verb++) {
        if (!verb_rules[verb].help)
            continue;
        printf("        '%s:", verb_rules[verb].name);
        put_quoted(verb_rules[verb].help, "");
        printf("'\n");
    }
    printf("    )\n");
}

/* ":message:action" of _arguments. */
static void zsh_values(const struct option_rule *rule)
{
    if (!rule->argument)
        return;
    printf(is_optional(rule) ? "::" : ":");
    for (const char *c = rule->argument; *c; c++)
        if (!strchr("[]", *c))
            putchar(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    if (!rule->values)
        return;
    if (strcmp(rule->values, VALUES_FILES) == 0)
        printf(":_files");
    else if (strcmp(rule->values, VALUES_HOSTS) == 0)
        printf(":_hosts");
    else if (strcmp(rule->values, VALUES_USERS) == 0)
        printf(":_users");
    else
        printf(":(%s)", rule->values);
}

/* One word of _arguments, or two in braces where there is a letter as well. */
static void zsh_option(const struct option_rule *rule)
{
    const char *equals = is_optional(rule) ? "=-" : rule->argument ? "=" : "";

    fputs("            ", stdout);
    if (rule == &option_rules[OPTION_J])
        printf("'(-%c --json)-%c", rule->letter, rule->letter); /* one or the other */
    else if (rule == &option_rules[OPTION_JSON])
        printf("'(-j --%s)--%s%s", rule->name, rule->name, equals);
    else if (!rule->letter)
        printf("'%s--%s%s", rule->many ? "*" : "", rule->name, equals);
    else if (rule->many)
        printf("'*'{-%c,--%s%s}'", rule->letter, rule->name, equals);
    else
        printf("'(-%c --%s)'{-%c,--%s%s}'", rule->letter, rule->name, rule->letter, rule->name, equals);
    putchar('[');
    put_quoted(rule->help, "[]\\");
    putchar(']');
    zsh_values(rule);
    printf("'\n");
}

static void zsh_common(void)
{
    printf("    common=(\n");
    for (unsigned i = 0; i < OPTION_MAX_; i++)
        if (option_rules[i].verbs == OPTION_ALL_VERBS)
            zsh_option(&option_rules[i]);
    printf("    )\n");
}

static void zsh_operands(const struct verb_rule *verb)
{
    const char *at = verb->operands;
    char word[16];
    bool many;

    for (unsigned i = 1; (at = next_operand(at, word, &many)); i++) {
        char which[12] = "*";

        if (!many)
            snprintf(which, sizeof(which), "%u", i);
        if (strcmp(word, "MIGRATION") == 0)
            printf("            '%s:migration:__vmferryctl_migrations%s'\n", which,
                   verb->migrations == MIGRATIONS_FINISHED ? " finished" : "");
        else
            printf("            '%s:%s%s'\n", which, word, strcmp(word, "HOST") == 0 ? ":_hosts" : "");
    }
}

static void zsh_arguments(void)
{
    for (unsigned verb = 0; verb < VERB_MAX_; verb++) {
        if (!verb_rules[verb].help)
            continue;
        printf("        %s) own=(\n", verb_rules[verb].name);
        for (unsigned i = 0; i < OPTION_MAX_; i++)
            if (has_verb(&option_rules[i], verb))
                zsh_option(&option_rules[i]);
        zsh_operands(&verb_rules[verb]);
        printf("        ) ;;\n");
    }
}

/* ---- */

static const struct part {
    const char *shell, *line;
    void (*print)(void);
} parts[] = {
    {"bash", "# @OPTIONS@\n", bash_options},   {"bash", "# @VALUES@\n", bash_values},
    {"bash", "# @OPERANDS@\n", bash_operands}, {"zsh", "# @VERBS@\n", zsh_verbs},
    {"zsh", "# @COMMON@\n", zsh_common},       {"zsh", "# @ARGUMENTS@\n", zsh_arguments},
};

enum { N_PARTS = sizeof(parts) / sizeof(parts[0]) };

static const struct part *find_part(const char *shell, const char *line)
{
    for (unsigned i = 0; i < N_PARTS; i++)
        if (strcmp(shell, parts[i].shell) == 0 && strcmp(line + strspn(line, " "), parts[i].line) == 0)
            return &parts[i];
    return NULL;
}

int main(int argc, char **argv)
{
    FILE *template = argc == 3 ? fopen(argv[2], "re") : NULL;
    char line[1024];

    if (!template) {
        fprintf(stderr, "Usage: generate {bash|zsh} TEMPLATE\n");
        return EXIT_FAILURE;
    }
    while (fgets(line, sizeof(line), template)) {
        const struct part *part = find_part(argv[1], line);

        if (part)
            part->print();
        else if (strchr(line, '@') && strncmp(line + strspn(line, " "), "# @", 3) == 0) {
            fprintf(stderr, "There is no such part: %s", line);
            return EXIT_FAILURE;
        } else
            fputs(line, stdout);
    }
    fclose(template);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
