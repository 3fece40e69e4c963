/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uses what gdbus-codegen makes of the XML: methods, properties, a signal's subscription and a descriptor. */

#include "vmferry.h"

#include <gio/gunixfdlist.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GDBusConnection) bus = g_dbus_connection_new_for_address_sync(
        argv[1],
        G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION, NULL,
        NULL, &error);
    g_autoptr(VmferryBroker1) broker = NULL;
    g_autoptr(VmferryMigration1) migration = NULL;
    g_autoptr(GUnixFDList) list = NULL;
    g_autoptr(GVariant) handle = NULL, migrations = NULL;
    g_autofree char *path = NULL, *ticket = NULL;
    int fd;

    broker = error ? NULL
                   : vmferry_broker1_proxy_new_sync(bus, G_DBUS_PROXY_FLAGS_NONE, "org.vmferry.Broker1",
                                                    "/org/vmferry/Broker1", NULL, &error);
    if (broker)
        vmferry_broker1_call_prepare_incoming_sync(broker, "web1", g_variant_new("a{sv}", NULL), &path,
                                                   &ticket, NULL, &error);
    if (path)
        migration = vmferry_migration1_proxy_new_sync(bus, G_DBUS_PROXY_FLAGS_NONE, "org.vmferry.Broker1",
                                                      path, NULL, &error);
    if (migration &&
        vmferry_broker1_call_list_sync(broker, g_variant_new("a{sv}", NULL), &migrations, NULL, &error) &&
        vmferry_migration1_call_open_stream_sync(migration, "migrate", NULL, &handle, &list, NULL, &error)) {
        fd = g_unix_fd_list_get(list, g_variant_get_handle(handle), &error);
        if (fd >= 0)
            g_print("%s %s %s %zu %s\n", vmferry_migration1_get_vm(migration),
                    vmferry_migration1_get_state(migration), ticket ? "ticket" : "",
                    g_variant_n_children(migrations), fd > 2 ? "descriptor" : "");
    }
    if (error)
        g_printerr("%s\n", error->message);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}
