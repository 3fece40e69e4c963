/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/error.h"

/* The numbers are wire format: written down here once more, so that none changes unseen. */
static const struct {
    uint32_t number;
    const char *name;
} errors[] = {
    {0, ""},
    {1, "NoSuchMigration"},
    {2, "VmBusy"},
    {3, "InvalidTicket"},
    {4, "TicketExpired"},
    {5, "TicketUsed"},
    {6, "PeerUnreachable"},
    {7, "PeerRejected"},
    {8, "ProtocolMismatch"},
    {9, "SecurityMismatch"},
    {10, "SocketUnavailable"},
    {11, "PathNotAllowed"},
    {12, "PathTooLong"},
    {13, "NoSuchStream"},
    {14, "LimitExceeded"},
    {15, "HelperFailed"},
    {16, "Interrupted"},
    {17, "Cancelled"},
    {18, "TimedOut"},
};

TEST(test_errors)
{
    assert_int_equal(ELEMENTS(errors), VF_ERROR_MAX_);
    for (uint32_t i = 0; i < ELEMENTS(errors); i++) {
        assert_int_equal(errors[i].number, i);
        assert_string_equal(vf_error_to_string(i), errors[i].name);
    }
    assert_null(vf_error_to_string(VF_ERROR_MAX_));
    assert_null(vf_error_to_string(UINT32_MAX));
}

TEST(test_results)
{
    static const char *const names[] = {"", "done", "failed", "cancelled", "timed-out"};

    assert_int_equal(ELEMENTS(names), VF_RESULT_MAX_);
    for (uint32_t i = 0; i < ELEMENTS(names); i++)
        assert_string_equal(vf_result_to_string(i), names[i]);
    assert_null(vf_result_to_string(VF_RESULT_MAX_));
    assert_null(vf_result_to_string(UINT32_MAX));
}

TEST(test_result_of_error)
{
    for (uint32_t i = 0; i < VF_ERROR_MAX_; i++) {
        enum vf_result want = i == 0    ? VF_RESULT_DONE
                              : i == 17 ? VF_RESULT_CANCELLED
                              : i == 18 ? VF_RESULT_TIMED_OUT
                                        : VF_RESULT_FAILED;

        assert_int_equal(vf_error_to_result(i), want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_errors),
        CASE(test_results),
        CASE(test_result_of_error),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
