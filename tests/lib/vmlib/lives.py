# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whole migrations, under managers that call again where a broker has died."""

from __future__ import annotations

import time

from .broker import BusError, Client, Migration
from .fake_qemu import FakeQemu
from .hosts import Hosts

SEC = 1_000_000


class Life:
    """A whole migration, whose calls are repeated as a manager would whom the broker has died under."""

    def __init__(self, pair: Hosts, number: int, size: int, patience: float = 120) -> None:
        self.pair, self.number, self.vm, self.size = pair, number, f"vm{number}", size
        self.patience = patience  # of the QEMUs, in seconds: nothing tells them that a migration has failed
        self.client_id = ("s", self.vm)

    def __call__(self) -> tuple[int, int]:
        incoming = self._make(lambda: self.pair.prepare(self.vm, client_id=self.client_id, expire_usec=("t", 300 * SEC)))
        outgoing = self._make(lambda: self.pair.start(incoming, self.vm, client_id=self.client_id,
                                                      expire_usec=("t", 300 * SEC)))
        paths = [self._again(lambda: migration.socket()) for migration in (incoming, outgoing)]
        with FakeQemu.listen(paths[0], timeout=self.patience) as listener:
            source = FakeQemu.connect(paths[1], timeout=self.patience)
            with source:
                there = source.send_pattern(1, self.size, shut=True)
                with listener.accept() as destination:
                    back = destination.send_pattern(2, self.size, shut=True)
                    assert destination.recv_pattern_until_eof(1) == self.size
                    assert source.recv_pattern_until_eof(2) == self.size
                    there.result(60), back.result(60)
        for migration in (incoming, outgoing):
            found = self._again(lambda: self._finished(migration))
            assert (found["Result"], found["ErrorMessage"]) == ("done", ""), found
            assert found["BytesSent"] == found["BytesReceived"] == self.size
            if self.number % 2 == 0:
                self._again(lambda: self._report(migration))
        return self.size, self.size

    def _finished(self, migration: Migration) -> dict[str, object]:
        client = Client(migration.broker.bus)
        try:
            end = time.monotonic() + 60
            while True:
                found = client.get_all(migration.path, "org.vmferry.Migration1")
                if found["State"] == "finished" or time.monotonic() > end:
                    return found
                time.sleep(0.05)
        finally:
            client.close()

    @staticmethod
    def _report(migration: Migration) -> None:
        client = Client(migration.broker.bus)
        try:
            client.call(migration.path, "org.vmferry.Migration1", "Report", "sa{sv}", "moved", {})
        finally:
            client.close()

    _make = staticmethod(lambda call: Life._again(call))

    @staticmethod
    def _again(call):  # type: ignore[no-untyped-def]
        end = time.monotonic() + 60
        while True:
            try:
                return call()
            except (BusError, OSError, EOFError, ConnectionError) as error:
                if isinstance(error, BusError) and not error.name.startswith("org.freedesktop.DBus.Error."):
                    raise
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


class Own(Hosts):
    """Calls on connections of their own, for they come from many threads and over many brokers."""

    def prepare(self, vm: str = "web1", security: str = "plain", **options):  # type: ignore[no-untyped-def,override]
        return self._call(self.destination, "PrepareIncoming", "sa{sv}", vm, {"security": ("s", security), **named(options)})

    def start(self, incoming, vm: str = "web1", **options):  # type: ignore[no-untyped-def,override]
        return self._call(self.source, "StartOutgoing", "ssa{sv}", vm, incoming.ticket, named(options))

    @staticmethod
    def _call(broker, member, signature, *args):  # type: ignore[no-untyped-def]
        client = Client(broker.bus)
        try:
            reply = client.call("/org/vmferry/Broker1", "org.vmferry.Broker1", member, signature, *args)
        finally:
            client.close()
        return Detached(broker, *reply)


class Detached(Migration):
    def socket(self, stream: str = "migrate") -> str:
        client = Client(self.broker.bus)
        try:
            return client.get(self.path, "org.vmferry.Migration1", "Sockets")[stream]
        finally:
            client.close()


def named(options):  # type: ignore[no-untyped-def]
    return {key.replace("_", "-"): value for key, value in options.items()}
