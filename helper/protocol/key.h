/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The keys of a migration's connections, and how each is derived from the secret before it (HKDF, RFC 5869).
 */

#include <stdint.h>

#define KEY_SIZE 32

/* HKDF-SHA-256 with the id as salt; label is the info. 0 or a negative errno. */
int key_derive(const uint8_t secret[static KEY_SIZE], uint64_t id, const char *label,
               uint8_t ret[static KEY_SIZE]);
