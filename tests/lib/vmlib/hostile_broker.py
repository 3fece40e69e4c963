# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that says whatever it likes, as behind -H HOST: for tests of vmferryctl."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus

from .broker import BROKER, NAME, PATH, Bus
from .ctl import Result, ctl

ID = "0123456789abcdef"
OTHER = "fedcba9876543210"

# A title, the bell, a cleared screen, C1's CSI, a line, a carriage return, right-to-left, a line separator, an isolate.
TEXT = "\x1b]0;PWNED\x07\x1b[2J\x9b0m\n# fake line\r\u202eabc\u2028\u2066\u200f\x7f\\\"'$(touch flag)"

Variant = tuple[str, Any]


def variants(text: str, state: str) -> dict[str, Variant]:
    """A migration's properties with this text wherever a text can stand."""
    record: dict[str, Variant] = {key: ("s", text) for key in (
        "Vm", "Role", "Result", "ErrorName", "ErrorMessage", "Peer", "HelperUnit", "Security")}
    record |= {key: ("t", 1) for key in ("StartedUsec", "FinishedUsec", "GivesUpUsec", "BandwidthLimit", "BytesSent", "BytesReceived",
                                         "Rate", "RoundTripUsec")}
    record |= {"Id": ("s", ID), "State": ("s", state), "OwnerUid": ("u", 0), "Reconnects": ("u", 0),
               "Progress": ("d", 0.5), "Sockets": ("a{ss}", {"migrate": f"/x/migrate.sock{text}", text: text}),
               "Channels": ("a(sutts)", [(text, 1, 1, 1, text)]), f"Key{text}": ("s", text)}
    return record


class HostileBroker:
    """Serves a bus in a thread. migration and broker are the properties that it tells of itself and of each one."""

    def __init__(self, bus: Bus, uid: int, text: str = "", state: str = "waiting") -> None:
        self.bus, self.uid, self.text, self.state = bus, uid, text, state
        self.migration = variants(text, state)
        self.broker: dict[str, Variant] = {
            "Version": ("s", text), "Features": ("as", [text]), "Endpoints": ("as", [text]),
            "MaxMigrations": ("u", 1), "ActiveMigrations": ("u", 1)}
        self.ticket = f"vmferry1:{text}"
        self.calls: list[str] = []
        self._connection = bus.connect()
        self._connection.send_and_get_reply(message_bus.RequestName(NAME))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def row(self, role: str, id: str = ID, vm: str | None = None) -> tuple[Any, ...]:
        return (id, self.text if vm is None else vm, role, self.state, self.uid, f"{PATH}/incoming/{id}")

    def rows(self) -> list[tuple[Any, ...]]:
        return [self.row("incoming"), self.row(self.text, OTHER)]

    def answer(self, message: Any, member: str) -> Any:
        if member == "ListMigrations":
            return new_method_return(message, "a(ssssuo)", (self.rows(),))
        if member == "GetAll":
            return new_method_return(message, "a{sv}", (self.broker if message.body[0] == BROKER else self.migration,))
        if member == "PrepareIncoming":
            return new_method_return(message, "os", (f"{PATH}/incoming/{ID}", self.ticket))
        if member == "Wait":
            return new_method_return(message, "s", ("done",))
        return new_error(message, "org.vmferry.Error.Failed", "s", (self.text,))

    def _serve(self) -> None:
        while True:
            try:
                message = self._connection.receive()
            except (OSError, EOFError):  # the bus has ended
                return
            if message.header.message_type != MessageType.method_call:
                continue
            member = message.header.fields[HeaderFields.member]
            self.calls.append(member)
            self._connection.send(self.answer(message, member))

    def close(self) -> None:
        """To be called when the bus has ended."""
        self._thread.join(10)
        self._connection.close()


@contextmanager
def hostile(workdir: Path, text: str = TEXT, state: str = "waiting") -> Iterator[HostileBroker]:
    with Bus(workdir) as bus:
        broker = HostileBroker(bus, os.getuid(), text, state)
        try:
            yield broker
        finally:
            bus.close()
            broker.close()


def assert_clean(text: str) -> None:
    for character in text:
        if character != "\n":
            assert character == "\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp"), ascii(text)
    assert "# fake line" not in text.splitlines(), text


def run_at(broker: HostileBroker, *words: str, stdin: str = "vmferry1:AAAA\n") -> Result:
    """On pipes, where bytes are counted as they are; ctl() does not let a sanitizer's report pass."""
    result = ctl(None, f"--address={broker.bus.address}", *words, stdin=stdin)
    assert_clean(result.out)
    assert_clean(result.err)
    assert 0 <= result.status <= 5, result
    return result
