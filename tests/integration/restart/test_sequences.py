# SPDX-License-Identifier: LGPL-2.1-or-later
"""Brokers under calls in random order, right and wrong ones, whose helpers and brokers are killed now and then. Some of the
helpers are stand-ins that lie, that say nothing more, or that end (tests/rogue/liar.py).

$VMFERRY_SEED is the first seed; a failure says which it was. $VMFERRY_LONG makes it forty sequences instead of three, and
adds the stand-ins.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from vmlib.broker import BROKER, PATH, BusError, Migration, wait_until
from vmlib.hosts import Hosts
from vmlib.chooser import LIES, Chooser
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers, close

SEC = 1_000_000
CALLS = 150
LONG = bool(os.environ.get("VMFERRY_LONG"))
FIRST = int(os.environ.get("VMFERRY_SEED", "1"))
SEEDS = range(FIRST, FIRST + (40 if LONG else 3))
ODD = (*LIES, "gone", "early", "never-ready", "noisy")
STANDARD = {f"org.freedesktop.DBus.Error.{name}" for name in (
    "InvalidArgs", "UnknownObject", "UnknownMethod", "UnknownProperty", "PropertyReadOnly", "InvalidSignature")}


class Sequence:
    """What one manager does, and what it knows: the migrations that it has made and not forgotten."""

    def __init__(self, pair: Hosts, chooser: Chooser, seed: int) -> None:
        self.pair, self.chooser, self.rng = pair, chooser, random.Random(seed)
        self.made: dict[tuple[str, str], tuple[str, str]] = {}  # by broker and path: the VM and the role
        self.tickets = ["", "vmferry1:AAAA"]
        self.sockets: list[socket.socket] = []
        self.refusals = 0

    def run(self) -> None:
        deeds: list[tuple[int, Callable[[ManagedBroker], None]]] = [
            (20, self.prepare), (20, self.start), (8, self.cancel), (6, self.forget), (10, self.open_stream),
            (8, self.add_socket), (5, self.limit), (8, self.look), (5, self.kill_helper), (4, self.kill_broker),
            (6 if LONG else 0, self.odd_helper)]
        for _ in range(CALLS):
            weights = [weight for weight, _ in deeds]
            deed = self.rng.choices(deeds, weights)[0][1]
            try:
                deed(self.rng.choice(brokers(self.pair)))
            except BusError as error:
                assert error.name.startswith("org.vmferry.Error.") or error.name in STANDARD, error
                assert str(error), "an error without a text"
                self.refusals += 1
            self.check()

    def check(self) -> None:
        """No migration is lost, none is there that was not made, and each has its owner."""
        for broker in brokers(self.pair):
            listed = {(broker.name, path): (vm, role) for _, vm, role, _, _, path in broker.list()}
            assert listed == {key: value for key, value in self.made.items() if key[0] == broker.name}
            assert all(uid == os.getuid() for _, _, _, _, uid, _ in broker.list())

    def end(self) -> None:
        for name, path in list(self.made):
            broker = next(broker for broker in brokers(self.pair) if broker.name == name)
            migration = Migration(broker, path)
            if migration.get("State") != "finished":
                migration.cancel()
        for broker in brokers(self.pair):
            wait_until(lambda broker=broker: all(state == "finished" for _, _, _, state, _, _ in broker.list()),
                       f"all are finished: {broker.list()}", 30)
        for sock in self.sockets:
            sock.close()

    def any_of(self, broker: ManagedBroker) -> Migration:
        """One of this broker's; sometimes one that is not there."""
        paths = [path for name, path in self.made if name == broker.name]
        if not paths or self.rng.random() < 0.05:
            return Migration(broker, f"{PATH}/incoming/{self.rng.getrandbits(64):016x}")
        return Migration(broker, self.rng.choice(paths))

    def vm(self) -> str:
        return self.rng.choice(["web1", "web2", "db", "a" * 200, "", "x/y"])

    def options(self) -> dict[str, tuple[str, object]]:
        every: list[dict[str, tuple[str, object]]] = [
            {}, {}, {"security": ("s", "plain")}, {"streams": ("as", ["migrate", "disks"])}, {"streams": ("as", [])},
            {"bandwidth-limit": ("t", 1000)}, {"expire-usec": ("t", 300 * SEC)}, {"unknown": ("s", "x")},
            {"security": ("s", "none")}, {"endpoint": ("s", "tcp:127.0.0.1:1")}, {"security": ("t", 1)}]
        return {"expire-usec": ("t", 300 * SEC), **self.rng.choice(every), **self.rng.choice(every)}

    def prepare(self, broker: ManagedBroker) -> None:
        vm = self.vm()
        migration = broker.prepare(vm, self.options())
        self.made[broker.name, migration.path] = (vm, "incoming")
        self.tickets.append(migration.ticket or "")

    def start(self, broker: ManagedBroker) -> None:
        vm = self.vm()
        migration = broker.outgoing(self.rng.choice(self.tickets), vm, self.options())
        self.made[broker.name, migration.path] = (vm, "outgoing")

    def cancel(self, broker: ManagedBroker) -> None:
        self.any_of(broker).cancel()

    def forget(self, broker: ManagedBroker) -> None:
        migration = self.any_of(broker)
        migration.call("Forget")
        del self.made[broker.name, migration.path]

    def limit(self, broker: ManagedBroker) -> None:
        self.any_of(broker).set_limit(self.rng.choice([0, 1, 1 << 40, (1 << 64) - 1]))

    def look(self, broker: ManagedBroker) -> None:
        found = self.any_of(broker).get_all()
        assert (found["Result"] == "") == (found["State"] != "finished"), found
        assert found["Result"] != "done", "nothing was carried"

    def open_stream(self, broker: ManagedBroker) -> None:
        """Its end is closed at once, or later, or connected to nothing by path."""
        migration = self.any_of(broker)
        if self.rng.random() < 0.5:
            (descriptor,) = migration.call("OpenStream", "s", self.rng.choice(["migrate", "disks", "no such", ""]))
            sock = socket.socket(fileno=descriptor.to_raw_fd())
        else:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(migration.socket())
            except OSError:
                pass  # at a destination QEMU listens there
            except KeyError:
                pass
        self.sockets.append(sock)
        if self.rng.random() < 0.5:
            self.sockets.pop(self.rng.randrange(len(self.sockets))).close()

    def add_socket(self, broker: ManagedBroker) -> None:
        migration = self.any_of(broker)
        ours, theirs = socket.socketpair(socket.AF_UNIX, self.rng.choice([socket.SOCK_STREAM, socket.SOCK_DGRAM]))
        self.sockets.append(ours)
        with theirs:
            if self.rng.random() < 0.5:
                migration.call("AddStream", "sh", "migrate", theirs)
            else:
                migration.call("AddPeerConnection", "h", theirs)

    def kill_helper(self, broker: ManagedBroker) -> None:
        """Any of them, the gate as well."""
        helpers = broker.helpers()
        if helpers:
            os.kill(self.rng.choice(helpers), signal.SIGKILL)
        time.sleep(self.rng.choice([0, 0.01]))

    def odd_helper(self, broker: ManagedBroker) -> None:
        """The next helper of either broker is one; and those that wait for a word to lie get it."""
        self.chooser.liar(self.rng.choice(ODD))
        self.chooser.act()

    def kill_broker(self, broker: ManagedBroker) -> None:
        (broker.restart if self.rng.random() < 0.3 else broker.crash)()
        self.pair.note_baseline(broker)


@pytest.mark.parametrize("seed", SEEDS)
def test_sequence(workdir: Path, seed: int) -> None:
    chooser = Chooser(workdir)
    pair = Hosts(workdir, broker=ManagedBroker, helper=chooser.script if LONG else None)
    sequence = Sequence(pair, chooser, seed)
    try:
        before = [broker.get("MaxMigrations") for broker in brokers(pair)]
        sequence.run()
        assert sequence.refusals > 0
        sequence.end()
        for broker in brokers(pair):
            for key in [key for key in sequence.made if key[0] == broker.name]:
                Migration(broker, key[1]).call("Forget")
            broker.crash()
            for pid in broker.stand_ins():  # they do not see that their broker died before it could store them
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert broker.client.call(PATH, BROKER, "ListMigrations")[0] == []
            pair.note_baseline(broker)
        assert before == [broker.get("MaxMigrations") for broker in brokers(pair)]
    except BaseException:
        close(pair, True)
        raise
    finally:
        chooser.close()
    close(pair, False)
