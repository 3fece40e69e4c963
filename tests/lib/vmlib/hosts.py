# SPDX-License-Identifier: LGPL-2.1-or-later
"""A source host and a destination host: two brokers, and what there is to say about them as a pair."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from .broker import Broker, Migration, settled, wait_until
from .fake_qemu import FakeQemu
from .quiet import all_heard

Options = dict[str, tuple[str, Any]]


class Hosts:
    """Two brokers on two private buses. close() asserts that nothing of any migration is left, and ends them.

    With `traced` it does not: a helper under strace ends twice, for its tracer and then for its broker, whose sd-event
    (252) may miss the second.
    """

    def __init__(self, workdir: Path, listen: str = "tcp:127.0.0.1:0", traced: bool = False,
                 broker: type[Broker] = Broker, **arguments: Any) -> None:
        self.workdir = workdir
        self.traced = traced
        self.source = broker(workdir, "s", listen="tcp:127.0.0.1:0", **arguments)
        try:
            self.destination = broker(workdir, "d", listen=listen, **arguments)
        except BaseException:
            self.source.close()
            raise
        self._baseline: dict[Broker, list[str]] = {}
        for one in self.brokers:
            self.note_baseline(one)

    @property
    def brokers(self) -> tuple[Broker, Broker]:
        return self.source, self.destination

    def prepare(self, vm: str = "web1", security: str = "tls", **options: tuple[str, Any]) -> Migration:
        """PrepareIncoming at the destination; options by their names, with `_` for `-`."""
        return self.destination.prepare(vm, {"security": ("s", security), **named(options)})

    def start(self, incoming: Migration, vm: str = "web1", **options: tuple[str, Any]) -> Migration:
        """StartOutgoing at the source, with the ticket of `incoming`."""
        assert incoming.ticket
        return self.source.outgoing(incoming.ticket, vm, named(options))

    def connect(self, vm: str = "web1", security: str = "tls") -> "Tunnel":
        """A migration that is connected and carries nothing yet."""
        incoming = self.prepare(vm, security)
        outgoing = self.start(incoming, vm)
        for migration in (outgoing, incoming):
            migration.wait_state("connected")
        return Tunnel(outgoing, incoming)

    def assert_nothing_left(self, timeout: float = 10) -> None:
        """Once all migrations are finished: no helper, no file, no FD of them is left. Forgets them."""
        for broker in self.brokers:
            if broker.process.poll() is not None:
                continue
            for _, _, _, _, _, path in broker.list():
                Migration(broker, path).wait_finished(timeout)
                Migration(broker, path).call("Forget")
            wait_until(lambda: not broker.helpers(), f"no helpers: {broker.helpers()}", timeout)
            wait_until(lambda: not more(fds(broker), self._baseline[broker]),
                       f"the FDs of {broker.name} before: {self._baseline[broker]}, now: {fds(broker)}", timeout)
            wait_until(lambda: not files(broker), f"nothing left in {broker.runtime_dir}: {files(broker)}", timeout)

    def note_baseline(self, broker: Broker) -> None:
        """After a broker was started (again). What it closes it closes a moment later, in threads: on a busy machine
        there may be more here than in the end."""
        self._baseline[broker] = settled(lambda: fds(broker), 0.05)

    def close(self) -> None:
        try:
            if not self.traced:
                self.assert_nothing_left()
        finally:
            try:
                self.source.close()
            finally:
                self.destination.close()

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
            return
        for broker in self.brokers:  # what failed is told; what is left over because of it is not
            print(f"---- vmferryd {broker.name}\n{broker.log()}")
            broker.kill()
            broker.bus.close()


class Tunnel:
    """The two ends of one migration."""

    def __init__(self, outgoing: Migration, incoming: Migration) -> None:
        self.outgoing = outgoing
        self.incoming = incoming

    @property
    def ends(self) -> tuple[Migration, Migration]:
        return self.outgoing, self.incoming

    def open_channel(self) -> tuple[FakeQemu, FakeQemu]:
        """A connection of stand-ins through it: the source's and the destination's end. The caller closes both. Both
        brokers know of it."""
        with FakeQemu.listen(self.incoming.socket()) as listener:
            source = FakeQemu.connect(self.outgoing.socket())
            try:
                source.send(b"\0")  # at the latest now the destination is dialled
                destination = listener.accept()
                destination.recv_exact(1)
                for end in self.ends:  # which hear of it a moment after the bytes have come
                    end.wait_state("active")
            except BaseException:
                source.close()
                raise
        return source, destination

    def assert_done(self, timeout: float = 20) -> tuple[int, int]:
        """Both say done, and the ledgers agree. Returns the bytes to the destination and back."""
        there, here = (migration.wait_finished(timeout) for migration in self.ends)
        for properties in (there, here):
            assert (properties["Result"], properties["ErrorName"], properties["ErrorMessage"]) == ("done", "", ""), \
                properties
        assert there["BytesSent"] == here["BytesReceived"]
        assert there["BytesReceived"] == here["BytesSent"]
        return there["BytesSent"], there["BytesReceived"]

    def assert_failed(self, result: str, *errors: str, timeout: float = 20) -> None:
        """Both say this result; the error of each is among `errors`."""
        for migration in self.ends:
            assert_failed(migration, result, *errors, timeout=timeout)


def assert_failed(migration: Migration, result: str, *errors: str, timeout: float = 20) -> dict[str, Any]:
    """It ends with this result and one of these errors, and its message names the VM and the id."""
    properties = migration.wait_finished(timeout)
    name = properties["ErrorName"].removeprefix("org.vmferry.Error.")
    assert (properties["Result"], name in errors) == (result, True), properties
    assert migration.id in properties["ErrorMessage"] and properties["Vm"] in properties["ErrorMessage"], properties
    return properties


def relay_of(broker: Broker, make: Any) -> tuple[int, Any]:
    """Calls make(), which makes one migration on `broker`; returns its helper's pid and what make() returned."""
    before = set(broker.helpers())
    made = make()
    new = wait_until(lambda: [pid for pid in broker.helpers() if pid not in before], "a new helper")
    return new[-1], made  # where the port opens, the gate is forked first


def starttime(pid: int) -> tuple[int, int]:
    """When a process began, in clock ticks since boot; its pid decides between equals."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]), pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def fds(broker: Broker) -> list[str]:
    """What kinds of descriptors a broker has open, without the numbers that tell one socket from another."""
    # libsystemd reads the boot's id, and closes it, when it likes.
    return sorted(re.sub(r"\[\d+\]", "", what) for what in broker.fds() if not what.endswith("/boot_id"))


def more(now: list[str], before: list[str]) -> list[str]:
    """What is there now, and was not before, or not as often."""
    return sorted((Counter(now) - Counter(before)).elements())


def files(broker: Broker) -> list[str]:
    """What is below a broker's runtime directory, without its lock and the two roles' directories."""
    return sorted(str(path) for path in broker.runtime_dir.rglob("*")
                  if path.name != "lock" and path.parent != broker.runtime_dir)


def named(options: dict[str, tuple[str, Any]]) -> Options:
    return {key.replace("_", "-"): value for key, value in options.items()}


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_learns(qemu: FakeQemu) -> None:
    """Its connection ends soon, whatever may still have come over it before."""
    try:
        while qemu.sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass


def assert_peer_lost(migration: Migration, timeout: float = 20) -> None:
    """The other side of it has failed. A source asks there and is told so; a destination waits to be cancelled.

    But where it has had no channel there is nothing that it could wait for (with a resume time-out of 0).
    """
    if migration.get("Role") == "outgoing" or not migration.get("Channels"):
        assert_failed(migration, "failed", "Interrupted", timeout=timeout)
        return
    migration.wait_state("interrupted", timeout)
    all_heard(migration.broker)  # it does not become done, or failed, by itself
    properties = migration.get_all()
    assert (properties["State"], properties["Result"]) == ("interrupted", ""), properties
    assert properties["ErrorName"] == "org.vmferry.Error.Interrupted", properties
    assert migration.id in properties["ErrorMessage"] and properties["Vm"] in properties["ErrorMessage"], properties


def cancel_and_wait(migration: Migration) -> None:
    """Ends it if it has not ended."""
    migration.cancel()
    migration.wait_finished()
