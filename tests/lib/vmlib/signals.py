# SPDX-License-Identifier: LGPL-2.1-or-later
"""The signals that a broker sends, in their order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jeepney import HeaderFields, MatchRule, MessageType, message_bus

from .broker import NAME, Bus


@dataclass(frozen=True)
class Signal:
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]


class Signals:
    """Collects from its creation on; a `with` closes the connection."""

    def __init__(self, bus: Bus) -> None:
        self.seen: list[Signal] = []
        self._connection = bus.connect()
        rule = MatchRule(type="signal", sender=NAME)
        reply = self._connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=10)
        assert reply.header.message_type == MessageType.method_return, reply.body

    def wait(self, condition: Callable[[list[Signal]], Any], what: str, timeout: float = 30) -> Any:
        """Receives until condition(seen) is true, and returns that."""
        end = time.monotonic() + timeout
        while not (value := condition(self.seen)):
            try:
                message = self._connection.receive(timeout=max(end - time.monotonic(), 0.001))
            except TimeoutError:
                raise AssertionError(f"{what}: not within {timeout} s; came: {self.seen}") from None
            fields = message.header.fields
            if message.header.message_type == MessageType.signal and fields[HeaderFields.interface] != \
                    "org.freedesktop.DBus":
                self.seen.append(Signal(fields[HeaderFields.path], fields[HeaderFields.interface],
                                        fields[HeaderFields.member], tuple(message.body)))
        return value

    def wait_member(self, member: str, path: str | None = None) -> Signal:
        """The first of this name (whose body begins with path, if that is given)."""
        return self.wait(lambda seen: next((s for s in seen if s.member == member and
                                            (path is None or s.body[0] == path)), None), member)

    def changes(self, path: str, name: str) -> list[Any]:
        """What PropertiesChanged said of a property so far."""
        return [s.body[1][name][1] for s in self.seen
                if s.member == "PropertiesChanged" and s.path == path and name in s.body[1]]

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Signals":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
