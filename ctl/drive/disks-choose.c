/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/disks-choose.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "common/cleanup.h"

#define CEPH_MAGIC    0x00c36400
#define GFS2_MAGIC_   0x01161970
#define GPFS_MAGIC    0x47504653
#define LUSTRE_MAGIC  0x0bd00bd0
#define VIRTIOFS_FUSE 0x65735546 /* FUSE's: GlusterFS, virtiofs, sshfs */

static bool is_listed(const char *list, const char *name)
{
    size_t size = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, size) == 0 && (at[size] == ',' || at[size] == '\0'))
            return true;
    }
    return false;
}

/* Each name of the list is that of a disk. */
static int check_list(const char *list, const struct block_disk *disks, int n, const struct qmp *qmp,
                      struct trouble *trouble)
{
    for (const char *at = list; *at;) {
        size_t size = strcspn(at, ",");
        bool there = false;

        for (int i = 0; i < n && !there; i++)
            there = strlen(disks[i].name) == size && strncmp(disks[i].name, at, size) == 0;
        if (!there)
            return trouble_set(trouble, STATUS_FAILED, "--disks=%s: %s has no disk '%.*s'.", list,
                               qmp_name(qmp), (int)size, at);
        at += size + (at[size] == ',');
    }
    return 0;
}

/* Of this host only; another host's are not looked at. */
static bool is_on_shared_file_system(const struct side *source, const char *file)
{
    static const unsigned long shared[] = {NFS_SUPER_MAGIC,  CEPH_MAGIC,   GFS2_MAGIC_,
                                           GPFS_MAGIC,       LUSTRE_MAGIC, OCFS2_SUPER_MAGIC,
                                           SMB2_SUPER_MAGIC, V9FS_MAGIC,   VIRTIOFS_FUSE};
    struct statfs st;

    if (source->host || file[0] == '\0' || statfs(file, &st) < 0)
        return false;
    for (unsigned i = 0; i < sizeof(shared) / sizeof(shared[0]); i++)
        if ((unsigned long)st.f_type == shared[i])
            return true;
    return false;
}

/* Why a disk stays where it is; NULL: it goes. */
static const char *reason_to_stay(const struct side *source, const struct block_disk *disk)
{
    static const char *const local[] = {"file", "host_device", "host_cdrom", "json", "nvme"};
    bool is_local = false;

    if (disk->read_only)
        return "it is read-only";
    for (unsigned i = 0; i < sizeof(local) / sizeof(local[0]); i++)
        is_local = is_local || strcmp(disk->driver, local[i]) == 0;
    if (!is_local)
        return "it is on the network, where the other host finds it, too";
    return is_on_shared_file_system(source, disk->file) ? "it is on a shared file system" : NULL;
}

/* The same device of the same machine, or the same -drive. */
static const struct block_disk *counterpart(const struct block_disk *disk, const struct block_disk *there,
                                            int n)
{
    for (int i = 0; i < n; i++)
        if (disk->qdev[0] && strcmp(disk->qdev, there[i].qdev) == 0)
            return &there[i];
    for (int i = 0; i < n; i++)
        if (strcmp(disk->name, there[i].name) == 0)
            return &there[i];
    return NULL;
}

/* Finds the other end of it. */
static int pair_up(const struct block_disk *disk, const struct block_disk *there, int n,
                   const struct qmp *far, struct disk_pair *ret, struct trouble *trouble)
{
    const struct block_disk *other = counterpart(disk, there, n);

    if (!other)
        return trouble_set(
            trouble, STATUS_FAILED,
            "%s has no disk like '%s'. Give it an image of the same size, or name in --disks= the "
            "disks that are to go.",
            qmp_name(far), disk->name);
    if (other->read_only)
        return trouble_set(trouble, STATUS_FAILED, "%s may only read its disk '%s'.", qmp_name(far),
                           other->name);
    *ret = (struct disk_pair){.near = *disk, .far = *other};
    return 0;
}

/* Whether it goes: 1, 0, or -1 with a trouble. */
static int goes(const struct side *source, const struct block_disk *disk, const char *list,
                struct trouble *trouble)
{
    const char *reason = reason_to_stay(source, disk);

    if (list && !is_listed(list, disk->name))
        return 0;
    if (list && disk->read_only)
        return trouble_set(trouble, STATUS_FAILED, "--disks=%s: '%s' is read-only, and stays as it is.", list,
                           disk->name);
    if (list || !reason)
        return 1;
    if (!disk->read_only)
        ctl_say(source->ctl, "Disk '%s' stays where it is: %s. --disks=%s takes it along.", disk->name,
                reason, disk->name);
    return 0;
}

int disks_choose(struct side *source, struct qmp *near, struct qmp *far,
                 struct disk_pair ret[static DISKS_MAX], struct trouble *trouble)
{
    const char *given = source->ctl->arguments.disks, *list = given && given[0] ? given : NULL;
    _cleanup_free_ struct block_disk *here = calloc(DISKS_MAX, sizeof(*here)),
                                     *there = calloc(DISKS_MAX, sizeof(*there));
    int n_here, n_there, n = 0, r;

    if (!here || !there)
        return trouble_no_memory(trouble);
    n_here = block_list(near, here, DISKS_MAX, trouble);
    n_there = n_here < 0 ? -1 : block_list(far, there, DISKS_MAX, trouble);
    if (n_there < 0 || (list && check_list(list, here, n_here, near, trouble) < 0))
        return -1;
    for (int i = 0; i < n_here; i++) {
        r = goes(source, &here[i], list, trouble);
        if (r > 0)
            r = pair_up(&here[i], there, n_there, far, &ret[n++], trouble);
        if (r < 0)
            return -1;
    }
    if (n == 0)
        ctl_say(source->ctl, "There is no disk to take along.");
    return n;
}
