# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands in for a desktop: owns org.freedesktop.Notifications on a session's bus, and keeps what it is to show.

    with Desktop(bus) as desktop:
        desktop.wait("VM 'web1' has moved")

As a program, for a bus elsewhere: notifications.py ADDRESS FILE appends each call to FILE, as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from jeepney import HeaderFields, MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

NAME = "org.freedesktop.Notifications"


def serve(connection: DBusConnection, keep: Callable[[dict[str, Any]], None]) -> None:
    """Until the bus ends."""
    last = 0
    while True:
        try:
            message = connection.receive()
        except (OSError, EOFError):
            return
        if message.header.message_type == MessageType.method_call and message.header.fields[HeaderFields.member] == "Notify":
            app, replaces, _, title, text, _, hints, _ = message.body
            if not replaces:
                last += 1
            shown = replaces or last
            keep({"app": app, "replaces": replaces, "title": title, "text": text, "urgency": hints["urgency"][1], "id": shown})
            connection.send(new_method_return(message, "u", (shown,)))


class Desktop:
    def __init__(self, connection: DBusConnection) -> None:
        connection.send_and_get_reply(message_bus.RequestName(NAME))
        self.calls: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._connection = connection
        self._thread = threading.Thread(target=serve, args=(connection, self._keep), daemon=True)
        self._thread.start()

    def _keep(self, call: dict[str, Any]) -> None:
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()

    def wait(self, n: int, timeout: float = 60) -> dict[str, Any]:
        """The n-th of all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= n, timeout), f"{n} of {self.calls}"
            return self.calls[n - 1]

    def close(self) -> None:
        """To be called when the bus has ended."""
        self._thread.join(10)
        self._connection.close()


def main() -> None:
    address, path = sys.argv[1:]
    with open_dbus_connection(address, auth_timeout=20) as connection, open(path, "a") as file:
        connection.send_and_get_reply(message_bus.RequestName(NAME))

        def keep(call: dict[str, Any]) -> None:
            file.write(json.dumps(call) + "\n")
            file.flush()

        serve(connection, keep)


if __name__ == "__main__":
    main()
