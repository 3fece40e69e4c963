/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/handshake.h"

#include <errno.h>

#include "common/error.h"
#include "helper/protocol/greeting.h"

int handshake_hear(struct handshake *handshake, const uint8_t *data, size_t size)
{
    bool first = !handshake->heard;

    handshake->heard = true;
    if (!first || !handshake->connecting || data[0] != 0)
        return 0;
    if (size < REJECTION_SIZE || rejection_decode(data, &handshake->rejected) != VERDICT_OK)
        handshake->rejected = VF_ERROR_PEER_REJECTED;
    return -ECONNREFUSED;
}
