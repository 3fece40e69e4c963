/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The record of a migration in the FD store. The length in its header is made right here, or it would keep a
 * fuzzer out. What is decoded must be the same when it is encoded and decoded again.
 */

#include "broker/migration/record.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct record first, second;
    static uint8_t again[RECORD_SIZE_MAX];
    uint8_t *copy = fuzz_copy(data, size);
    const char *why;

    for (size_t i = 0; size >= 16 && i < 4; i++)
        copy[12 + i] = (uint8_t)(size >> (8 * i));
    if (record_decode(copy, size, &first, &why) == RECORD_OK) {
        MUST(!why);
        MUST(record_decode(again, record_encode(&first, again), &second, &why) == RECORD_OK);
        MUST(memcmp(&first, &second, sizeof(first)) == 0);
    } else {
        MUST(why && *why);
    }
    free(copy);
    return 0;
}
