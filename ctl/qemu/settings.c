/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/settings.h"

#include <string.h>

#include "common/cleanup.h"

#define NO_LIMIT ((uint64_t)1 << 40) /* bytes/s: QEMU has no word for none that all versions know */
#define LEAVE    (-1)

/* ---- What there is ---- */

int settings_read(struct qmp *qmp, struct settings *ret, struct trouble *trouble)
{
    *ret = (struct settings){0};
    if (qmp_execute(qmp, "query-migrate-capabilities", NULL, &ret->capabilities, trouble) >= 0 &&
        qmp_execute(qmp, "query-migrate-parameters", NULL, &ret->parameters, trouble) >= 0)
        return 0;
    settings_clear(ret);
    return -1;
}

void settings_clear(struct settings *settings)
{
    json_object_put(settings->capabilities);
    json_object_put(settings->parameters);
    *settings = (struct settings){0};
}

/* 1 on, 0 off; -1: this QEMU does not have it. */
static int capability_state(json_object *all, const char *name)
{
    json_object *state;

    for (size_t i = 0; json_object_is_type(all, json_type_array) && i < json_object_array_length(all); i++) {
        json_object *one = json_object_array_get_idx(all, i);

        if (strcmp(record_text(one, "capability"), name) == 0 &&
            json_object_object_get_ex(one, "state", &state))
            return json_object_get_boolean(state);
    }
    return -1;
}

/* ---- What a migration needs ---- */

enum rule {
    ON,        /* where QEMU has it */
    OFF,       /* it makes something else of a migration: a snapshot, a file, a pair of VMs, a wait */
    POSTCOPY,  /* as --postcopy says */
    PREEMPT,   /* the source's choice, with --postcopy; else off */
    MULTIFD,   /* as --multifd= says */
    ZERO_COPY, /* the source's choice, with --multifd=; else off */
    PAUSE,     /* the source, with --disks: the copies come to their end then */
    HELD,      /* on at a destination that waits to be told to start the VM */
    ALIKE,     /* the source's choice; the destination follows it */
};

static const struct {
    const char *name;
    enum rule rule;
} rules[] = {
    {"events", ON},
    {"return-path", ON}, /* so that the source knows that all has arrived */
    {"postcopy-ram", POSTCOPY},
    {"postcopy-preempt", PREEMPT},
    {"multifd", MULTIFD},
    {"zero-copy-send", ZERO_COPY},
    {"late-block-activate", HELD}, /* the images stay the source's until then */
    {"pause-before-switchover", PAUSE},
    {"x-colo", OFF},
    {"background-snapshot", OFF},
    {"mapped-ram", OFF},
    {"block", ALIKE},
    {"compress", ALIKE},
    {"dirty-bitmaps", ALIKE},
    {"switchover-ack", ALIKE},
    {"validate-uuid", ALIKE},
    {"x-ignore-shared", ALIKE},
    {"xbzrle", ALIKE},
};

/* 1 on, 0 off, LEAVE. source: its state there, -1 where that is not known, or it has none. */
static int wanted(enum rule rule, const struct arguments *a, enum settings_end end, int source, bool compared)
{
    int follow = end == SETTINGS_SOURCE || !compared ? LEAVE : source > 0;

    switch (rule) {
    case ON:
        return 1;
    case OFF:
        return 0;
    case POSTCOPY:
        return a->postcopy != POSTCOPY_NO;
    case PREEMPT:
        return a->postcopy != POSTCOPY_NO ? follow : 0;
    case MULTIFD:
        return a->multifd > 0;
    case ZERO_COPY:
        return a->multifd > 0 ? LEAVE : 0;
    case PAUSE:
        return a->disks && end == SETTINGS_SOURCE;
    case HELD:
        return end == SETTINGS_HELD_DESTINATION ? 1 : LEAVE;
    case ALIKE:
        return follow;
    }
    return LEAVE;
}

/* Without these the migration cannot be what the options say. */
static bool is_must(enum rule rule)
{
    return rule == POSTCOPY || rule == MULTIFD || rule == ALIKE || rule == PREEMPT || rule == PAUSE;
}

static const char *parameter_text(const struct settings *settings, const char *name)
{
    return settings->parameters ? record_text(settings->parameters, name) : "";
}

int settings_compare(const struct arguments *arguments, const struct settings *source,
                     const struct settings *destination, struct trouble *trouble)
{
    const char *near = parameter_text(source, "tls-creds"), *far = parameter_text(destination, "tls-creds");

    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const char *name = rules[i].name;

        if ((rules[i].rule == ALIKE || (rules[i].rule == PREEMPT && arguments->postcopy != POSTCOPY_NO)) &&
            capability_state(source->capabilities, name) > 0 &&
            capability_state(destination->capabilities, name) < 0)
            return trouble_set(
                trouble, STATUS_FAILED,
                "QEMU at the source has the migration capability '%s' on, which the one at the "
                "destination does not know. Switch it off at the source "
                "(migrate-set-capabilities).",
                name);
    }
    if ((near[0] != '\0') != (far[0] != '\0'))
        return trouble_set(trouble, STATUS_FAILED,
                           "QEMU at the %s has the migration parameter 'tls-creds' set ('%s'), the other one "
                           "has not. The tunnel encrypts by itself: set it to \"\" "
                           "(migrate-set-parameters), or set it at both.",
                           near[0] ? "source" : "destination", near[0] ? near : far);
    return 0;
}

/* ---- Setting them ---- */

static json_object *capability(const char *name, bool state)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "capability", json_object_new_string(name));
    json_object_object_add(object, "state", json_object_new_boolean(state));
    return object;
}

static int set_capabilities(struct qmp *qmp, json_object *list, struct trouble *trouble)
{
    json_object *arguments = json_object_new_object();
    _cleanup_(trouble_clear) struct trouble refused = {0};

    json_object_object_add(arguments, "capabilities", json_object_get(list));
    if (qmp_execute(qmp, "migrate-set-capabilities", arguments, NULL, &refused) >= 0)
        return 0;
    return trouble_set(
        trouble, refused.status, "%s%s", refused.text ? refused.text : "QEMU refuses.",
        refused.text && strstr(refused.text, "ostcopy is not supported")
            ? ". It may not use userfaultfd: set vm.unprivileged_userfaultfd=1 there (sysctl), run "
              "QEMU as root, or leave --postcopy out."
            : "");
}

static int apply_capabilities(struct qmp *qmp, const struct arguments *a, enum settings_end end,
                              const struct settings *now, const struct settings *source,
                              struct settings *before, struct trouble *trouble)
{
    _cleanup_json_ json_object *list = json_object_new_array();

    before->capabilities = json_object_new_array();
    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        int state = capability_state(now->capabilities, rules[i].name);
        int want = wanted(rules[i].rule, a, end,
                          source ? capability_state(source->capabilities, rules[i].name) : -1, source);

        if (want == LEAVE || state == want || (state < 0 && (!want || !is_must(rules[i].rule))))
            continue;
        json_object_array_add(list, capability(rules[i].name, want));
        if (state >= 0)
            json_object_array_add(before->capabilities, capability(rules[i].name, state));
    }
    return json_object_array_length(list) > 0 ? set_capabilities(qmp, list, trouble) : 0;
}

static int apply_parameters(struct qmp *qmp, const struct arguments *a, enum settings_end end,
                            const struct settings *now, const struct settings *source,
                            struct settings *before, struct trouble *trouble)
{
    bool sends = end == SETTINGS_SOURCE;
    const char *compression = source ? parameter_text(source, "multifd-compression") : "";
    const struct {
        const char *name;
        bool wanted;
        uint64_t value;
        const char *text; /* or this */
    } wants[] = {
        {"multifd-channels", a->multifd > 0, a->multifd, NULL},
        {"multifd-compression", a->multifd > 0 && compression[0], 0, compression},
        {"max-bandwidth", sends, a->bandwidth > 0 ? a->bandwidth : NO_LIMIT, NULL},
        {"max-postcopy-bandwidth", sends && a->bandwidth > 0, a->bandwidth, NULL},
        {"downtime-limit", sends && a->downtime_limit > 0, (a->downtime_limit + 999) / 1000, NULL},
        {"mode", strcmp(parameter_text(now, "mode"), "normal") != 0 && parameter_text(now, "mode")[0], 0,
         "normal"},
    };
    json_object *arguments = json_object_new_object(), *old;

    before->parameters = json_object_new_object();
    for (unsigned i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
        if (!wants[i].wanted)
            continue;
        json_object_object_add(arguments, wants[i].name,
                               wants[i].text ? json_object_new_string(wants[i].text)
                                             : json_object_new_uint64(wants[i].value));
        if (json_object_object_get_ex(now->parameters, wants[i].name, &old))
            json_object_object_add(before->parameters, wants[i].name, json_object_get(old));
    }
    if (json_object_object_length(arguments) > 0)
        return qmp_execute(qmp, "migrate-set-parameters", arguments, NULL, trouble);
    json_object_put(arguments);
    return 0;
}

int settings_apply(struct qmp *qmp, const struct arguments *arguments, enum settings_end end,
                   const struct settings *now, const struct settings *source, struct settings *before,
                   struct trouble *trouble)
{
    *before = (struct settings){0};
    if (arguments->postcopy != POSTCOPY_NO && arguments->multifd > 0 && !qmp_is_at_least(qmp, 10, 1))
        return trouble_set(
            trouble, STATUS_FAILED,
            "%s is version %s, which stalls when --multifd and --postcopy are used together; 10.1 can do "
            "that. Leave one of them out.",
            qmp_name(qmp), qmp_version_text(qmp));
    if (apply_capabilities(qmp, arguments, end, now, source, before, trouble) < 0) {
        settings_clear(before); /* QEMU takes all of a list, or nothing */
        return -1;
    }
    if (apply_parameters(qmp, arguments, end, now, source, before, trouble) < 0) {
        settings_restore(qmp, before);
        return -1;
    }
    return 0;
}

int settings_prepare(struct qmp *qmp, const struct arguments *arguments, enum settings_end end,
                     struct settings *before, struct trouble *trouble)
{
    _cleanup_(settings_clear) struct settings now = {0};

    return settings_read(qmp, &now, trouble) < 0
               ? -1
               : settings_apply(qmp, arguments, end, &now, NULL, before, trouble);
}

void settings_restore(struct qmp *qmp, struct settings *before)
{
    if (before->parameters && json_object_object_length(before->parameters) > 0 && qmp_is_open(qmp))
        qmp_execute(qmp, "migrate-set-parameters", json_object_get(before->parameters), NULL, NULL);
    if (before->capabilities && json_object_array_length(before->capabilities) > 0 && qmp_is_open(qmp))
        set_capabilities(qmp, before->capabilities, NULL);
    settings_clear(before);
}
