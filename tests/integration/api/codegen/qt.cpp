/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uses what qdbusxml2cpp makes of the XML: methods, properties of all kinds, and a descriptor. */

#include "broker.h"
#include "migration.h"

#include <cstdio>
#include <QtCore/QCoreApplication>

int main(int argc, char **argv)
{
    QCoreApplication application(argc, argv);
    qDBusRegisterMetaType<VmferryMigration>();
    qDBusRegisterMetaType<VmferryMigrations>();
    qDBusRegisterMetaType<VmferryChannel>();
    qDBusRegisterMetaType<VmferryChannels>();
    qDBusRegisterMetaType<VmferrySockets>();
    qDBusRegisterMetaType<QList<QVariantMap>>();

    QDBusConnection bus = QDBusConnection::connectToBus(argv[1], "host");
    OrgVmferryBroker1Interface broker("org.vmferry.Broker1", "/org/vmferry/Broker1", bus);
    QDBusPendingReply<QDBusObjectPath, QString> prepared = broker.PrepareIncoming("web1", QVariantMap());
    prepared.waitForFinished();
    if (prepared.isError()) {
        std::fprintf(stderr, "%s\n", qPrintable(prepared.error().message()));
        return EXIT_FAILURE;
    }
    OrgVmferryMigration1Interface migration("org.vmferry.Broker1", prepared.argumentAt<0>().path(), bus);
    QDBusPendingReply<QDBusUnixFileDescriptor> opened = migration.OpenStream("migrate");
    QDBusPendingReply<VmferryMigrations> old = broker.ListMigrations();
    QDBusPendingReply<QList<QVariantMap>> list = broker.List(QVariantMap());
    opened.waitForFinished();
    old.waitForFinished();
    list.waitForFinished();
    std::printf("%s %s %s %d %s %s %d %d\n", qPrintable(migration.vm()),
                qPrintable(old.value().value(0).state), prepared.argumentAt<1>().isEmpty() ? "" : "ticket",
                int(list.value().size()), opened.value().isValid() ? "descriptor" : "",
                qPrintable(migration.sockets().value("migrate").section('/', -1)),
                int(migration.channels().size()), broker.totals().contains("migrations"));
    return EXIT_SUCCESS;
}
