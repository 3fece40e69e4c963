/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The records of fixed size: preamble, rejection, channel hello. */

#include "common/error.h"
#include "fuzz.h"
#include "helper/protocol/greeting.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy, again[PREAMBLE_SIZE];
    struct channel_hello hello;
    struct preamble preamble;
    uint32_t error;

    if (size >= PREAMBLE_SIZE) {
        copy = fuzz_copy(data, PREAMBLE_SIZE);
        if (preamble_decode(copy, &preamble) == VERDICT_OK) {
            MUST(preamble.kind == PEER_CONTROL || preamble.kind == PEER_CHANNEL ||
                 preamble.kind == PEER_RESUME);
            preamble_encode(&preamble, again);
            MUST(memcmp(copy, again, PREAMBLE_SIZE) == 0);
        }
        free(copy);
    }
    if (size >= REJECTION_SIZE) {
        copy = fuzz_copy(data, REJECTION_SIZE);
        if (rejection_decode(copy, &error) == VERDICT_OK)
            MUST(error > VF_ERROR_NONE && error < VF_ERROR_MAX_ && vf_error_to_string(error));
        free(copy);
    }
    if (size >= CHANNEL_HELLO_SIZE) {
        copy = fuzz_copy(data, CHANNEL_HELLO_SIZE);
        if (channel_hello_decode(copy, &hello) == VERDICT_OK) {
            channel_hello_encode(&hello, again);
            MUST(memcmp(copy, again, CHANNEL_HELLO_SIZE) == 0);
        }
        free(copy);
    }
    return 0;
}
