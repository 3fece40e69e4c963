/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/permitted.h"

#include <errno.h>

#include "broker/errors.h"
#include "broker/net/connect-as.h"
#include "broker/sockets/deputy.h"

static int check_path(const struct config *config, uid_t uid, const char *option, const char *path,
                      sd_bus_error *error)
{
    struct socket_scope scope;
    int r = deputy_scope(config, uid, path, &scope);

    if (r >= 0)
        return 0;
    return error_set(error, VF_ERROR_PATH_NOT_ALLOWED, "Option '%s': uid %u may not name %s: %s", option, uid,
                     path, deputy_why(r));
}

int permitted_options(const struct config *config, uid_t uid, const struct options *options,
                      sd_bus_error *error)
{
    int r = 0;

    if (!deputy_is_restricted(uid))
        return 0;
    /* With a layout the owner is the administrator's choice: 'socket-owner' was refused. */
    if (options->has_owner && options->layout[0] == '\0' && (options->owner_uid != uid || options->has_group))
        return error_denied(
            error,
            "Option 'socket-owner': uid %u can have sockets for itself only. Leave the option "
            "out, or call as root.",
            uid);
    for (uint32_t i = 0; r >= 0 && i < options->n_streams; i++)
        if (options->sockets[i] && options->sockets[i][0] != '\0')
            r = check_path(config, uid, "sockets", options->sockets[i], error);
    return r;
}

int permitted_endpoints(const struct config *config, uid_t uid, const struct options *options,
                        sd_bus_error *error)
{
    struct endpoint endpoint;
    const char *path = NULL;
    struct socket_scope scope;

    for (uint32_t i = 0; i < options->n_endpoints; i++) {
        if (endpoint_parse(options->endpoints[i], &endpoint))
            continue;
        path = path_of_endpoint(&endpoint);
        if (!path || deputy_scope(config, uid, path, &scope) >= 0)
            return 0;
    }
    if (!path)
        return 0;
    return error_set(error, VF_ERROR_PATH_NOT_ALLOWED,
                     "The endpoint is a path that uid %u may not name, %s: %s", uid, path,
                     deputy_why(-EOUTSIDE));
}
