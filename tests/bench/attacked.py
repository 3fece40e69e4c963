#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long root's Get takes while another user or host attacks the broker; as root:

    VMFERRY_BUILD=$PWD/build-test /usr/bin/python3 tests/bench/attacked.py [SECONDS]
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "lib")]

from jeepney import DBusAddress, new_method_call  # noqa: E402
from lab import percentile  # noqa: E402
from vmlib.broker import BROKER, NAME, PATH, Broker, BusError, Client, Migration  # noqa: E402
from vmlib.lingering import Lingering, while_it_sleeps  # noqa: E402
from vmlib.users import NOBODY, OpenBus, User, being  # noqa: E402
from vmlib.wire import Ticket, preamble  # noqa: E402

MANAGED = DBusAddress(PATH, bus_name=NAME, interface="org.freedesktop.DBus.ObjectManager")
OF_NOTHING = DBusAddress(PATH + "/incoming/0000000000000001", bus_name=NAME,
                         interface="org.vmferry.Broker1.Migration")
PIPELINED = 128  # calls of a connection that wait for replies, at most: the system bus's limit
DESCRIPTORS = 8  # of such calls that bring a descriptor: the bus takes no call for a queue that has 64 of them
PARTS = {"streams": ("as", [f"s{i}" + "x" * 28 for i in range(16)])}


def reads(broker: Broker, migration: Migration) -> None:
    with being(NOBODY):
        connection = broker.bus.connect()
    while True:
        for _ in range(PIPELINED):
            connection.send(new_method_call(MANAGED, "GetManagedObjects"))
        for _ in range(PIPELINED):
            connection.receive(timeout=60)


def refused(broker: Broker, migration: Migration) -> None:
    user = User(broker, NOBODY)
    while True:
        try:
            user.client.call(migration.path, "org.vmferry.Broker1.Migration", "Cancel")
        except BusError:
            pass


def made_and_cancelled(broker: Broker, migration: Migration) -> None:
    user = User(broker, NOBODY)
    while True:
        try:
            user.prepare("own-web1").cancel()
        except BusError:
            time.sleep(0.01)


def sockets(broker: Broker, migration: Migration) -> None:
    with being(NOBODY):
        connection = broker.bus.connect()
        ours, theirs = socket.socketpair()
    while True:
        for _ in range(DESCRIPTORS):
            connection.send(new_method_call(OF_NOTHING, "AddPeerConnection", "h", (theirs,)))
        for _ in range(DESCRIPTORS):
            connection.receive(timeout=60)


def preambles(broker: Broker, migration: Migration) -> None:
    ticket = Ticket.decode(migration.ticket)
    host, port = ticket.endpoints[0].removeprefix("tcp:").rsplit(":", 1)
    kept: list[socket.socket] = []
    while True:
        try:
            kept.append(socket.create_connection((host, int(port))))
            kept[-1].send(preamble(ticket.id))
        except OSError:
            pass
        if len(kept) > 400:
            kept.pop(0).close()


ATTACKS: list[tuple[str, Callable[[Broker, Migration], None] | None]] = [
    ("none", None),
    ("an unprivileged user reads GetManagedObjects without end", reads),
    ("the same user calls methods that are refused", refused),
    ("sends descriptors to no object", sockets),
    ("makes and cancels migrations", made_and_cancelled),
    ("a host that has seen the id opens connections with it", preambles),
]


def gets(broker: Broker, seconds: float) -> list[float]:
    client, took = Client(broker.bus), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter()
        client.get(PATH, BROKER, "Version")
        took.append((time.perf_counter() - begun) * 1e3)
        time.sleep(0.001)
    client.close()
    return took


def report(what: str, took: list[float]) -> None:
    print(f"| {what} | {len(took)} | {percentile(took, 50):.1f} | {percentile(took, 99):.1f} | {max(took):.0f} |", flush=True)


def lingering(broker: Broker, migration: Migration, seconds: float) -> list[float]:
    with Lingering() as held:
        def act() -> None:
            for _ in range(40):
                held.pass_on(lambda sock: broker.bus.connect().send(
                    new_method_call(OF_NOTHING, "AddPeerConnection", "h", (sock,))), NOBODY)

        while_it_sleeps(broker, act)
        time.sleep(2)
        return gets(broker, seconds)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    fork = multiprocessing.get_context("fork")
    print(f"Two attackers each; load average before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs.\n")
    print("| attack | Gets | p50, ms | p99, ms | max, ms |\n|---|---|---|---|---|")
    for what, attack in ATTACKS + [("40 sockets of one user that linger", None)]:
        with tempfile.TemporaryDirectory(prefix="vmfa") as workdir:
            os.chmod(workdir, 0o755)
            with Broker(Path(workdir), "h", bus_type=OpenBus, args=("--max-migrations=2000",)) as broker:
                for i in range(60):  # what is listed
                    broker.prepare(f"{i:04}", PARTS).cancel()
                migration = broker.prepare("victim", {"expire-usec": ("t", 600_000_000)})
                attackers = [fork.Process(target=attack, args=(broker, migration), daemon=True)
                             for _ in range(2 if attack else 0)]
                for process in attackers:
                    process.start()
                time.sleep(1)
                report(what, lingering(broker, migration, seconds) if "linger" in what else gets(broker, seconds))
                for process in attackers:
                    process.kill()
                    process.join()
                assert migration.get("State") == "waiting"  # none is lost
                migration.cancel()


if __name__ == "__main__":
    main()
