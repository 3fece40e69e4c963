/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/findings.h"
#include "ctl/libvirt/check.h"
#include "ctl/qemu/userfaultfd.h"
#include "ctl/verbs/check-install.h"
#include "ctl/verbs/check-tunnel.h"
#include "version.h"

/* ---- What can be seen without a tunnel ---- */

static bool read_line(const char *path, char ret[static 64])
{
    FILE *file = fopen(path, "re");
    bool ok = file && fgets(ret, 64, file);

    if (file)
        fclose(file);
    if (ok)
        ret[strcspn(ret, "\n")] = '\0';
    return ok;
}

static bool check_broker(struct check *check, struct side *side, json_object **ret)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};

    if (!check_install(check, side))
        return false;
    if (record_read(side, BROKER_PATH, BROKER_NAME, ret, &trouble) < 0) {
        check_found(check, VERDICT_FAIL, "broker",
                    "Start vmferryd there; see its log (journalctl -u vmferryd).", "%s",
                    trouble.text ? trouble.text : "It does not answer.");
        return false;
    }
    check_found(check, VERDICT_OK, "broker", NULL, "vmferryd %s answers%s.", record_text(*ret, "Version"),
                side->where);
    return true;
}

static void check_versions(struct check *check, json_object *source, json_object *destination)
{
    const char *a = record_text(source, "Version"), *b = record_text(destination, "Version");

    if (strcmp(a, b) != 0)
        check_found(check, VERDICT_WARN, "versions", "Upgrade the older host.",
                    "%s at the source, %s at the destination.", a, b);
    else
        check_found(check, VERDICT_OK, "versions", NULL, "Both hosts have vmferryd %s.", a);
}

/* Of this host only: what another one has in its files cannot be seen from here. */
static void check_local(struct check *check)
{
    char text[64];

    if (read_line("/sys/module/apparmor/parameters/enabled", text) && strcmp(text, "Y") == 0 &&
        access("/etc/apparmor.d/abstractions/libvirt-qemu", F_OK) == 0)
        check_found(check, VERDICT_OK, "apparmor", NULL,
                    "AppArmor's profiles of libvirt let its QEMUs use the sockets of its domains.");
    else
        check_found(check, VERDICT_OK, "apparmor", NULL,
                    "No AppArmor profile of libvirt's is in the way here.");
}

#define DEVICE_SINCE 8001000 /* QEMU 8.1 uses /dev/userfaultfd where it is */

/* Of the host that receives. */
static void check_postcopy(struct check *check)
{
    bool libvirt = check->libvirt_qemu != 0, device = !libvirt || check->libvirt_qemu >= DEVICE_SINCE;
    const char *const what[] = {"postcopy", device ? NULL : "sysctl", NULL};
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    _cleanup_(remote_freep) struct remote *remote = NULL;
    const struct side *there = check->destination;
    bool all = there->host ? remote_open(check->ctl, there->host, false, what, &remote, &trouble) >= 0
                           : userfaultfd_is_for_all(device);

    if (all)
        check_found(check, VERDICT_OK, "post-copy", NULL, "Every QEMU%s may use userfaultfd.",
                    there->host ? there->where : " of this host");
    else if (there->host && !(trouble.text && strstr(trouble.text, "Only root")))
        check_found(check, VERDICT_WARN, "post-copy", "Install the same version of vmferry there.",
                    "Whether a post-copy can be received%s is not known: %s", there->where,
                    trouble.text ? trouble.text : "it does not say.");
    else
        check_found(
            check, VERDICT_WARN, "post-copy",
            libvirt ? "As root there: sysctl vm.unprivileged_userfaultfd=1, and for the next boot echo "
                      "vm.unprivileged_userfaultfd=1 > /etc/sysctl.d/60-postcopy.conf. Running QEMU as root "
                      "does not "
                      "help: libvirt takes root's rights from it."
                    : "There: sysctl vm.unprivileged_userfaultfd=1, or run QEMU as root, without libvirt.",
            "%s%s.",
            libvirt ? "libvirt's QEMU cannot receive a post-copy"
                    : "Only a QEMU with root's rights can receive a post-copy",
            there->host ? there->where : " on this host");
}

/* Which library seals what tls sends from here. */
static void check_cipher(struct check *check)
{
    char cipher[32], library[32];
    unsigned rate;
    FILE *helper;

    if (access(VMFERRY_HELPER_PATH, X_OK) < 0) /* the broker has another one, given by --helper */
        return;
    helper = popen(VMFERRY_HELPER_PATH " --cipher 2>/dev/null", "re");
    if (helper && fscanf(helper, "%31s %31s %u", cipher, library, &rate) == 3)
        check_found(check, VERDICT_OK, "cipher", NULL, "%s by %s: %u MB/s on this host.", cipher, library,
                    rate);
    else
        check_found(check, VERDICT_WARN, "cipher", "Is " VMFERRY_HELPER_PATH " of this version?",
                    "The helper does not say which cipher it prefers.");
    if (helper)
        pclose(helper);
}

/* ---- The verb ---- */

static void look(struct check *check)
{
    _cleanup_json_ json_object *source = NULL, *destination = NULL;
    bool two = check->source != check->destination;
    bool here = check_broker(check, check->source, &source);
    bool there = two ? check_broker(check, check->destination, &destination) : here;

    if (!check->source->host) {
        check_local(check);
        check_cipher(check);
    }
    if (!here || !there)
        return;
    libvirt_check(check);
    check_postcopy(check);
    if (two)
        check_versions(check, source, destination);
    check_tunnel(check);
}

static int open_sides(struct ctl *ctl, struct side *source, struct side *destination, struct check *check)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};

    if (side_open(ctl, source, &trouble) >= 0 &&
        (ctl->arguments.n_operands == 0 ||
         side_open_host(ctl, ctl->arguments.operands[0], destination, &trouble) >= 0))
        return 0;
    check_found(check, VERDICT_FAIL, "bus", "What is said there has to work first.", "%s",
                trouble.text ? trouble.text : "There is none.");
    return -1;
}

int verb_check(struct ctl *ctl, struct trouble *trouble)
{
    _cleanup_(side_close) struct side source = {0}, destination = {0};
    _cleanup_json_ json_object *findings = json_object_new_array();
    struct check check = {.ctl = ctl,
                          .source = &source,
                          .destination = ctl->arguments.n_operands > 0 ? &destination : &source,
                          .findings = findings};

    if (ctl_catch_signals(ctl, trouble) < 0)
        return -1;
    if (open_sides(ctl, &source, &destination, &check) >= 0)
        look(&check);
    if (ctl->arguments.json != JSON_OFF)
        record_print_json(ctl, findings);
    if (ctl->interrupts > 0)
        return trouble_set(trouble, STATUS_CANCELLED, "Interrupted; there may be more to find.");
    return check.failed ? STATUS_FAILED : STATUS_DONE;
}
