/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The proof, in both roles, fed in pieces whose sizes are in the input: the first byte is the role, then each
 * piece is a length and so many bytes. Nobody who has not the key may get an OK.
 */

#include "fuzz.h"
#include "helper/protocol/proof.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[KEY_SIZE] = {0x5a, 1, 2, 3};
    const struct preamble preamble = {PEER_CONTROL, 1};
    struct proof proof;
    size_t at = 1;

    if (size == 0)
        return 0;
    MUST(proof_init(&proof, data[0] & 1, &preamble, key) == 0);
    while (at < size) {
        size_t n = data[at++];
        enum verdict verdict;
        uint8_t *copy;

        if (n > size - at)
            n = size - at;
        copy = fuzz_copy(data + at, n);
        verdict = proof_feed(&proof, copy, n);
        free(copy);
        at += n;
        MUST(verdict == VERDICT_MORE || verdict == VERDICT_BAD);
        MUST(proof.n_in <= proof.n_need && proof.n_need <= PROOF_MAX && proof.n_out <= PROOF_MAX);
        if (verdict == VERDICT_BAD)
            break;
    }
    proof_clear(&proof);
    return 0;
}
