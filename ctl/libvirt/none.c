/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/entry.h"

/* Instead of all that needs libvirt's headers. */

static int none(struct trouble *trouble)
{
    return trouble_set(
        trouble, STATUS_FAILED,
        "This vmferryctl was built without libvirt. For a QEMU of your own give --qmp= and --dst-qmp=; "
        "'vmferryctl tunnel' makes the tunnel for virsh.");
}

int libvirt_migrate(struct ctl *ctl, struct trouble *trouble)
{
    return none(trouble);
}

int libvirt_send(struct ctl *ctl, const char *ticket, struct trouble *trouble)
{
    return none(trouble);
}

int libvirt_cancel(struct side *side, const struct found *found, struct trouble *trouble)
{
    return none(trouble);
}
