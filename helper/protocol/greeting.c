/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/protocol/greeting.h"

#include <string.h>

#include "common/error.h"

static const uint8_t preamble_magic[8] = {'V', 'M', 'F', 'E', 'R', 'R', 'Y', '\n'};
static const uint8_t rejection_magic[8] = {0, 'V', 'M', 'F', 'R', 'E', 'J', '\n'};

/* magic[8], version u16, kind u16, number u32, id u64, mac[8] */
void preamble_encode(const struct preamble *preamble, uint8_t buf[static PREAMBLE_SIZE])
{
    memset(buf, 0, PREAMBLE_SIZE);
    memcpy(buf, preamble_magic, sizeof(preamble_magic));
    put16(buf + 8, PROTOCOL_VERSION);
    put16(buf + 10, (uint16_t)preamble->kind);
    put32(buf + 12, preamble->mark.number);
    put64(buf + 16, preamble->id);
    put64(buf + 24, preamble->mark.mac);
}

enum verdict preamble_decode(const uint8_t buf[static PREAMBLE_SIZE], struct preamble *ret)
{
    struct preamble preamble = {
        .kind = get16(buf + 10),
        .id = get64(buf + 16),
        .mark = {.number = get32(buf + 12), .mac = get64(buf + 24)},
    };

    if (memcmp(buf, preamble_magic, sizeof(preamble_magic)) != 0)
        return VERDICT_BAD;
    if (get16(buf + 8) != PROTOCOL_VERSION)
        return VERDICT_VERSION;
    if ((preamble.kind != PEER_CONTROL && preamble.kind != PEER_CHANNEL && preamble.kind != PEER_RESUME) ||
        (preamble.mark.number == 0 && preamble.mark.mac != 0))
        return VERDICT_BAD;
    *ret = preamble;
    return VERDICT_OK;
}

/* magic[8], version u16, zero u16, error u32, zero[16] */
void rejection_encode(uint32_t error, uint8_t buf[static REJECTION_SIZE])
{
    memset(buf, 0, REJECTION_SIZE);
    memcpy(buf, rejection_magic, sizeof(rejection_magic));
    put16(buf + 8, PROTOCOL_VERSION);
    put32(buf + 12, error);
}

enum verdict rejection_decode(const uint8_t buf[static REJECTION_SIZE], uint32_t *ret_error)
{
    uint32_t error = get32(buf + 12);

    /* The version is not held against it: saying that versions differ is one of its uses. */
    if (memcmp(buf, rejection_magic, sizeof(rejection_magic)) != 0 || error == VF_ERROR_NONE ||
        error >= VF_ERROR_MAX_)
        return VERDICT_BAD;
    *ret_error = error;
    return VERDICT_OK;
}

/* channel u32, zero u32, received u64 */
void channel_hello_encode(const struct channel_hello *hello, uint8_t buf[static CHANNEL_HELLO_SIZE])
{
    put32(buf, hello->channel);
    put32(buf + 4, 0);
    put64(buf + 8, hello->received);
}

enum verdict channel_hello_decode(const uint8_t buf[static CHANNEL_HELLO_SIZE], struct channel_hello *ret)
{
    if (get32(buf + 4) != 0)
        return VERDICT_BAD;
    *ret = (struct channel_hello){.channel = get32(buf), .received = get64(buf + 8)};
    return VERDICT_OK;
}
