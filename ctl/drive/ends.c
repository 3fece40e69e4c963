/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/ends.h"

#include <string.h>

#include "common/cleanup.h"

int ends_listen_again(const struct ends *ends, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};
    struct qemu_info info;

    if (qemu_query(ends->destination_qmp, &info, trouble) < 0)
        return -1;
    if (info.phase != QEMU_PAUSED)
        return trouble_set(
            trouble, STATUS_FAILED,
            "%s does not say that its side is paused, but '%s': it has not noticed the loss yet.",
            qmp_name(ends->destination_qmp), info.status);
    if (tunnel_check_socket(&ends->destination_tunnel, qmp_uid(ends->destination_qmp), trouble) < 0)
        return -1;
    if (qemu_listen(ends->destination_qmp, ends->destination_tunnel.socket, true, &refused) < 0 &&
        !(refused.text && strstr(refused.text, "triggered already"))) /* it listens since the last try */
        return trouble_set(trouble, refused.status, "%s",
                           refused.text ? refused.text : "QEMU cannot listen.");
    return 0;
}

void ends_undo(struct ends *ends)
{
    if (!ends->found) {
        tunnel_cancel(&ends->tunnel);
        tunnel_cancel(&ends->destination_tunnel);
    }
    if (ends->qmp)
        settings_restore(ends->qmp, &ends->before);
    if (ends->destination_qmp)
        settings_restore(ends->destination_qmp, &ends->destination_before);
}

void ends_clear(struct ends *ends)
{
    tunnel_clear(&ends->tunnel);
    tunnel_clear(&ends->destination_tunnel);
    settings_clear(&ends->before);
    settings_clear(&ends->destination_before);
    peers_free(ends->peers);
    qmp_free(ends->qmp);
    qmp_free(ends->destination_qmp);
    *ends = (struct ends){0};
}
