/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The errors that a migration can end with. The numbers are wire format: they stand in the helpers' messages
 * and in the ABORT and REFUSED frames of the peer protocol, so none may ever change its meaning.
 * The D-Bus name of each is ERROR_PREFIX followed by vf_error_to_string().
 */

#include <stdbool.h>
#include <stdint.h>

#define ERROR_PREFIX "org.vmferry.Error."

enum vf_error {
    VF_ERROR_NONE = 0,
    VF_ERROR_NO_SUCH_MIGRATION = 1,
    VF_ERROR_VM_BUSY = 2,
    VF_ERROR_INVALID_TICKET = 3,
    VF_ERROR_TICKET_EXPIRED = 4,
    VF_ERROR_TICKET_USED = 5,
    VF_ERROR_PEER_UNREACHABLE = 6,
    VF_ERROR_PEER_REJECTED = 7,
    VF_ERROR_PROTOCOL_MISMATCH = 8,
    VF_ERROR_SECURITY_MISMATCH = 9,
    VF_ERROR_SOCKET_UNAVAILABLE = 10,
    VF_ERROR_PATH_NOT_ALLOWED = 11,
    VF_ERROR_PATH_TOO_LONG = 12,
    VF_ERROR_NO_SUCH_STREAM = 13,
    VF_ERROR_LIMIT_EXCEEDED = 14,
    VF_ERROR_HELPER_FAILED = 15,
    VF_ERROR_INTERRUPTED = 16,
    VF_ERROR_CANCELLED = 17,
    VF_ERROR_TIMED_OUT = 18,
    VF_ERROR_MAX_,
};

/* What a finished migration came to. Wire format, as above. */
enum vf_result {
    VF_RESULT_NONE = 0,
    VF_RESULT_DONE = 1,
    VF_RESULT_FAILED = 2,
    VF_RESULT_CANCELLED = 3,
    VF_RESULT_TIMED_OUT = 4,
    VF_RESULT_MAX_,
};

/* The last part of the error's D-Bus name ("VmBusy"); "" for none, NULL for a number that is no error. */
const char *vf_error_to_string(uint32_t error);

/* "done", "failed", "cancelled", "timed-out"; "" for none, NULL for a number that is no result. */
const char *vf_result_to_string(uint32_t result);

/* The result that a migration which ends by this error has. */
enum vf_result vf_error_to_result(enum vf_error error);
