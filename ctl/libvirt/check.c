/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/bus/tunnel.h"
#include "ctl/libvirt/compare.h"
#include "ctl/libvirt/host.h"
#include "ctl/libvirt/keepalive.h"
#include "ctl/libvirt/plan.h"
#include "ctl/shell.h"

/* What 'check' looks at where libvirt drives the migration. */

#define RESUME_TIMEOUT 60 /* seconds: vmferryd's default */

struct look {
    struct check *check;
    const char *domain; /* NULL: none was named */
    struct host near, far;
    char *name, *xml; /* the domain's */
    struct domain_needs needs;
};

static const char *here(const struct look *look)
{
    return look->check->source->host ? look->check->source->where : " here";
}

static const char *there(const struct look *look)
{
    return look->check->destination->host ? look->check->destination->where : " here";
}

static bool two_hosts(const struct look *look)
{
    return look->check->source != look->check->destination && look->check->destination->host;
}

/* ---- Reaching them ---- */

static bool open_one(struct look *look, const struct side *side, const char *where, struct host *ret)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    struct check *check = look->check;
    char libvirt[32], qemu[32];
    int r = side->host ? host_open_by_ssh(check->ctl, side->host, where, ret, &trouble)
                       : host_open_here(check->ctl, where, ret, &trouble);

    if (r < 0) {
        check_found(
            check, look->domain ? VERDICT_FAIL : VERDICT_WARN, "libvirt",
            trouble.status == STATUS_DENIED
                ? "Run it as root, or as a member of the group libvirt there: usermod -a -G libvirt USER"
                : "Install libvirt there, and start libvirtd.socket or virtqemud.socket.",
            "%s", trouble.text ? trouble.text : "");
        return false;
    }
    check_found(check, ret->libvirt_version < 6008000 ? VERDICT_FAIL : VERDICT_OK, "libvirt",
                ret->libvirt_version < 6008000 ? "Upgrade it to 6.8 or later." : NULL,
                "libvirt %s with QEMU %s answers%s.", version_text(ret->libvirt_version, libvirt),
                version_text(ret->qemu_version, qemu), where);
    return true;
}

/* ---- Versions and settings ---- */

static void check_versions(struct look *look)
{
    const struct host *far = &look->far;
    char version[32];

    if (plan_crashes_on_resume(far->libvirt_version))
        check_found(
            look->check, VERDICT_WARN, "resume", "Upgrade libvirt there to 11.4 or later.",
            "libvirt %s%s crashes when a post-copy is resumed, so --resume is refused; the tunnel outlives "
            "lost networks by itself.",
            version_text(far->libvirt_version, version), there(look));
    if (plan_loses_multifd_postcopy(look->near.qemu_version) ||
        plan_loses_multifd_postcopy(far->qemu_version))
        check_found(look->check, VERDICT_OK, "multifd", NULL,
                    "Either --multifd= or --postcopy: both at once lose the guest with QEMU before 10.1.");
}

/* Both read their UUID from the firmware: those of cloned VMs are the same. */
static void check_uuids(struct look *look)
{
    const struct libvirt *libvirt = look->near.libvirt;
    _cleanup_free_ char *near = libvirt->virConnectGetCapabilities(look->near.connection);
    _cleanup_free_ char *far = libvirt->virConnectGetCapabilities(look->far.connection);
    char uuid[2][64];

    if (!near || !far || !compare_read_host(near, uuid[0], sizeof(uuid[0])) ||
        !compare_read_host(far, uuid[1], sizeof(uuid[1])))
        return;
    if (strcmp(uuid[0], uuid[1]) == 0)
        check_found(
            look->check, VERDICT_FAIL, "host uuid",
            "Give one of them another: host_uuid in /etc/libvirt/libvirtd.conf, and restart libvirtd.",
            "Both hosts have the UUID %s: libvirt takes them for one.", uuid[0]);
}

static char *read_file(const char *path)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    const size_t size = 256 * 1024;
    char *text = fd >= 0 ? malloc(size) : NULL;
    ssize_t n = text ? read(fd, text, size - 1) : -1;

    if (text)
        text[n < 0 ? 0 : n] = '\0';
    return text;
}

/* Of this host's files, which libvirt tells to nobody. */
static void check_keepalive(struct look *look)
{
    static const char *const paths[] = {"/etc/libvirt/qemu.conf", "/etc/libvirt/libvirtd.conf"};
    uint64_t least = KEEPALIVE_NEVER;

    if (look->check->source->host)
        return;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        _cleanup_free_ char *text = read_file(paths[i]);
        uint64_t seconds = keepalive_read(text ? text : "");

        least = seconds < least ? seconds : least;
    }
    if (least >= RESUME_TIMEOUT)
        check_found(look->check, VERDICT_OK, "keepalive", NULL,
                    "libvirt here waits for a lost network as long as the tunnel does.");
    else
        check_found(
            look->check, VERDICT_WARN, "keepalive",
            "To outlive longer ones: keepalive_interval = -1 in libvirtd.conf (or virtqemud.conf) and "
            "qemu.conf of /etc/libvirt on both hosts, and restart libvirtd.",
            "libvirt here gives up after %" PRIu64
            " s without the network, the tunnel after %d s: a pre-copy "
            "is cancelled then, a post-copy goes on.",
            least, RESUME_TIMEOUT);
}

/* ---- Who may ---- */

/* The tunnel that a migration would have: polkit, LibvirtUser= and the directory of its sockets. */
static void check_layout(struct look *look)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    struct check *check = look->check;
    struct tunnel near = {0}, far = {0};
    char vm[48];
    struct tunnel_shape shape = {.layout = vm, .libvirt = true};

    snprintf(vm, sizeof(vm), "vmferryctl-check-%d", (int)getpid());
    if (tunnel_prepare_as(check->destination, vm, &shape, &far, &ticket, &trouble) >= 0 &&
        tunnel_start_as(check->source, vm, ticket, &shape, &near, &trouble) >= 0)
        check_found(check, VERDICT_OK, "rights", NULL,
                    "Sockets for libvirt's QEMU may be made; they are below /run/libvirt/vmferry.");
    else
        check_found(check, VERDICT_FAIL, "rights",
                    trouble.status == STATUS_DENIED
                        ? "Run it as root, or as a member of both groups libvirt and vmferry (usermod -a -G)."
                        : "See LibvirtUser= of vmferryd.conf(5) there: the user as whom libvirt runs QEMU.",
                    "%s", trouble.text ? trouble.text : "");
    tunnel_forget(&near);
    tunnel_forget(&far);
}

/* ---- The domain ---- */

static bool read_domain(struct look *look)
{
    _cleanup_(trouble_clear) struct trouble trouble = {0};
    const struct libvirt *libvirt = look->near.libvirt;
    virDomainPtr domain = host_find(&look->near, look->domain, &trouble);
    enum domain_state state;
    bool goes;

    if (!domain) {
        check_found(look->check, VERDICT_FAIL, "domain", NULL, "%s", trouble.text ? trouble.text : "");
        return false;
    }
    state = domain_look(libvirt, domain);
    goes = state == DOMAIN_RUNS || state == DOMAIN_PAUSED;
    /* As another host would get it. */
    look->xml = libvirt->virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_MIGRATABLE);
    look->name = strdup(libvirt->virDomainGetName(domain));
    libvirt->virDomainFree(domain);
    if (!look->name || !look->xml || !compare_read_domain(look->xml, &look->needs)) {
        check_found(look->check, VERDICT_FAIL, "domain", NULL, "libvirt does not describe %s: %s.",
                    look->domain, libvirt_words(libvirt));
        return false;
    }
    check_found(look->check, goes ? VERDICT_OK : VERDICT_WARN, "domain",
                goes ? NULL : "Only one that runs, or is paused, migrates live.", "%s %s%s.", look->name,
                domain_state_text(state), here(look));
    return true;
}

static void check_name(struct look *look)
{
    enum domain_state state = host_look(&look->far, look->name, NULL);

    if (state == DOMAIN_NONE || state == DOMAIN_UNKNOWN)
        return;
    if (state == DOMAIN_OFF)
        check_found(look->check, VERDICT_OK, "name", NULL,
                    "%s is defined%s already: libvirt replaces the definition, if the UUID is the same.",
                    look->name, there(look));
    else
        check_found(look->check, VERDICT_FAIL, "name", "End it there, or give 'migrate' --name=.",
                    "%s %s%s already.", look->name, domain_state_text(state), there(look));
}

/* Whether that host's QEMU knows the machine type and can run it so. */
static void check_machine(struct look *look)
{
    const struct libvirt *libvirt = look->near.libvirt;
    const struct domain_needs *needs = &look->needs;
    _cleanup_free_ char *capabilities = libvirt->virConnectGetDomainCapabilities(
        look->far.connection, needs->emulator[0] ? needs->emulator : NULL, needs->arch, needs->machine,
        needs->type, 0);

    if (capabilities)
        check_found(look->check, VERDICT_OK, "machine", NULL, "%s%s knows the machine type %s.",
                    needs->emulator[0] ? needs->emulator : "QEMU", there(look), needs->machine);
    else
        check_found(look->check, VERDICT_FAIL, "machine",
                    "Install that QEMU there, or a version that knows the machine type; or start the VM with "
                    "an older "
                    "type.",
                    "%s cannot run%s. libvirt says: %s.", look->name, there(look), libvirt_words(libvirt));
}

static void check_cpu(struct look *look)
{
    const struct libvirt *libvirt = look->near.libvirt;
    const struct domain_needs *needs = &look->needs;
    _cleanup_free_ char *cpu = needs->cpu ? strndup(needs->cpu, needs->cpu_size) : NULL;
    int r;

    if (!cpu) {
        check_found(look->check, VERDICT_OK, "cpu", NULL, "%s has QEMU's default CPU.", look->name);
        return;
    }
    r = libvirt->virConnectCompareHypervisorCPU(
        look->far.connection, needs->emulator[0] ? needs->emulator : NULL, needs->arch, needs->machine,
        needs->type, cpu, VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE);
    if (r == VIR_CPU_COMPARE_IDENTICAL || r == VIR_CPU_COMPARE_SUPERSET)
        check_found(look->check, VERDICT_OK, "cpu", NULL, "The CPU%s has all that %s uses.", there(look),
                    look->name);
    else if (r == VIR_CPU_COMPARE_INCOMPATIBLE || libvirt_code(libvirt) == VIR_ERR_CPU_INCOMPATIBLE)
        check_found(
            look->check, VERDICT_FAIL, "cpu",
            "Start the VM with a CPU model that both hosts have: virsh hypervisor-cpu-baseline makes one.",
            "The CPU%s lacks something that %s uses. libvirt says: %s.", there(look), look->name,
            libvirt_words(libvirt));
    else
        check_found(look->check, VERDICT_WARN, "cpu", "Compare the CPUs of the hosts: virsh domcapabilities.",
                    "libvirt%s cannot compare the CPU: %s.", there(look), libvirt_words(libvirt));
}

/* ---- Its disks ---- */

/* Only where the file is on this host's own: a device can be a shared one. false: not known. */
static bool is_on_network(const struct look *look, const char *path)
{
    struct statfs fs;

    if (look->check->source->host || statfs(path, &fs) < 0)
        return false;
    switch ((unsigned long)fs.f_type) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC:
    case AFS_SUPER_MAGIC:
    case OCFS2_SUPER_MAGIC:
    case 0x01161970: /* GFS2 */
        return true;
    default:
        return false;
    }
}

/* Whether a storage pool that runs there has this directory. */
static bool has_pool(const struct look *look, const char *directory)
{
    const struct libvirt *libvirt = look->near.libvirt;
    virStoragePoolPtr *pools = NULL;
    int n = libvirt->virConnectListAllStoragePools(look->far.connection, &pools,
                                                   VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE);
    bool found = false;

    for (int i = 0; i < n; i++) {
        _cleanup_free_ char *xml = libvirt->virStoragePoolGetXMLDesc(pools[i], 0);
        char path[PATH_MAX];

        found = found || (xml && compare_read_pool(xml, path, sizeof(path)) && strcmp(path, directory) == 0);
        libvirt->virStoragePoolFree(pools[i]);
    }
    free(pools);
    return found;
}

static void check_pool(struct look *look, const char *source)
{
    char directory[PATH_MAX], quoted[SHELL_COMMAND_MAX], remedy[SHELL_COMMAND_MAX + 200];

    if (!compare_directory(source, directory, sizeof(directory)))
        return;
    if (has_pool(look, directory)) {
        check_found(look->check, VERDICT_OK, "pool", NULL,
                    "libvirt%s makes images in %s, where they are missing.", there(look), directory);
        return;
    }
    snprintf(
        remedy, sizeof(remedy),
        "Make images of the same names and sizes there, or a pool: virsh pool-create-as NAME dir --target %s",
        shell_word(directory, quoted));
    check_found(look->check, VERDICT_WARN, "pool", remedy,
                "No storage pool%s has %s: libvirt can make no image there that is missing.", there(look),
                directory);
}

static void check_disks(struct look *look)
{
    const struct domain_needs *needs = &look->needs;
    char names[400] = "", last[PATH_MAX] = "", directory[PATH_MAX];
    unsigned n = 0;

    for (unsigned i = 0; i < needs->n_disks; i++) {
        size_t size = strlen(names);

        if (is_on_network(look, needs->disks[i].source))
            continue;
        snprintf(names + size, sizeof(names) - size, "%s%s", n++ > 0 ? ", " : "", needs->disks[i].target);
    }
    if (n == 0) {
        check_found(look->check, VERDICT_OK, "disks", NULL, "%s has no writable disk of its host's own.",
                    look->name);
        return;
    }
    check_found(look->check, VERDICT_OK, "disks",
                "Give 'migrate' --disks, or --unsafe where both hosts have the same ones.",
                "%s writes to files or devices of its host: %s.", look->name, names);
    for (unsigned i = 0; i < needs->n_disks; i++) {
        if (is_on_network(look, needs->disks[i].source) ||
            !compare_directory(needs->disks[i].source, directory, sizeof(directory)) ||
            strcmp(directory, last) == 0)
            continue;
        strcpy(last, directory);
        check_pool(look, needs->disks[i].source);
    }
}

static void check_domain(struct look *look)
{
    if (!read_domain(look) || !two_hosts(look))
        return;
    check_name(look);
    check_machine(look);
    check_cpu(look);
    check_disks(look);
}

/* ---- All of it ---- */

void libvirt_check(struct check *check)
{
    const struct arguments *a = &check->ctl->arguments;
    struct look look = {.check = check, .domain = a->domain, .near.where = "", .far.where = ""};

    if (!a->domain && (a->address || check->source->host || !libvirt_is_here(check->ctl)))
        return; /* who has no libvirt does not want to hear of it */
    if (!open_one(&look, check->source, here(&look), &look.near))
        return;
    if (!two_hosts(&look) || open_one(&look, check->destination, there(&look), &look.far)) {
        check->libvirt_qemu = two_hosts(&look) ? look.far.qemu_version : look.near.qemu_version;
        if (two_hosts(&look)) {
            check_versions(&look);
            check_uuids(&look);
            check_layout(&look);
        }
        check_keepalive(&look);
        if (a->domain)
            check_domain(&look);
    }
    free(look.name);
    free(look.xml);
    host_close(&look.far);
    host_close(&look.near);
}
