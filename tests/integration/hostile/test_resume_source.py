# SPDX-License-Identifier: LGPL-2.1-or-later
"""A source whose peer is lost, and what may answer in its place when it dials again."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from vmlib.broker import wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts
from vmlib.peer import PlainListener, PlainPeer
from vmlib.proxy import Proxy
from vmlib.scene import Scene, Victim
from vmlib.wire import (OPEN, RESUME, Ticket, Unproved, connect, derive, preamble, preamble_of, prove_accepting,
                        recv_exact, rejection, wait_eof)

PART = 128 << 10
LIMIT = 3  # times that the peer may be dialled in a second, after the first two at once


def lost_source(scene: Scene, listener: PlainListener) -> tuple[Victim, PlainPeer, FakeQemu]:
    """A source with 5 bytes sent, whose destination is lost and is dialled again."""
    victim = scene.outgoing(listener.ticket.encode())
    peer = listener.accept()
    qemu = scene.qemu(victim)
    qemu.send(b"there")
    assert peer.expect(OPEN).channel == 0
    channel = scene.own(listener.accept_channel(peer)[1])
    assert recv_exact(channel, 5) == b"there"
    channel.close()
    peer.close()
    return victim, peer, qemu


def goes_on(scene: Scene, listener: PlainListener, victim: Victim, peer: PlainPeer, qemu: FakeQemu) -> None:
    """The source's next try succeeds, and its stream goes on where it was."""
    peer = scene.own(listener.accept(before=peer))
    assert peer.expect(OPEN).channel == 0
    channel = scene.own(listener.accept_channel(peer, offset=5)[1])
    qemu.send(b"again")
    assert recv_exact(channel, 5) == b"again"
    victim.migration.cancel()
    victim.expect("Cancelled", result="cancelled")
    peer.close()


def test_source_whose_resume_is_lost_itself(workdir: Path) -> None:
    """It has proved itself, but its destination never heard the end of that."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim, peer, qemu = lost_source(scene, listener)
        with listener.accept_raw() as sock:
            assert recv_exact(sock, 32) == preamble(listener.ticket.id, RESUME)
            prove_accepting(sock, peer.resume_key, listener.ticket.id, RESUME)
        goes_on(scene, listener, victim, peer, qemu)


@pytest.mark.parametrize("what", ["forged key", "ticket's key", "rejection"])
def test_destination_that_is_another(workdir: Path, what: str) -> None:
    """The one that the source knew is gone for good, or somebody sits in its place: failed, never done."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim, peer, qemu = lost_source(scene, listener)
        key = peer.resume_key
        for _ in range(3):
            turn_away(listener, peer, what)
        peer.resume_key = key
        victim.expect("Interrupted", "given this migration up")
        wait_eof(qemu.sock)


def turn_away(listener: PlainListener, peer: PlainPeer, what: str) -> None:
    """The next try of the source to resume."""
    if what == "rejection":
        with listener.accept_raw() as sock:
            assert recv_exact(sock, 32) == preamble(listener.ticket.id, RESUME)
            recv_exact(sock, 64)
            sock.sendall(rejection("TicketUsed"))
            wait_eof(sock)
        return
    peer.resume_key = bytes(32) if what == "forged key" else \
        derive(listener.ticket.secret, listener.ticket.id, "vmferry control plain v1")
    with pytest.raises((Unproved, EOFError, ConnectionError)):
        listener.accept(before=peer)


@pytest.mark.parametrize("what", ["forged key", "rejection"])
def test_a_word_in_clear_ends_nothing(workdir: Path, what: str) -> None:
    """Anybody on the way can say that the migration is given up: the source asks again."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim, peer, qemu = lost_source(scene, listener)
        key = peer.resume_key
        for _ in range(2):
            turn_away(listener, peer, what)
        peer.resume_key = key
        goes_on(scene, listener, victim, peer, qemu)


def test_destination_that_accepts_and_hangs_up(workdir: Path) -> None:
    """It holds the key, and ends each connection after the proof: the source does not dial without a pause."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim, peer, qemu = lost_source(scene, listener)
        tries, end = 0, time.monotonic() + 4
        listener.sock.settimeout(4)
        while time.monotonic() < end:
            try:
                peer = listener.accept(greet=False, before=peer)
            except TimeoutError:
                break
            peer.close()
            tries += 1
        assert tries < 4 * LIMIT, f"dialled {tries} times in 4 s"
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        wait_eof(qemu.sock)


# Two real ones, and somebody between them who remembers every byte.


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_replay_of_a_real_one(hosts: Hosts, security: str) -> None:
    incoming = hosts.prepare(security=security)
    endpoint = Ticket.decode(incoming.ticket or "").endpoints[0]
    with Proxy(endpoint) as proxy:
        outgoing = hosts.start(incoming, endpoint=("s", proxy.endpoint))
        with FakeQemu.listen(incoming.socket()) as listener:
            source = FakeQemu.connect(outgoing.socket())
            sent = source.send_pattern(1, PART)
            destination = listener.accept()
        there = back = 0

        def goes_on() -> None:
            nonlocal there, back, sent
            destination.recv_pattern(1, PART, there)
            sent.result(20)
            there += PART
            sent = destination.send_pattern(2, PART, back)
            source.recv_pattern(2, PART, back)
            sent.result(20)
            back += PART

        goes_on()
        for i in range(2):
            proxy.cut()
            wait_until(lambda: min(end.get("Reconnects") for end in (outgoing, incoming)) > i, "they resume")
            sent = source.send_pattern(1, PART, there)
            goes_on()
        heard = [bytes(said) for said in proxy.said]
        number = Ticket.decode(incoming.ticket or "").id
        assert [preamble_of(said) for said in heard].count((number, RESUME)) >= 2
        reconnects = [end.get("Reconnects") for end in (outgoing, incoming)]
        for said in heard:
            with connect(endpoint) as sock, suppress(ConnectionError):  # it may be closed on us before the last byte
                sock.sendall(said)
                wait_eof(sock)
        for end in (outgoing, incoming):
            end.wait_state("active")
        assert [end.get("Reconnects") for end in (outgoing, incoming)] == reconnects
        sent = source.send_pattern(1, PART, there)
        goes_on()
        source.shut_wr()
        assert destination.recv_until_eof() == b""
        destination.shut_wr()
        assert source.recv_until_eof() == b""
        for migration, other in ((outgoing, incoming), (incoming, outgoing)):
            assert migration.wait(20) == "done"
            assert migration.get("BytesSent") == other.get("BytesReceived") == 4 * PART
        source.close()
        destination.close()
