/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The types that qdbusxml2cpp's code from org.vmferry.Broker1.xml and org.vmferry.Migration1.xml needs:
 *
 *     qdbusxml2cpp -i vmferry-types.h -p broker org.vmferry.Broker1.xml
 *
 * Before the first call: qDBusRegisterMetaType() of each.
 */

#pragma once

#include <QtDBus/QtDBus>

struct VmferryMigration {
    QString id, vm, role, state;
    uint uid;
    QDBusObjectPath path;
};

struct VmferryChannel {
    QString stream;
    uint number;
    qulonglong sent, received;
    QString state;
};

typedef QList<VmferryMigration> VmferryMigrations;
typedef QList<VmferryChannel> VmferryChannels;
typedef QMap<QString, QString> VmferrySockets;

Q_DECLARE_METATYPE(VmferryMigration)
Q_DECLARE_METATYPE(VmferryMigrations)
Q_DECLARE_METATYPE(VmferryChannel)
Q_DECLARE_METATYPE(VmferryChannels)
Q_DECLARE_METATYPE(VmferrySockets)

inline QDBusArgument &operator<<(QDBusArgument &to, const VmferryMigration &m)
{
    to.beginStructure();
    to << m.id << m.vm << m.role << m.state << m.uid << m.path;
    to.endStructure();
    return to;
}

inline const QDBusArgument &operator>>(const QDBusArgument &from, VmferryMigration &m)
{
    from.beginStructure();
    from >> m.id >> m.vm >> m.role >> m.state >> m.uid >> m.path;
    from.endStructure();
    return from;
}

inline QDBusArgument &operator<<(QDBusArgument &to, const VmferryChannel &c)
{
    to.beginStructure();
    to << c.stream << c.number << c.sent << c.received << c.state;
    to.endStructure();
    return to;
}

inline const QDBusArgument &operator>>(const QDBusArgument &from, VmferryChannel &c)
{
    from.beginStructure();
    from >> c.stream >> c.number >> c.sent >> c.received >> c.state;
    from.endStructure();
    return from;
}
