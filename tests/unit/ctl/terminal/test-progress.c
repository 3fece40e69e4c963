/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include <locale.h>

#include "ctl/terminal/progress.h"

static const struct progress typical = {
    .vm = "web1",
    .phase = "pre-copy",
    .fraction = 0.459,
    .bytes = 1289748480, /* 1.2 GiB */
    .rate = (uint64_t)310 << 20,
    .has_memory = true,
    .dirty = (uint64_t)100 << 20,
    .remaining = 2254857830,
};

static void expect(const struct progress *progress, size_t columns, const char *want)
{
    char line[PROGRESS_LINE_MAX];
    size_t width = progress_format(progress, columns, false, line);

    assert_string_equal(line, want);
    assert_true(columns == 0 || width <= columns);
}

/* What matters least goes first. */
TEST(test_widths)
{
    expect(&typical, 0, "web1  pre-copy  45 %  1.2 GiB  310 MiB/s  dirty 100 MiB/s  left 2.0 GiB");
    expect(&typical, 79, "web1  pre-copy  45 %  1.2 GiB  310 MiB/s  dirty 100 MiB/s  left 2.0 GiB");
    expect(&typical, 60, "web1  pre-copy  45 %  1.2 GiB  310 MiB/s  left 2.0 GiB");
    expect(&typical, 50, "web1  pre-copy  45 %  310 MiB/s  left 2.0 GiB");
    expect(&typical, 39, "web1  pre-copy  45 %  310 MiB/s");
    expect(&typical, 25, "web1  pre-copy  45 %");
    expect(&typical, 14, "web1  pre-copy");
    expect(&typical, 12, "w…  pre-copy");
    expect(&typical, 11, "…  pre-copy");
    expect(&typical, 8, "…  pre-…");
    expect(&typical, 1, "…");
}

/* A note matters more than figures. */
TEST(test_what_is_to_be_said)
{
    struct progress progress = typical;

    progress.note = "QEMU has not answered for 34 s";
    expect(
        &progress, 0,
        "web1  pre-copy  45 %  1.2 GiB  310 MiB/s  dirty 100 MiB/s  left 2.0 GiB  QEMU has not answered for "
        "34 s");
    expect(&progress, 79, "web1  pre-copy  45 %  310 MiB/s  left 2.0 GiB  QEMU has not answered for 34 s");
    expect(&progress, 50, "web1  pre-copy  QEMU has not answered for 34 s");
    expect(&progress, 40, "web1  pre-copy");
}

TEST(test_every_width_fits)
{
    static const char *const names[] = {
        "v",          "web1",          "a-virtual-machine-with-quite-a-long-name", "größe-ünïcode",
        "仮想マシン", "\xff\xfe bytes"};
    struct progress progress = typical;
    char line[PROGRESS_LINE_MAX];

    progress.reconnects = 12;
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        progress.vm = names[i];
        for (size_t columns = 1; columns < 200; columns++) {
            assert_true(progress_format(&progress, columns, false, line) <= columns);
            assert_true(strlen(line) < PROGRESS_LINE_MAX);
        }
    }
}

TEST(test_never_done_before_it_is)
{
    struct progress progress = typical;

    for (int i = 0; i < 3; i++) {
        progress.fraction = (const double[]){0.9999, 1.0, 1.7}[i];
        expect(&progress, 25, "web1  pre-copy  99 %");
    }
    progress.done = true;
    progress.phase = "done";
    progress.fraction = 0.1;
    expect(&progress, 0, "web1  done  100 %  1.2 GiB  310 MiB/s  dirty 100 MiB/s");
}

TEST(test_what_is_not_known_is_left_out)
{
    struct progress progress = {.vm = "web1", .phase = "waiting", .fraction = -1};

    expect(&progress, 0, "web1  waiting  0 B  0 B/s");
    progress.reconnects = 1;
    expect(&progress, 0, "web1  waiting  0 B  0 B/s  1 reconnect");
    progress.reconnects = 2;
    expect(&progress, 34, "web1  waiting  0 B/s  2 reconnects");
}

TEST(test_colours_take_no_room)
{
    char plain[PROGRESS_LINE_MAX], coloured[PROGRESS_LINE_MAX];
    size_t width = progress_format(&typical, 60, false, plain);

    assert_int_equal(progress_format(&typical, 60, true, coloured), width);
    assert_non_null(strstr(coloured, "\x1b[36mpre-copy\x1b[0m"));
    assert_null(strchr(plain, '\x1b'));
}

TEST(test_extremes)
{
    char name[4000], line[PROGRESS_LINE_MAX];
    struct progress progress = {.vm = name,
                                .phase = "a-phase-that-nobody-has-heard-of-and-that-goes-on-and-on",
                                .fraction = 1e300,
                                .bytes = UINT64_MAX,
                                .rate = UINT64_MAX,
                                .has_memory = true,
                                .dirty = UINT64_MAX,
                                .remaining = UINT64_MAX,
                                .reconnects = UINT32_MAX};

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (size_t columns = 0; columns < 500; columns += 7)
        progress_format(&progress, columns, true, line);
    progress.fraction = 0.0 / 1e-300;
    progress_format(&progress, 80, true, line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_widths),
        CASE(test_what_is_to_be_said),
        CASE(test_every_width_fits),
        CASE(test_never_done_before_it_is),
        CASE(test_what_is_not_known_is_left_out),
        CASE(test_colours_take_no_room),
        CASE(test_extremes),
    };

    setlocale(LC_ALL, "C.UTF-8");
    return cmocka_run_group_tests_name("ctl-progress", tests, NULL, NULL);
}
