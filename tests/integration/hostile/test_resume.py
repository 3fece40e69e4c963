# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who resumes what is not his: recorded bytes, forged keys, offsets that cannot be. What runs is not harmed by it."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vmlib.broker import wait_until
from vmlib.fake_qemu import FakeQemu, pattern
from vmlib.peer import PlainPeer
from vmlib.quiet import all_heard
from vmlib.scene import Scene
from vmlib.wire import (ALL, CHANNEL, CLOSE, FIN, HELLO, OPEN, RESUME, Rejected, Ticket, Unproved, connect, derive,
                        hello_payload, preamble, prove_connecting, recv_exact, rejection, wait_eof)

PART = 128 << 10


class Cast:
    """A destination with its QEMU, a source of ours, and one channel, on which parts of two patterns go."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.victim = scene.incoming()
        self.ticket = Ticket.decode(self.victim.ticket)
        self.there = self.back = 0
        with scene.listen(self.victim) as listener:
            self.peer: PlainPeer = scene.own(PlainPeer.source(self.ticket))
            self.channel = self.peer.open(0)
            self.send()
            self.qemu: FakeQemu = scene.own(listener.accept())
            self.receive()

    def send(self) -> None:
        self.channel.sendall(pattern(1, PART, self.there))

    def receive(self) -> None:
        self.qemu.recv_pattern(1, PART, self.there)
        self.there += PART
        sent = self.qemu.send_pattern(2, PART, self.back)
        assert recv_exact(self.channel, PART) == pattern(2, PART, self.back)
        sent.result(20)
        self.back += PART

    def goes_on(self) -> None:
        """Every byte is right, and no other connection came in between."""
        reconnects = self.victim.migration.get("Reconnects")
        self.send()
        self.receive()
        self.victim.migration.wait_state("active")  # which it hears of a moment after the bytes have come
        assert self.victim.migration.get("Reconnects") == reconnects

    def lose(self) -> None:
        """Our connections end, all that was sent being there."""
        self.peer.close()
        self.channel.close()
        self.victim.interrupted("lost")

    def resume(self) -> None:
        """As we may: where we were."""
        self.peer = self.scene.own(self.peer.resume())
        self.channel = self.scene.own(self.peer.open(0, offset=self.back, theirs=self.there))
        self.victim.migration.wait_state("active")

    def end(self) -> None:
        self.peer.fin(0, self.there)
        assert self.qemu.recv_until_eof() == b""
        self.qemu.shut_wr()
        assert self.peer.expect(FIN, 0).number == self.back
        self.peer.ack(0, self.back)
        self.peer.expect(CLOSE, 0)
        self.peer.close_channel(0)
        self.peer.close_channel()
        assert self.victim.migration.wait(20) == "done"
        assert self.victim.migration.get("BytesReceived") == self.there
        assert self.victim.migration.get("BytesSent") == self.back
        self.peer.close()
        self.channel.close()


class Recorder:
    """What is sent over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.recv = sock.recv
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data
        self.sock.sendall(data)


def test_resume(workdir: Path) -> None:
    """What the others do would work with the right key and the right offsets: this file's own check."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        for i in range(3):
            cast.lose()
            cast.resume()
            assert cast.victim.migration.get("Reconnects") == i + 1
            cast.goes_on()
        cast.end()


def test_resume_of_what_is_not_lost(workdir: Path) -> None:
    """Who holds the key knows better than the other side what is lost: the newer connection counts."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        old, channel = cast.peer, cast.channel
        cast.resume()
        assert cast.victim.migration.get("Reconnects") == 1
        old.eof()
        assert wait_eof(channel) == b""
        old.close()
        channel.close()
        cast.goes_on()
        cast.end()


@pytest.mark.parametrize("greet", [False, True], ids=["no HELLO", "HELLO lost"])
def test_resume_that_is_lost_itself(workdir: Path, greet: bool) -> None:
    """The network goes again before we know that the other side has taken us: the same key has to serve once more."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.lose()
        with cast.peer.resume(greet=False) as lost:
            if greet:
                lost.send(HELLO, hello_payload())
                all_heard(scene.broker)
        all_heard(scene.broker)  # what comes while the other side cleans up may go with it, and would be tried again
        cast.resume()
        cast.goes_on()
        cast.end()


@pytest.mark.parametrize("lost", [False, True], ids=["active", "interrupted"])
@pytest.mark.parametrize("key", ["forged", "ticket", "channel", "later"])
def test_resume_with_another_key(workdir: Path, key: str, lost: bool) -> None:
    """Neither the ticket's key, nor a channel's, nor one of the connection that resumed the first."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        if key == "later":
            cast.lose()
            cast.resume()
        keys = {"forged": bytes(32), "channel": cast.peer.channel_key,
                "later": derive(cast.peer.exported, cast.ticket.id, "vmferry resume v1"),
                "ticket": derive(cast.ticket.secret, cast.ticket.id, "vmferry control plain v1")}
        if lost:
            cast.lose()
        for _ in range(3):
            with pytest.raises(Unproved):
                cast.peer.resume(key=keys[key])
        with connect(cast.ticket.endpoints[0]) as sock:  # who does not care whether the other side is the right one
            sock.sendall(preamble(cast.ticket.id, RESUME) + b"\1" + bytes(63))
            recv_exact(sock, 96)
            sock.sendall(bytes(32))
            assert wait_eof(sock) == b""
        wait_until(lambda: "failed to prove itself" in scene.broker.log(), "it is logged")
        if lost:
            assert cast.victim.migration.get("State") == "interrupted"
            cast.resume()
        cast.goes_on()
        cast.end()


@pytest.mark.parametrize("when", ["active", "interrupted", "resumed", "finished"])
def test_replayed_resume(workdir: Path, when: str) -> None:
    """What resumed it once resumes nothing when it is sent again: the nonces are others then."""
    with Scene(workdir) as scene:
        keeper = scene.incoming("keeper")  # keeps the port open
        cast = Cast(scene)
        cast.lose()
        sock = scene.own(connect(cast.ticket.endpoints[0]))
        recorder = Recorder(sock)
        recorder.sendall(preamble(cast.ticket.id, RESUME))
        exported = prove_connecting(recorder, cast.peer.resume_key, cast.ticket.id, RESUME)  # type: ignore[arg-type]
        assert len(recorder.sent) == 32 + 64 + 32
        key, cast.peer = cast.peer.resume_key, PlainPeer(sock, cast.ticket, exported)
        cast.peer.resume_key = key
        cast.peer.greet()
        cast.channel = scene.own(cast.peer.open(0, offset=cast.back, theirs=cast.there))
        cast.goes_on()
        if when in ("interrupted", "resumed"):
            cast.lose()
        if when == "resumed":
            cast.resume()
        if when == "finished":
            cast.end()
        for _ in range(3):
            with connect(cast.ticket.endpoints[0]) as again:
                again.sendall(recorder.sent)
                answer = wait_eof(again)
                assert answer == rejection("TicketUsed") if when == "finished" else len(answer) == 96
        if when == "interrupted":
            assert cast.victim.migration.get("State") == "interrupted"
            cast.resume()
        if when != "finished":
            cast.goes_on()
            cast.end()
        keeper.migration.cancel()
        keeper.expect("Cancelled", result="cancelled")


def test_resume_of_an_unknown_migration(workdir: Path) -> None:
    with Scene(workdir) as scene:
        cast = Cast(scene)
        with connect(cast.ticket.endpoints[0]) as sock:
            sock.sendall(preamble(4711, RESUME))
            with pytest.raises(Rejected, match="NoSuchMigration"):
                prove_connecting(sock, cast.peer.resume_key, 4711, RESUME)
        cast.goes_on()
        cast.end()


@pytest.mark.parametrize("key", ["forged", "ticket", "zero secret"])
def test_resume_before_any_connection(workdir: Path, key: str) -> None:
    """There is no key yet that it could hold; the ticket still serves whom it was made for."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        keys = {"forged": bytes(32), "ticket": derive(ticket.secret, ticket.id, "vmferry control plain v1"),
                "zero secret": derive(bytes(32), ticket.id, "vmferry resume v1")}
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id, RESUME))
            with pytest.raises((EOFError, ConnectionError)):
                prove_connecting(sock, keys[key], ticket.id, RESUME)
        victim.unharmed()
        scene.migrate(victim)


def test_ticket_while_it_is_interrupted(workdir: Path) -> None:
    """The ticket is used: it does not replace the key that resumes."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.lose()
        with PlainPeer.source(cast.ticket, greet=False) as thief:
            with pytest.raises(AssertionError, match="ABORT: TicketUsed: "):
                thief.expect(0)
        assert cast.victim.migration.get("State") == "interrupted"
        cast.resume()
        cast.goes_on()
        cast.end()


OFFSETS: dict[str, Callable[[Cast], int]] = {
    "before what we acknowledged": lambda cast: PART - 1,
    "nothing": lambda cast: 0,
    "beyond what was sent": lambda cast: cast.back + 1,
    "all there can be": lambda cast: 2**64 - 1,
}


@pytest.mark.parametrize("name", OFFSETS)
def test_offset_that_cannot_be(workdir: Path, name: str) -> None:
    """Refused before anything changes: with the right one it goes on."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.peer.ack(0, PART)
        cast.goes_on()
        cast.lose()
        cast.peer = scene.own(cast.peer.resume())
        cast.peer.send(OPEN, bytes(4), 0)
        for _ in range(2):
            with cast.peer.connect_channel(0, OFFSETS[name](cast), answered=False) as sock:
                assert wait_eof(sock) == b""
        wait_until(lambda: "failed to prove itself" in scene.broker.log(), "it is logged")
        cast.channel = scene.own(cast.peer.connect_channel(0, cast.back, theirs=cast.there))
        cast.goes_on()
        cast.end()


def test_resume_from_what_is_kept(workdir: Path) -> None:
    """What we had not acknowledged comes again, from where we say: that is what resuming is."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.peer.ack(0, PART // 2)
        cast.goes_on()
        cast.lose()
        cast.peer = scene.own(cast.peer.resume())
        cast.channel = scene.own(cast.peer.open(0, offset=PART // 2 + 7, theirs=cast.there))
        assert recv_exact(cast.channel, cast.back - PART // 2 - 7) == pattern(2, cast.back, 0)[PART // 2 + 7 :]
        cast.goes_on()
        cast.end()


@pytest.mark.parametrize("what", ["alive", "alive, resumed", "lost, no OPEN yet", "key of before"])
def test_channel_hello(workdir: Path, what: str) -> None:
    """A second connection for a channel that is alive, and one of a connection that was lost."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        old = cast.peer.channel_key
        if what in ("alive, resumed", "key of before"):
            cast.lose()
            cast.resume()
        if what == "lost, no OPEN yet":
            cast.lose()
            with pytest.raises((EOFError, ConnectionError)):
                cast.peer.connect_channel(0, cast.back, key=old, theirs=cast.there)  # no control connection
            cast.resume()
        elif what == "key of before":
            with pytest.raises(Unproved):
                cast.peer.connect_channel(0, cast.back, key=old)
        else:
            for offset in (cast.back, 0):
                with cast.peer.connect_channel(0, offset, answered=False) as sock:
                    assert wait_eof(sock) == b""
        cast.goes_on()
        cast.end()


def test_open_again_of_a_channel_that_is_alive(workdir: Path) -> None:
    """After a resume OPEN says again what there is, but once."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.lose()
        cast.resume()
        cast.peer.send(OPEN, bytes(4), 0)
        cast.victim.expect("ProtocolMismatch", "opened channel 0 on stream 0")
        wait_eof(cast.qemu.sock)
        cast.peer.close()


@pytest.mark.parametrize("frames", ["FIN at less", "ACK of more", "ACK of less", "CLOSE", "CLOSE of all"])
def test_frame_after_a_resume(workdir: Path, frames: str) -> None:
    """The ledger outlives the connection: what was a lie before is one after it."""
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.peer.ack(0, 5)
        cast.goes_on()
        cast.lose()
        cast.resume()
        if frames == "FIN at less":
            cast.peer.fin(0, cast.there - 1)
        elif frames == "ACK of more":
            cast.peer.ack(0, cast.back + 1)
        elif frames == "ACK of less":
            cast.peer.ack(0, 4)
        else:
            cast.peer.close_channel(0 if frames == "CLOSE" else ALL)
        cast.victim.expect("ProtocolMismatch")
        wait_eof(cast.qemu.sock)
        cast.peer.close()


@pytest.mark.load_sensitive(reason="a peer gets through within 2 s")
def test_flood_of_resumes(workdir: Path) -> None:
    """Hundreds at once, each silent after its preamble: the right one gets through all the same.

    A helper that does not keep up with them loses the newest, which may be the right one: it dials again, as a source
    does.
    """
    with Scene(workdir) as scene:
        cast = Cast(scene)
        cast.lose()
        flood = []
        for i in range(400):
            sock = scene.own(connect(cast.ticket.endpoints[0]))
            sock.sendall(preamble(cast.ticket.id, RESUME if i % 2 else CHANNEL))
            flood.append(sock)
        begin = time.monotonic()
        while True:
            try:
                cast.resume()
                break
            except (ConnectionError, EOFError):
                time.sleep(0.2)
            assert time.monotonic() - begin < 2
        for sock in flood:
            sock.close()
        cast.goes_on()
        cast.end()


# The source, and a destination that is not the one that it knew.
