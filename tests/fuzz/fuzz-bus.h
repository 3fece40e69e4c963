/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Values of D-Bus made of an input, for those who read a message of another process. */

#include <sys/socket.h>
#include <systemd/sd-bus.h>

#include "fuzz.h"

struct input {
    const uint8_t *data;
    size_t size;
};

static inline unsigned input_byte(struct input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->data++;
}

/* A byte of length and so many bytes, up to the first NUL: a text that D-Bus takes, for it is ASCII or
 * Latin-1 in UTF-8. */
static inline const char *input_text(struct input *input)
{
    static char texts[4][2 * 256];
    static unsigned next;
    char *text = texts[next++ % 4], *at = text;
    size_t n = input_byte(input);

    for (; n > 0 && input->size > 0; n--) {
        unsigned byte = input_byte(input);

        if (byte == 0)
            break;
        if (byte >= 0x80)
            *at++ = (char)(0xc0 | byte >> 6);
        *at++ = (char)(byte >= 0x80 ? 0x80 | (byte & 0x3f) : byte);
    }
    *at = '\0';
    return text;
}

static inline uint64_t input_number(struct input *input)
{
    uint64_t number = 0;

    for (unsigned n = input_byte(input) % 9; n > 0; n--)
        number = number << 8 | input_byte(input);
    return number;
}

/* A connection that is good for making messages. */
static inline sd_bus *fuzz_bus(void)
{
    static sd_bus *bus;
    int fds[2];

    if (bus)
        return bus;
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    MUST(sd_bus_new(&bus) >= 0 && sd_bus_set_fd(bus, fds[0], fds[0]) >= 0 && sd_bus_start(bus) >= 0);
    return bus;
}

static inline sd_bus_message *fuzz_message(void)
{
    sd_bus_message *m;

    MUST(sd_bus_message_new_method_call(fuzz_bus(), &m, NULL, "/", "a.b", "C") >= 0);
    return m;
}

/* A list of structs, in a variant. */
static inline void append_structs(sd_bus_message *m, struct input *input, bool texts)
{
    MUST(sd_bus_message_open_container(m, 'v', texts ? "a(sst)" : "a(tt)") >= 0);
    MUST(sd_bus_message_open_container(m, 'a', texts ? "(sst)" : "(tt)") >= 0);
    for (unsigned n = input_byte(input) % 20; n > 0; n--)
        if (texts)
            MUST(sd_bus_message_append(m, "(sst)", input_text(input), input_text(input),
                                       input_number(input)) >= 0);
        else
            MUST(sd_bus_message_append(m, "(tt)", input_number(input), input_number(input)) >= 0);
    MUST(sd_bus_message_close_container(m) >= 0 && sd_bus_message_close_container(m) >= 0);
}

/* As a broker's property Totals is, or nearly. */
static inline void append_totals(sd_bus_message *m, struct input *input)
{
    MUST(sd_bus_message_open_container(m, 'v', "a{sv}") >= 0 &&
         sd_bus_message_open_container(m, 'a', "{sv}") >= 0);
    for (int i = 0; i < 2; i++) {
        MUST(sd_bus_message_open_container(m, 'e', "sv") >= 0);
        MUST(sd_bus_message_append(m, "s", i == 0 ? "migrations" : "downtimes") >= 0);
        append_structs(m, input, (input_byte(input) & 1) == (unsigned)i);
        MUST(sd_bus_message_close_container(m) >= 0);
    }
    MUST(sd_bus_message_append(m, "{sv}", "downtime-count", "t", input_number(input)) >= 0);
    MUST(sd_bus_message_append(m, "{sv}", input_text(input), "d", (double)input_number(input)) >= 0);
    MUST(sd_bus_message_close_container(m) >= 0 && sd_bus_message_close_container(m) >= 0);
}

/* One variant: of a basic type, or a list, a dictionary, a list of structs. */
static inline void append_value(sd_bus_message *m, struct input *input)
{
    unsigned n;
    double real;
    uint64_t bits;

    switch (input_byte(input) % 12) {
    case 0:
        MUST(sd_bus_message_append(m, "v", "s", input_text(input)) >= 0);
        break;
    case 1:
        MUST(sd_bus_message_append(m, "v", "t", input_number(input)) >= 0);
        break;
    case 2:
        MUST(sd_bus_message_append(m, "v", "u", (uint32_t)input_number(input)) >= 0);
        break;
    case 3:
        MUST(sd_bus_message_append(m, "v", "b", (int)input_byte(input) & 1) >= 0);
        break;
    case 4:
        bits = input_number(input);
        memcpy(&real, &bits, sizeof(real));
        MUST(sd_bus_message_append(m, "v", "d", real) >= 0);
        break;
    case 5:
        MUST(sd_bus_message_open_container(m, 'v', "as") >= 0 &&
             sd_bus_message_open_container(m, 'a', "s") >= 0);
        for (n = input_byte(input) % 20; n > 0; n--)
            MUST(sd_bus_message_append(m, "s", input_text(input)) >= 0);
        MUST(sd_bus_message_close_container(m) >= 0 && sd_bus_message_close_container(m) >= 0);
        break;
    case 6:
        MUST(sd_bus_message_open_container(m, 'v', "a{ss}") >= 0 &&
             sd_bus_message_open_container(m, 'a', "{ss}") >= 0);
        for (n = input_byte(input) % 20; n > 0; n--)
            MUST(sd_bus_message_append(m, "{ss}", input_text(input), input_text(input)) >= 0);
        MUST(sd_bus_message_close_container(m) >= 0 && sd_bus_message_close_container(m) >= 0);
        break;
    case 7:
        MUST(sd_bus_message_append(m, "v", "(yx)", input_byte(input), (int64_t)input_number(input)) >= 0);
        break;
    case 8:
    case 9:
        append_structs(m, input, input_byte(input) & 1);
        break;
    case 10:
        append_totals(m, input);
        break;
    default:
        MUST(sd_bus_message_append(m, "v", "v", "n", (int)(int16_t)input_number(input)) >= 0);
    }
}

/* An a{sv}: each key of the table by its number, or another one; up to the end of the input. */
static inline void append_dictionary(sd_bus_message *m, struct input *input, const char *const *keys,
                                     size_t n_keys)
{
    MUST(sd_bus_message_open_container(m, 'a', "{sv}") >= 0);
    while (input->size > 0) {
        unsigned which = input_byte(input);

        MUST(sd_bus_message_open_container(m, 'e', "sv") >= 0);
        MUST(sd_bus_message_append(m, "s", which < n_keys ? keys[which] : input_text(input)) >= 0);
        append_value(m, input);
        MUST(sd_bus_message_close_container(m) >= 0);
    }
    MUST(sd_bus_message_close_container(m) >= 0);
}
