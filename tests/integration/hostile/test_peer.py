# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who comes to the peer port without the right ticket, or with a used one."""

import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vmlib.broker import Broker, hasty_helper, wait_until
from vmlib.peer import PlainListener, PlainPeer
from vmlib.scene import Scene, Victim
from vmlib.wire import (CONTROL, Rejected, Ticket, Unproved, connect, derive, preamble, prove_accepting,
                        prove_connecting, recv_exact, rejection, wait_eof)


@pytest.mark.story
def test_wrong_secret(workdir: Path) -> None:
    """Neither side believes the other; the destination waits on for the right one."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        wrong = Ticket.decode(victim.ticket).but(secret=bytes(32))
        with pytest.raises(Unproved):
            PlainPeer.source(wrong)
        outgoing = scene.outgoing(wrong.encode(), "other")
        with suppress(FileNotFoundError):  # it may be over already
            assert wait_eof(scene.qemu(outgoing).sock) == b""
        outgoing.expect("PeerRejected", "the same secret", "PrepareIncoming")
        victim.unharmed()
        scene.migrate(victim)


def test_client_mac_is_wrong(workdir: Path) -> None:
    """Who only pretends to believe the destination proves nothing by it."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id) + b"\1" + bytes(63))
            recv_exact(sock, 96)
            sock.sendall(bytes(32))
            assert wait_eof(sock) == b""
        victim.unharmed()
        scene.migrate(victim)


@pytest.mark.parametrize("hello", [b"\2" + bytes(63), b"\1\1" + bytes(62), b"\x16\3\1" + bytes(61)],
                         ids=["other-side", "reserved", "tls"])
def test_proof_that_is_none(workdir: Path, hello: bytes) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id) + hello)
            assert wait_eof(sock) == b""
        victim.unharmed()
        scene.migrate(victim)


def test_wrong_id(workdir: Path) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        wrong = Ticket.decode(victim.ticket).but(id=4711)
        with pytest.raises(Rejected, match="NoSuchMigration"):
            PlainPeer.source(wrong)
        outgoing = scene.outgoing(wrong.encode(), "other")
        with suppress(FileNotFoundError):  # it may be over already
            assert wait_eof(scene.qemu(outgoing).sock) == b""
        outgoing.expect("PeerRejected", "does not expect this migration", "PrepareIncoming")
        victim.unharmed()
        scene.migrate(victim)


@pytest.mark.parametrize("garbage", [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n        ",
    bytes(32),
    b"\xff" * 4096,
    preamble(1)[:8] + b"\1\0\7\0" + bytes(20),  # a kind that does not exist
    preamble(1)[:31] + b"\1",  # a mark without a number
], ids=["http", "zeros", "ones", "kind", "mark"])
def test_garbage_instead_of_a_preamble(workdir: Path, garbage: bytes) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        with connect(Ticket.decode(victim.ticket).endpoints[0]) as sock:
            sock.sendall(garbage)
            assert wait_eof(sock) == b""  # nobody is told anything
        victim.unharmed()
        scene.migrate(victim)


@pytest.mark.load_sensitive(reason="a deadline of 5 s, to 3 s")
def test_half_a_preamble_then_silence(workdir: Path) -> None:
    """The gate's deadline is 5 s, also for who sends a byte now and then."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with connect(ticket.endpoints[0]) as sock, connect(ticket.endpoints[0]) as trickle:
            sock.sendall(preamble(ticket.id)[:16])
            begin = time.monotonic()
            for i in range(8):
                trickle.sendall(preamble(ticket.id)[i : i + 1])
                time.sleep(0.5)
            assert wait_eof(sock) == b"" and wait_eof(trickle) == b""
            assert 4 < time.monotonic() - begin < 8
        victim.unharmed()
        scene.migrate(victim)


@pytest.mark.load_sensitive(reason="a deadline of 10 s, to 4 s")
def test_silence_after_the_preamble(workdir: Path) -> None:
    """The relay's own deadline is 10 s."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id))
            begin = time.monotonic()
            assert wait_eof(sock) == b""
            assert 8 < time.monotonic() - begin < 14
        victim.unharmed()
        scene.migrate(victim)


def test_another_version(workdir: Path) -> None:
    """The gate says so; a source that is told so ends with ProtocolMismatch."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id, version=2) + bytes(100))
            assert wait_eof(sock) == rejection("ProtocolMismatch")
        outgoing = scene.outgoing(listener.ticket.encode(), "other")
        qemu = scene.qemu(outgoing)
        with listener.accept_raw() as sock:
            recv_exact(sock, 32)
            sock.sendall(rejection("ProtocolMismatch", version=9))
            outgoing.expect("ProtocolMismatch", "another version", "Upgrade")
        assert wait_eof(qemu.sock) == b""
        victim.unharmed()
        scene.migrate(victim)


@pytest.mark.parametrize("answer, error, words", [
    (rejection("TicketUsed"), "TicketUsed", "PrepareIncoming"),
    (rejection("TicketExpired"), "TicketExpired", "PrepareIncoming"),
    (rejection("NoSuchMigration"), "PeerRejected", "PrepareIncoming"),
    (rejection("NoSuchMigration")[:12] + b"\xff" * 20, "PeerRejected", "PrepareIncoming"),
    (b"\0", "PeerRejected", "PrepareIncoming"),
    (b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(100), "PeerRejected", "ticket"),
    (b"\2" + bytes(95), "PeerRejected", "secret"),
    (b"", "PeerRejected", "closed"),
], ids=["used", "expired", "unknown", "bad-error", "short", "ssh", "bad-proof", "eof"])
def test_destination_that_answers_wrongly(workdir: Path, answer: bytes, error: str, words: str) -> None:
    with Scene(workdir) as scene, PlainListener() as listener:
        outgoing = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(outgoing)
        for _ in range(8 if words == "closed" else 1):  # it dials again where it is only hung up on
            with listener.accept_raw() as sock, suppress(OSError):  # it may have hung up already
                recv_exact(sock, 32 + 64)  # preamble and proof: nothing is left unread, so the end is no reset
                sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
                wait_eof(sock)
        outgoing.expect(error, words)
        assert wait_eof(qemu.sock) == b""


def test_destination_that_is_silent(workdir: Path) -> None:
    with Scene(workdir, helper=hasty_helper()) as scene, PlainListener() as listener:
        outgoing = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(outgoing)
        with listener.accept_raw():
            outgoing.expect("PeerUnreachable", "did not answer within 2 s", "vmferryd")
        assert wait_eof(qemu.sock) == b""


def test_replayed_bytes(workdir: Path) -> None:
    """What a winner sent wins nothing when it is sent again, while his migration runs or after it."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        second = scene.incoming("second")  # keeps the port open
        ticket = Ticket.decode(victim.ticket)
        key = derive(ticket.secret, ticket.id, "vmferry control plain v1")
        sent = bytearray()
        with scene.listen(victim), connect(ticket.endpoints[0]) as sock:

            class Recorder:
                recv = staticmethod(sock.recv)

                @staticmethod
                def sendall(data: bytes) -> None:
                    sent.extend(data)
                    sock.sendall(data)

            sock.sendall(preamble(ticket.id))
            peer = PlainPeer(sock, ticket, prove_connecting(Recorder, key, ticket.id, CONTROL))  # type: ignore
            assert len(sent) == 96
            peer.greet()
            victim.migration.wait_state("connected")

            for _ in range(3):
                with connect(ticket.endpoints[0]) as again:
                    again.sendall(preamble(ticket.id) + bytes(sent))
                    assert len(wait_eof(again)) <= 96  # the nonce is another, so the proof is wrong: no ABORT even
            assert victim.migration.get("State") == "connected"
        victim.interrupted("lost")
        with connect(ticket.endpoints[0]) as again:
            again.sendall(preamble(ticket.id) + bytes(sent))
            assert len(wait_eof(again)) <= 96
        victim.given_up("lost")
        with connect(ticket.endpoints[0]) as again:
            again.sendall(preamble(ticket.id) + bytes(sent))
            assert wait_eof(again) == rejection("TicketUsed")
        second.migration.cancel()


def test_ticket_used_by_a_second_source(workdir: Path) -> None:
    """By another host's broker, while the first one's migration runs, while its peer is lost, and after its end."""
    with Scene(workdir) as scene, Broker(workdir, "o", listen=None) as other:
        victim = scene.incoming()
        keeper = scene.incoming("keeper")
        with PlainPeer.source(Ticket.decode(victim.ticket)):
            victim.migration.wait_state("connected")
            late = Victim(scene, other.outgoing(victim.ticket, "thief"))
            late.expect("TicketUsed", "used already", "PrepareIncoming")
            assert victim.migration.get("State") == "connected"
            late.migration.call("Forget")
        victim.interrupted("lost")
        late = Victim(scene, other.outgoing(victim.ticket, "thief"))
        late.expect("TicketUsed", "used already", "PrepareIncoming")
        late.migration.call("Forget")
        victim.given_up("lost")
        late = Victim(scene, other.outgoing(victim.ticket, "thief"))
        late.expect("TicketUsed", "used already", "PrepareIncoming")
        keeper.migration.cancel()
        keeper.expect("Cancelled", "Cancelled at the destination", result="cancelled")
        wait_until(lambda: not other.helpers(), "its helpers are gone", 10)


def test_authentic_peer_may_abort(workdir: Path) -> None:
    """Before HELLO too; error and text are its own, cut to what may be printed."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(victim)
        with listener.accept_raw() as sock:
            recv_exact(sock, 32)
            key = derive(listener.ticket.secret, listener.ticket.id, "vmferry control plain v1")
            with PlainPeer(sock, listener.ticket, prove_accepting(sock, key, listener.ticket.id, CONTROL)) as peer:
                peer.abort("LimitExceeded", "Zu viele – später wieder.")
                victim.expect("LimitExceeded", "Zu viele – später wieder.")
        assert wait_eof(qemu.sock) == b""
