# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls that are refused, calls that are not waited for, and an end for what calls have made."""

from __future__ import annotations

from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, MessageFlag, MessageType, new_method_call

from .broker import MIGRATION, NAME, PROPERTIES, BusError, Client, Migration

DENIED = "org.freedesktop.DBus.Error.AccessDenied"
LIMIT = "org.vmferry.Error.LimitExceeded"


def gone(*migrations: Migration) -> None:
    """Cancelled, finished and forgotten, by root."""
    for migration in migrations:
        migration = Migration(getattr(migration.broker, "broker", migration.broker), migration.path)
        if migration.get("State") != "finished":
            migration.cancel()
        migration.wait_finished()
        migration.call("Forget")


def managing(path: str, fd: int) -> list[tuple[Any, ...]]:
    """Every call that does something to a migration; the one that ends it comes last."""
    return [(path, PROPERTIES, "Set", "ssv", MIGRATION, "BandwidthLimit", ("t", 1 << 20)),
            (path, MIGRATION, "OpenStream", "s", "migrate"), (path, MIGRATION, "AddStream", "sh", "migrate", fd),
            (path, MIGRATION, "AddPeerConnection", "h", fd), (path, MIGRATION, "Cancel")]


def refused(call: Any, *args: Any, error: str = DENIED, **options: Any) -> str:
    """What it says."""
    with pytest.raises(BusError) as info:
        call(*args, **options)
    assert info.value.name == error, info.value
    return info.value.text


def post(client: Client, path: str, interface: str, member: str, signature: str = "", *args: Any,
         interactive: bool = False) -> int:
    """Calls and does not wait: the serial."""
    message = new_method_call(DBusAddress(path, bus_name=NAME, interface=interface), member, signature or None, args)
    if interactive:
        message.header.flags |= MessageFlag.allow_interactive_authorization
    serial = next(client.connection.outgoing_serial)
    client.connection.send(message, serial=serial)
    return serial


def answer(client: Client, serial: int, timeout: float = 30) -> tuple[str, str]:
    """The error that a posted call got, and its text; or two empty ones."""
    while True:
        reply = client.connection.receive(timeout=timeout)
        if reply.header.fields.get(HeaderFields.reply_serial) == serial:
            break
    if reply.header.message_type == MessageType.error:
        return str(reply.header.fields[HeaderFields.error_name]), str(reply.body[0])
    return "", ""
