/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/protocol/mark.h"

/* Marks in preambles: who holds the key can make them, and each opens one door. */

static const uint8_t key[KEY_SIZE] = "of both";

static struct preamble made(uint32_t number)
{
    struct preamble preamble = {.kind = PEER_CHANNEL, .id = 42, .mark.number = number};

    assert_int_equal(mark_make(key, &preamble), 0);
    return preamble;
}

TEST(who_holds_the_key_makes_it)
{
    const struct preamble preamble = made(7);

    assert_true(mark_is_right(key, &preamble));
}

TEST(it_is_of_one_preamble)
{
    const uint8_t other_key[KEY_SIZE] = "of others";
    struct preamble changed[5];

    for (size_t i = 0; i < ELEMENTS(changed); i++)
        changed[i] = made(7);
    changed[0].id++;
    changed[1].kind = PEER_RESUME;
    changed[2].mark.number++;
    changed[3].mark.mac ^= 1;
    changed[4].mark.number = 0;
    for (size_t i = 0; i < ELEMENTS(changed); i++)
        assert_false(mark_is_right(key, &changed[i]));
    changed[0] = made(7);
    assert_false(mark_is_right(other_key, &changed[0]));
}

/* Its key is not that of the connection. */
TEST(its_key_is_derived)
{
    uint8_t one[KEY_SIZE], other[KEY_SIZE];

    assert_int_equal(mark_key(key, 1, one), 0);
    assert_int_equal(mark_key(key, 2, other), 0);
    assert_memory_not_equal(one, key, KEY_SIZE);
    assert_memory_not_equal(one, other, KEY_SIZE);
}

TEST(a_number_is_taken_once)
{
    static struct mark_window window;
    static const uint32_t steps[] = {
        1, 2, 63, 64, 65, MARKS_BACK - 1, MARKS_BACK, MARKS_BACK + 1, 5 * MARKS_BACK + 3};
    uint32_t number = 0;

    assert_false(mark_window_take(&window, 0));
    for (size_t i = 0; i < ELEMENTS(steps); i++) {
        number += steps[i];
        assert_true(mark_window_take(&window, number));
        assert_false(mark_window_take(&window, number));
    }
}

/* Against the plain list of all that have come. */
TEST(they_come_in_any_order)
{
    static bool come[8 * MARKS_BACK];
    static struct mark_window window;
    uint32_t highest = 0, seed = 1;

    for (size_t i = 0; i < 20000; i++) {
        uint32_t number, base = (uint32_t)(i * (ELEMENTS(come) - MARKS_BACK - 1) / 20000);
        bool want;

        seed = seed * 1664525 + 1013904223;
        number = 1 + base + (seed >> 16) % MARKS_BACK;
        want = !come[number] && (number > highest || highest - number < MARKS_BACK);
        assert_int_equal(mark_window_take(&window, number), want);
        come[number] = come[number] || want;
        highest = number > highest ? number : highest;
    }
}

TEST(the_last_number)
{
    static struct mark_window window;

    assert_true(mark_window_take(&window, UINT32_MAX - 1));
    assert_true(mark_window_take(&window, UINT32_MAX));
    assert_false(mark_window_take(&window, UINT32_MAX));
    assert_false(mark_window_take(&window, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(who_holds_the_key_makes_it), CASE(it_is_of_one_preamble),  CASE(its_key_is_derived),
        CASE(a_number_is_taken_once),     CASE(they_come_in_any_order), CASE(the_last_number),
    };

    return cmocka_run_group_tests_name("protocol-marks", tests, NULL, NULL);
}
