/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND ((uint64_t)1000000)
#define DAY    (86400 * SECOND)

/* digits[.digits] as thousandths of factor; how many bytes that took, 0 where it is none or too large. */
static size_t scan(const char *text, uint64_t *ret_whole, uint32_t *ret_millionths)
{
    size_t digits = strspn(text, "0123456789"), n = digits;
    uint32_t millionths = 0, weight = 100000;

    if (digits == 0 || digits > 18)
        return 0;
    *ret_whole = strtoull(text, NULL, 10);
    if (text[n] == '.') {
        size_t more = strspn(text + n + 1, "0123456789");

        if (more == 0)
            return 0;
        for (size_t i = 1; i <= more && weight > 0; i++, weight /= 10)
            millionths += (uint32_t)(text[n + i] - '0') * weight;
        n += 1 + more;
    }
    *ret_millionths = millionths;
    return n;
}

static bool scale(uint64_t whole, uint32_t millionths, uint64_t factor, uint64_t max, uint64_t *ret)
{
    if (whole > max / factor)
        return false;
    *ret = whole * factor + factor * millionths / 1000000;
    return *ret <= max;
}

bool parse_size(const char *text, uint64_t *ret)
{
    static const char suffixes[] = "KMGT";
    uint64_t whole = 0, factor = 1;
    uint32_t millionths = 0;
    size_t n = scan(text, &whole, &millionths);
    const char *suffix;

    if (n == 0)
        return false;
    n += text[n] == ' ';
    suffix = text[n] ? strchr(suffixes, toupper((unsigned char)text[n])) : NULL;
    if (suffix) {
        factor = (uint64_t)1 << (10 * (suffix - suffixes + 1));
        n++;
        n += text[n] == 'i' && text[n + 1] == 'B' ? 2 : 0;
    } else {
        n += text[n] == 'B';
    }
    n += strcmp(text + n, "/s") == 0 ? 2 : 0;
    return text[n] == '\0' && text[n - 1] != ' ' && scale(whole, millionths, factor, INT64_MAX, ret);
}

/* A number and its unit, as "90", "300ms" or "2 min"; how many bytes that took, 0 where it is none. */
static size_t scan_time(const char *text, bool first, uint64_t *ret_usec)
{
    static const struct {
        const char *name;
        uint64_t usec;
    } units[] = {{"ms", 1000},         {"us", 1},    {"µs", 1}, {"min", 60 * SECOND},
                 {"h", 3600 * SECOND}, {"s", SECOND}};
    uint64_t whole = 0, factor = 0;
    uint32_t millionths = 0;
    size_t n = scan(text, &whole, &millionths), blank = n > 0 && text[n] == ' ';

    if (n == 0)
        return 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        size_t size = strlen(units[i].name);

        if (strncmp(text + n + blank, units[i].name, size) == 0 && strchr(" ", text[n + blank + size])) {
            factor = units[i].usec;
            n += blank + size;
            break;
        }
    }
    if (factor == 0 && first && text[n] == '\0')
        factor = SECOND;
    return factor > 0 && scale(whole, millionths, factor, DAY, ret_usec) ? n : 0;
}

bool parse_time(const char *text, uint64_t *ret_usec)
{
    uint64_t sum = 0, one = 0;
    size_t n;

    for (bool first = true;; first = false) {
        n = scan_time(text, first, &one);
        sum += one * (n > 0);
        if (n == 0 || sum > DAY)
            return false;
        if (text[n] == '\0')
            break;
        if (text[n] != ' ')
            return false;
        text += n + 1;
    }
    *ret_usec = sum;
    return true;
}

bool time_has_unit(const char *text)
{
    return text[strspn(text, "0123456789.")] != '\0';
}

bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    size_t n = strlen(text);

    if (n == 0 || n > 18 || strspn(text, "0123456789") != n)
        return false;
    *ret = strtoull(text, NULL, 10);
    return *ret >= min && *ret <= max;
}

void format_size(uint64_t bytes, char ret[static UNITS_TEXT_MAX])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    uint64_t tenths;

    while (unit < 6 && bytes >> (10 * unit) >= 1024)
        unit++;
    tenths = (bytes >> (10 * unit)) * 10 + ((bytes & (((uint64_t)1 << (10 * unit)) - 1)) * 10 >> (10 * unit));
    if (unit == 0 || tenths >= 1000)
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 " %s", tenths / 10, names[unit]);
    else
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, names[unit]);
}

void format_time(uint64_t usec, char ret[static UNITS_TEXT_MAX])
{
    uint64_t seconds = usec / SECOND;

    if (usec < 1000)
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 " µs", usec);
    else if (usec < SECOND)
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 " ms", usec / 1000);
    else if (seconds < 60)
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 ".%" PRIu64 " s", seconds, usec % SECOND / 100000);
    else if (seconds < 3600)
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
    else
        snprintf(ret, UNITS_TEXT_MAX, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600, seconds / 60 % 60);
}

void format_span(uint64_t from, uint64_t to, char ret[static UNITS_TEXT_MAX])
{
    ret[0] = '\0';
    if (to >= from)
        format_time(to - from, ret);
}

void format_moment(uint64_t usec, char ret[static UNITS_TEXT_MAX])
{
    time_t t = (time_t)(usec / SECOND);
    struct tm tm;

    if (usec == 0 || !localtime_r(&t, &tm) || strftime(ret, UNITS_TEXT_MAX, "%Y-%m-%d %H:%M:%S %Z", &tm) == 0)
        strcpy(ret, "-");
}
