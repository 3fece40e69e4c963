/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Control frames, as many as there are in the input. What is decoded must encode to the same bytes. */

#include "fuzz.h"
#include "helper/protocol/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0;

    for (;;) {
        uint8_t *copy = fuzz_copy(size > 0 ? data + at : data, size - at), again[FRAME_MAX];
        const char *why = NULL;
        struct frame frame;
        size_t used = 0;
        enum verdict verdict = frame_decode(copy, size - at, &frame, &used, &why);

        MUST((verdict == VERDICT_BAD) == (why != NULL));
        if (verdict == VERDICT_OK) {
            MUST(used >= FRAME_HEADER_SIZE && used <= size - at && used <= FRAME_MAX);
            MUST(frame_encode(&frame, again) == used && memcmp(copy, again, used) == 0);
            MUST(frame.type > 0 && frame.type < FRAME_MAX_TYPE_);
            for (int greeted = 0; greeted < 2; greeted++)
                frame_not_permitted(frame.type, at % 2 ? ROLE_INCOMING : ROLE_OUTGOING, greeted);
            at += used;
        }
        MUST(verdict == VERDICT_OK || verdict == VERDICT_BAD || verdict == VERDICT_MORE);
        MUST(verdict != VERDICT_MORE || size - at < FRAME_MAX); /* the receiver's buffer always suffices */
        free(copy);
        if (verdict != VERDICT_OK)
            return 0;
    }
}
