/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/cancel.h"
#include "ctl/libvirt/check.h"
#include "ctl/libvirt/move.h"
#include "ctl/libvirt/socket.h"

/* Instead of all that needs libvirt's headers. */

#define WITHOUT "This vmferryctl was built without libvirt (meson setup -Dlibvirt=enabled)."

static int none(struct trouble *trouble)
{
    return trouble_set(trouble, STATUS_FAILED,
                       WITHOUT
                       " For a QEMU of your own give --qmp= and --dst-qmp=; 'vmferryctl tunnel' makes the "
                       "tunnel for virsh.");
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

void libvirt_check(struct check *check)
{
    const struct arguments *a = &check->ctl->arguments;

    if (a->domain || (!a->address && !check->source->host && libvirt_is_here(check->ctl)))
        check_found(check, a->domain ? VERDICT_FAIL : VERDICT_WARN, "libvirt",
                    "Use a vmferryctl that has it; 'vmferryctl tunnel' makes the tunnel for virsh.", WITHOUT);
}
