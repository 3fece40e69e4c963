/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The configuration file. Whatever stands in it, each setting is in its range, and the broker has where to
 * listen. */

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/config/load.h"
#include "broker/config/settings.h"
#include "broker/log.h"
#include "fuzz.h"

static void check_list(const struct config_list *list)
{
    MUST(list->n <= CONFIG_LISTEN_MAX);
    for (size_t i = 0; i < list->n; i++)
        MUST(list->items[i] && list->items[i][0] != '\0');
}

static void check(const struct config *config)
{
    const struct setting *setting;

    for (size_t i = 0; (setting = setting_at(i)); i++) {
        const void *at = (const char *)config + setting->offset;

        switch (setting->kind) {
        case SETTING_NUMBER:
            MUST(*(const uint32_t *)at >= setting->min && *(const uint32_t *)at <= setting->max);
            break;
        case SETTING_LARGE:
            MUST(*(const uint64_t *)at % setting->unit == 0 &&
                 *(const uint64_t *)at / setting->unit >= setting->min &&
                 *(const uint64_t *)at / setting->unit <= setting->max);
            break;
        case SETTING_BOOLEAN:
            MUST(*(const uint8_t *)at <= 1);
            break;
        default:
            check_list(at);
        }
    }
    MUST(config->n_listen > 0 && config->n_listen <= CONFIG_LISTEN_MAX);
    for (size_t i = 0; i < config->n_listen; i++) {
        struct endpoint endpoint;

        MUST(!endpoint_parse(config->listen[i], &endpoint));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    struct config_mistakes mistakes = {0};
    char path[64];
    int fd = memfd_create("config", MFD_CLOEXEC);

    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    log_open(LOG_EMERG);
    config_init(&config);
    MUST(config_load(&config, "", path, &mistakes) == 0);
    config_finish(&config);
    check(&config);
    config_clear(&config);
    close(fd);
    return 0;
}
