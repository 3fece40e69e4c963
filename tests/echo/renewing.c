/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The helper, with keys that wear out after 32 MiB; it says so on its standard error when it renews one. */

#include <gnutls/gnutls.h>
#include <unistd.h>

#include "helper/carrier/tls.h"
#include "helper/helper.h"

int __real_gnutls_session_key_update(gnutls_session_t session, unsigned flags);
int __wrap_gnutls_session_key_update(gnutls_session_t session, unsigned flags);

int __wrap_gnutls_session_key_update(gnutls_session_t session, unsigned flags)
{
    static const char text[] = "vmferry-helper: renewed a key\n";

    return write(STDERR_FILENO, text, sizeof(text) - 1) > 0 ? __real_gnutls_session_key_update(session, flags)
                                                            : GNUTLS_E_INTERNAL_ERROR;
}

int main(void)
{
    carrier_tls_renewal = 2048;
    return helper_run(3, NULL);
}
