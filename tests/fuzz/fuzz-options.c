/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The a{sv} of PrepareIncoming and StartOutgoing. What is taken is in its range, and what is refused says
 * why. */

#include "broker/bus/options.h"
#include "broker/config/settings.h"
#include "fuzz-bus.h"

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

static const char *const keys[] = {
    "streams",       "sockets",     "socket-owner",        "layout",          "security",       "endpoint",
    "endpoints",     "expire-usec", "resume-timeout-usec", "bandwidth-limit", "expected-bytes", "client-id",
    "tie-to-caller",
};

static void check(const struct options *options, enum message_role role)
{
    MUST(options->n_streams > 0 && options->n_streams <= MESSAGE_STREAMS_MAX);
    for (uint32_t i = 0; i < options->n_streams; i++) {
        MUST(stream_name_ok(options->streams[i]));
        MUST(options_stream(options, options->streams[i]) == (int)i); /* no name twice */
        MUST(!options->sockets[i] || options->sockets[i][0] == '\0' || options->sockets[i][0] == '/');
    }
    MUST(options->security == SECURITY_TLS || options->security == SECURITY_PLAIN);
    MUST(options->n_endpoints <= TICKET_ENDPOINTS_MAX &&
         (role == ROLE_INCOMING || options->n_endpoints <= 1));
    for (uint32_t i = 0; i < options->n_endpoints; i++) {
        struct endpoint endpoint;

        MUST(!endpoint_parse(options->endpoints[i], &endpoint));
    }
    MUST(options->expire >= EXPIRE_MIN && options->expire <= EXPIRE_MAX);
    MUST(options->resume_timeout <= EXPIRE_MAX);
    MUST(!options->client_id || message_text_ok(options->client_id, strlen(options->client_id) + 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    enum message_role role = input_byte(&input) & 1 ? ROLE_OUTGOING : ROLE_INCOMING;
    sd_bus_message *m = fuzz_message();
    sd_bus_error error = SD_BUS_ERROR_NULL;
    struct options options = {0};
    struct config config;

    config_init(&config);
    config_finish(&config);
    config.allow_plain = true;
    MUST(sd_bus_message_append(m, role == ROLE_INCOMING ? "s" : "ss", "vm", "ticket") >= 0);
    append_dictionary(m, &input, keys, N_KEYS);
    MUST(sd_bus_message_seal(m, 1, 0) >= 0);
    MUST(sd_bus_message_skip(m, role == ROLE_INCOMING ? "s" : "ss") >= 0);
    if (options_parse(m, role, &config, &options, &error) >= 0)
        check(&options, role);
    else
        MUST(error.name && error.message && error.message[0] != '\0');
    sd_bus_error_free(&error);
    options_clear(&options);
    config_clear(&config);
    sd_bus_message_unref(m);
    return 0;
}
