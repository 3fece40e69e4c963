# SPDX-License-Identifier: LGPL-2.1-or-later
"""One broker on which bad things happen, and what has to be unharmed by them.

The broker is both ends of one good migration, the bystander, for as long as the scene lasts: it moves bytes
before and after, and must end as done, with every byte right. What else there is in the end must be what
there was in the beginning: helpers, the broker's FDs, sockets and directories.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .broker import ERROR, Broker, Migration, settled, wait_until
from .fake_qemu import FakeListener, FakeQemu
from .hosts import more
from .peer import PlainPeer, persistent
from .quiet import all_heard
from .wire import CLOSE, Ticket, wait_eof

HALF = 256 << 10
PLAIN_OPTION = {"security": ("s", "plain")}
NO_RESUME: dict[str, Any] = {"resume-timeout-usec": ("t", 0)}


class Bystander:
    """A good migration of a broker to itself."""

    def __init__(self, broker: Broker, vm: str = "bystander", security: str = "plain") -> None:
        self.incoming = broker.prepare(vm, {"security": ("s", security), "expire-usec": ("t", 600_000_000)})
        with FakeQemu.listen(self.incoming.socket()) as listener:
            self.outgoing = broker.outgoing(self.incoming.ticket or "", vm)
            self.source = FakeQemu.connect(self.outgoing.socket())
            self._move(0, listener)

    def _move(self, at: int, listener: FakeListener | None = None) -> None:
        there = self.source.send_pattern(1, HALF, at)
        if listener:
            self.destination = listener.accept()
        back = self.destination.send_pattern(2, HALF, at)
        self.destination.recv_pattern(1, HALF, at)
        self.source.recv_pattern(2, HALF, at)
        there.result(20)
        back.result(20)

    def finish(self) -> None:
        """It is unharmed: goes on, ends, and both say so."""
        self._move(HALF)
        self.source.shut_wr()
        assert self.destination.recv_until_eof() == b""
        self.destination.shut_wr()
        assert self.source.recv_until_eof() == b""
        for migration, other in ((self.incoming, self.outgoing), (self.outgoing, self.incoming)):
            assert migration.wait(20) == "done"
            assert migration.get("BytesSent") == other.get("BytesReceived") == 2 * HALF

    def close(self) -> None:
        self.source.close()
        self.destination.close()


class Victim:
    """A migration that is to fail, and its QEMU."""

    def __init__(self, scene: "Scene", migration: Migration) -> None:
        self.scene = scene
        self.migration = migration
        self.ticket = migration.ticket or ""

    def expect(self, error: str, *words: str, result: str = "failed", timeout: float = 20) -> str:
        """It is over with this error; the message names it, its VM and all of `words`. Returns the message."""
        found = self.migration.wait_finished(timeout)
        message = str(found["ErrorMessage"])
        assert (found["Result"], found["ErrorName"]) == (result, ERROR + error), (found, self.scene.broker.log())
        for word in (self.migration.id, found["Vm"], *words):
            assert word in message, f"{word!r} is not in {message!r}"
        return message

    def interrupted(self, *words: str, timeout: float = 20) -> str:
        """Its peer is lost: it says so and all of `words`, and is not over. Returns the message."""
        self.migration.wait_state("interrupted", timeout)
        found = self.migration.get_all()
        message = str(found["ErrorMessage"])
        assert (found["Result"], found["ErrorName"]) == ("", ERROR + "Interrupted"), (found, self.scene.broker.log())
        for word in (self.migration.id, found["Vm"], *words):
            assert word in message, f"{word!r} is not in {message!r}"
        return message

    def given_up(self, *words: str, timeout: float = 20) -> None:
        """interrupted(), for as long as nobody cancels it."""
        self.interrupted(*words, timeout=timeout)
        all_heard(self.scene.broker)  # it does not become done, or failed, by itself
        self.interrupted(*words)
        self.migration.cancel()
        self.expect("Cancelled", result="cancelled")

    def unharmed(self) -> None:
        """It waits still."""
        assert self.migration.get("State") == "waiting", self.migration.get_all()


Lie = Callable[[PlainPeer], None]


def offset(value: int) -> bytes:
    return struct.pack("<Q", value)


def raw(*data: bytes) -> Lie:
    return lambda peer: peer.send_raw(b"".join(data))


class Cast:
    """A victim with its QEMU, and a peer of ours with channel 0 open. Who makes one sets these."""

    victim: Victim
    qemu: FakeQemu
    peer: PlainPeer
    channel: socket.socket

    def lost(self, error: str, *words: str, told: bool = True, timeout: float = 20) -> None:
        """The migration failed; QEMU sees an end, the peer is told why and sees one too."""
        message = self.victim.expect(error, *words, timeout=timeout)
        self.qemu_ends()
        if told:
            with pytest.raises(AssertionError, match=f"ABORT: {error}: ") as info:
                self.peer.expect(0)
            assert str(info.value).split(": ", 2)[2][:40] in message
        self.peer.close()
        if self.channel.fileno() >= 0:
            wait_eof(self.channel)

    def qemu_ends(self) -> None:
        wait_eof(self.qemu.sock)

    def cut_off(self, *words: str, timeout: float = 20) -> None:
        """The peer is lost, and never the migration done: QEMU sees an end, and so do the peer's connections."""
        self.victim.interrupted(*words, timeout=timeout)
        wait_eof(self.qemu.sock)
        for sock in (self.peer.sock, self.channel):
            if sock.fileno() >= 0:
                wait_eof(sock)


class Scene:
    """A `with` checks at its end that all is as before and that the bystander is well."""

    def __init__(self, workdir: Path, bystander: bool = True, **broker: Any) -> None:
        self.workdir = workdir
        self.broker = Broker(workdir, "h", **broker)
        self.bystander: Bystander | None = None
        with ExitStack() as stack:
            stack.callback(self.broker.close)
            if bystander:
                self.bystander = Bystander(self.broker)
                stack.callback(self.bystander.close)
            self.before = settled(self.what_is, 0.05)
            self._stack = stack.pop_all()

    def what_is(self) -> tuple[list[str], list[int], list[str]]:
        """The kinds of the broker's FDs, its helpers, what is in its directory."""
        fds = sorted(fd.split(":")[0] for fd in self.broker.fds())
        root = self.broker.runtime_dir
        files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if len(p.relative_to(root).parts) > 1)
        return fds, sorted(self.broker.helpers()), files

    def is_as(self, before: tuple[list[str], list[int], list[str]]) -> bool:
        """As then, but for an FD that was about to be closed then."""
        fds, helpers, files = self.what_is()
        return (more(fds, before[0]), helpers, files) == ([], *before[1:])

    def assert_clean(self, timeout: float = 30) -> None:
        """All is as it was. A helper that lingers to tell its peer, or a rejected visitor, takes a few seconds."""
        end = time.monotonic() + timeout
        while not self.is_as(self.before) and time.monotonic() < end:
            time.sleep(0.02)
        assert self.is_as(self.before), f"{self.before}\n{self.what_is()}\n{self.broker.log()}"

    def incoming(self, vm: str = "victim", **options: Any) -> Victim:
        """A prepared migration in `plain`, with its ticket."""
        return Victim(self, self.broker.prepare(vm, {**PLAIN_OPTION, **options}))

    def outgoing(self, ticket: str, vm: str = "victim", **options: Any) -> Victim:
        return Victim(self, self.broker.outgoing(ticket, vm, options))

    def own(self, thing: Any) -> Any:
        """Closes it at the end."""
        self._stack.callback(thing.close)
        return thing

    def listen(self, victim: Victim, backlog: int = 8) -> FakeListener:
        """The destination QEMU of it."""
        return self.own(FakeQemu.listen(victim.migration.socket(), backlog))

    def qemu(self, victim: Victim) -> FakeQemu:
        """The source QEMU of it, connected."""
        return self.own(FakeQemu.connect(victim.migration.socket()))

    def deaf(self) -> tuple[socket.socket, str]:
        """A listener whose backlog is full, and its endpoint: who dials it waits, until it is closed."""
        server = self.own(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            filler = self.own(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        return server, f"tcp:127.0.0.1:{server.getsockname()[1]}"

    def migrate(self, victim: Victim) -> None:
        """The right source of a prepared migration comes after all, and everything goes well."""
        with self.listen(victim) as listener, persistent(Ticket.decode(victim.ticket)) as peer:
            self.send_all(victim, listener, peer)

    def send_all(self, victim: Victim, listener: FakeListener, peer: PlainPeer) -> None:
        """All of a migration, by a source that has greeted."""
        channel = self.own(peer.open(0))
        channel.sendall(b"memory")
        peer.fin(0, 6)
        with listener.accept() as qemu:
            assert qemu.recv_until_eof() == b"memory"
        peer.expect(CLOSE, 0)
        peer.close_channel(0)
        peer.close_channel()
        assert victim.migration.wait(20) == "done"

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                # Their sources may come back: the port is open until they are forgotten.
                for _, _, _, state, _, path in self.broker.list():
                    if state == "finished":
                        Migration(self.broker, path).call("Forget")
                self.assert_clean()
                if self.bystander:
                    self.bystander.finish()
                    wait_until(lambda: not self.broker.helpers(), "no helper is left")
        finally:
            self._stack.close()
