/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Endpoints: what is parsed is an address of a known family, and is parsed again to the same from how it is
 * written. */

#include <linux/vm_sockets.h>

#include "common/address.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), written[ADDRESS_TEXT_MAX];
    struct endpoint endpoint, again;

    if (!endpoint_parse(text, &endpoint)) {
        MUST(endpoint.size > 0 && endpoint.size <= sizeof(endpoint.address));
        address_format(&endpoint.address, endpoint.size, written);
        MUST(memchr(written, '\0', sizeof(written)));
        if (!endpoint.any && !strchr(written, '%')) {
            MUST(!endpoint_parse(written, &again));
            /* A mapped address is written as the IPv4 address that it is. */
            if (again.address.ss_family == endpoint.address.ss_family)
                MUST(again.size == endpoint.size &&
                     memcmp(&again.address, &endpoint.address, again.size) == 0);
        }
    }
    free(text);
    return 0;
}
