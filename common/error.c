/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"

#include <stddef.h>

static const char *const error_names[VF_ERROR_MAX_] = {
    [VF_ERROR_NONE] = "",
    [VF_ERROR_NO_SUCH_MIGRATION] = "NoSuchMigration",
    [VF_ERROR_VM_BUSY] = "VmBusy",
    [VF_ERROR_INVALID_TICKET] = "InvalidTicket",
    [VF_ERROR_TICKET_EXPIRED] = "TicketExpired",
    [VF_ERROR_TICKET_USED] = "TicketUsed",
    [VF_ERROR_PEER_UNREACHABLE] = "PeerUnreachable",
    [VF_ERROR_PEER_REJECTED] = "PeerRejected",
    [VF_ERROR_PROTOCOL_MISMATCH] = "ProtocolMismatch",
    [VF_ERROR_SECURITY_MISMATCH] = "SecurityMismatch",
    [VF_ERROR_SOCKET_UNAVAILABLE] = "SocketUnavailable",
    [VF_ERROR_PATH_NOT_ALLOWED] = "PathNotAllowed",
    [VF_ERROR_PATH_TOO_LONG] = "PathTooLong",
    [VF_ERROR_NO_SUCH_STREAM] = "NoSuchStream",
    [VF_ERROR_LIMIT_EXCEEDED] = "LimitExceeded",
    [VF_ERROR_HELPER_FAILED] = "HelperFailed",
    [VF_ERROR_INTERRUPTED] = "Interrupted",
    [VF_ERROR_CANCELLED] = "Cancelled",
    [VF_ERROR_TIMED_OUT] = "TimedOut",
};

static const char *const result_names[VF_RESULT_MAX_] = {
    [VF_RESULT_NONE] = "",
    [VF_RESULT_DONE] = "done",
    [VF_RESULT_FAILED] = "failed",
    [VF_RESULT_CANCELLED] = "cancelled",
    [VF_RESULT_TIMED_OUT] = "timed-out",
};

const char *vf_error_to_string(uint32_t error)
{
    return error < VF_ERROR_MAX_ ? error_names[error] : NULL;
}

const char *vf_result_to_string(uint32_t result)
{
    return result < VF_RESULT_MAX_ ? result_names[result] : NULL;
}

enum vf_result vf_error_to_result(enum vf_error error)
{
    switch (error) {
    case VF_ERROR_NONE:
        return VF_RESULT_DONE;
    case VF_ERROR_CANCELLED:
        return VF_RESULT_CANCELLED;
    case VF_ERROR_TIMED_OUT:
        return VF_RESULT_TIMED_OUT;
    default:
        return VF_RESULT_FAILED;
    }
}
