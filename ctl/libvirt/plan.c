/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/plan.h"

#include <string.h>

#include "ctl/shell.h"

#define MIB ((uint64_t)1 << 20)

unsigned plan_flags(const struct arguments *a, const struct plan_ends *ends)
{
    unsigned flags = VIR_MIGRATE_LIVE;

    if (a->resume)
        return flags | VIR_MIGRATE_POSTCOPY | VIR_MIGRATE_POSTCOPY_RESUME;
    if (ends->p2p)
        flags |= VIR_MIGRATE_PEER2PEER;
    if (ends->persistent && !a->temporary)
        flags |= VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE;
    if (a->postcopy != POSTCOPY_NO && !ends->paused)
        flags |= VIR_MIGRATE_POSTCOPY;
    if (a->multifd > 0)
        flags |= VIR_MIGRATE_PARALLEL;
    if (a->disks)
        flags |= VIR_MIGRATE_NON_SHARED_DISK;
    if (a->unsafe)
        flags |= VIR_MIGRATE_UNSAFE;
    if (a->auto_converge)
        flags |= VIR_MIGRATE_AUTO_CONVERGE;
    if (a->paused)
        flags |= VIR_MIGRATE_PAUSED;
    return flags;
}

bool plan_crashes_on_resume(unsigned long libvirt)
{
    return libvirt >= 11002000 && libvirt < 11004000;
}

bool plan_loses_multifd_postcopy(unsigned long qemu)
{
    return qemu < 10001000;
}

int plan_check(const struct arguments *a, const char *vm, const struct plan_ends *ends,
               struct trouble *trouble)
{
    char quoted[SHELL_COMMAND_MAX];

    if (a->multifd > 0 && a->postcopy != POSTCOPY_NO &&
        (plan_loses_multifd_postcopy(ends->near_qemu) || plan_loses_multifd_postcopy(ends->far_qemu)))
        return trouble_set(
            trouble, STATUS_FAILED,
            "--multifd with --postcopy loses the guest with QEMU before 10.1 (here %lu.%lu, there "
            "%lu.%lu), whatever libvirt says then. Nothing has happened to VM '%s': leave one of "
            "the two out.",
            ends->near_qemu / 1000000, ends->near_qemu / 1000 % 1000, ends->far_qemu / 1000000,
            ends->far_qemu / 1000 % 1000, vm);
    if (a->paused && a->postcopy != POSTCOPY_NO)
        return trouble_set(trouble, STATUS_USAGE,
                           "libvirt begins no post-copy of a VM that is to be paused: leave --postcopy or "
                           "--paused out.");
    if (a->resume && plan_crashes_on_resume(ends->far_libvirt))
        return trouble_set(
            trouble, STATUS_FAILED,
            "libvirt %lu.%lu at the destination crashes when a post-copy is resumed (mended in 11.4). "
            "Upgrade it there; until then let the QEMUs do it: at the source 'virsh qemu-monitor-command %s' "
            "with migrate and resume, and before that at the destination with migrate-recover where its QEMU "
            "no longer listens (docs/libvirt.md).",
            ends->far_libvirt / 1000000, ends->far_libvirt / 1000 % 1000, shell_word(vm, quoted));
    return 0;
}

unsigned long long plan_bandwidth(uint64_t bytes)
{
    return bytes == 0 ? 0 : (bytes + MIB - 1) / MIB;
}

unsigned plan_disks(char *text, const char **ret, unsigned max)
{
    unsigned n = 0;
    char *rest = NULL;

    for (char *word = strtok_r(text, ",", &rest); word && n < max; word = strtok_r(NULL, ",", &rest))
        ret[n++] = word;
    return n;
}

bool plan_is_denied(int code)
{
    return code == VIR_ERR_AUTH_FAILED || code == VIR_ERR_ACCESS_DENIED || code == VIR_ERR_AUTH_UNAVAILABLE ||
           code == VIR_ERR_AUTH_CANCELLED || code == VIR_ERR_OPERATION_DENIED;
}

const char *plan_remedy(int code, const char *words)
{
    static const struct {
        const char *words, *remedy;
    } remedies[] = {
        /* post-copy, disks */
        {"Postcopy is not supported",
         "Let QEMU at the destination use userfaultfd: sysctl vm.unprivileged_userfaultfd=1 there (Debian 12 "
         "has "
         "/usr/share/doc/libvirt-daemon-system/examples/qemu-postcopy-migration.sysctl for it)."},
        {"no storage pool with matching target path",
         "Make images of the same names and sizes at the destination, or define and start a storage pool "
         "there for "
         "that directory (virsh pool-create-as)."},
        {"Migration without shared storage is unsafe",
         "Give --disks to copy the disks (name all of them that are not shared, or none), or --unsafe where "
         "the destination sees the same ones."},
        {"Unsafe migration",
         "Give --disks to copy the disks, or --unsafe where both hosts use the same ones safely."},
        {"NBD URI must be supplied", "Give --disks; of virsh, --disks-uri {disks-uri}."},
        {"Cannot access storage file",
         "Make the VM's storage reachable at the destination, or give --disks to copy it."},
        {"No space left on device", "Make room at the destination."},
        /* the hosts */
        {"Failed to bind socket",
         "The broker at the destination makes no directory for libvirt's QEMU: upgrade vmferry there, and "
         "see that "
         "LibvirtUser= of vmferryd.conf(5) is the user as whom libvirt runs QEMU."},
        {"keepalive timeout",
         "libvirt gave up after 30 s of silence. Where networks are away for longer, set keepalive_interval "
         "= -1 in "
         "libvirtd.conf and qemu.conf of both hosts."},
        {"client socket is closed",
         "libvirt lost the other host: see its log there (journalctl -u libvirtd), and whether the network "
         "was away "
         "for more than the 30 s of its keepalive_interval."},
        {"attempt to migrate guest to the same host",
         "Both hosts have the same UUID: set host_uuid in libvirtd.conf of one of them."},
        {"Host key verification failed", "See that 'ssh HOST true' works for this user."},
        {"Permission denied (publickey", "See that 'ssh HOST true' works for this user."},
        {"ssh: ", "See that 'ssh HOST true' works for this user."},
        /* the domain */
        {"already exists with uuid", "The destination has another domain of this name: give --name=."},
        {"is already active", "The destination runs a domain of this name or UUID already."},
        {"already running for domain", "Let the other one end, or cancel it: virsh domjobabort."},
        {"cannot acquire state change lock",
         "Let what libvirt does with it end: virsh domjobinfo tells of it."},
        {"unable to find any emulator", "Install QEMU for this architecture at the destination."},
        {"Cannot check QEMU binary", "Install that QEMU at the destination, at the same path."},
        {"unsupported machine type", "The QEMU at the destination is older than the VM's machine type."},
        {"guest CPU doesn't match",
         "The destination's CPU lacks something that this VM has: see 'vmferryctl check "
         "HOST --domain='."},
        {"CPU is incompatible with host CPU",
         "Start the VM with a CPU model that both hosts have: see 'vmferryctl "
         "check HOST --domain='."},
        {"Unknown savevm section or instance",
         "QEMU at the destination is older, or lacks a device that this VM has: give the VM an older machine "
         "type."},
        {"host devices", "Take the device from the VM before it moves: virsh detach-device."},
        {"snapshots",
         "libvirt moves no domain that has snapshots: keep what virsh snapshot-dumpxml prints, and take them "
         "from it, with virsh snapshot-delete --metadata where their disks are to stay."},
        {"checkpoints", "Take them from the domain: virsh checkpoint-delete --metadata."},
        {"hostdev", "Take the device from the VM before it moves: virsh detach-device."},
        {"non-migratable", "Take the device from the VM before it moves: virsh detach-device."},
        {"no network with matching name",
         "Define and start that network at the destination: virsh net-define."},
        {"Cannot get interface MTU", "Make that bridge at the destination."},
        {"cannot set up guest memory", "Free memory at the destination."},
        {"cannot limit locked memory",
         "Raise the memory that may be locked at the destination (memtune, hard_limit)."},
    };

    if (plan_is_cancelled(code))
        return "";
    for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++)
        if (strstr(words, remedies[i].words))
            return remedies[i].remedy;
    if (plan_is_denied(code))
        return "Run it as root, or as a member of the group libvirt on both hosts.";
    return "Both hosts' logs have more: journalctl -u libvirtd, and of its QEMUs /var/log/libvirt/qemu.";
}

bool plan_is_cancelled(int code)
{
    return code == VIR_ERR_OPERATION_ABORTED;
}
