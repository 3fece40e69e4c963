# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one side has given up counts at the other side too, and no side waits for what will not come.

The model of the protocol (docs/model) found these. Each names the broken rule of the model's list that it belongs to.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from vmlib.broker import wait_until
from vmlib.fake_qemu import FakeListener, FakeQemu
from vmlib.peer import PlainListener, PlainPeer
from vmlib.scene import Scene, Victim
from vmlib.wire import ALL, CLOSE, ERRORS, FIN, OPEN, PING, PONG, REFUSED, Frame, Ticket, rejection, wait_eof

SOON: dict[str, Any] = {"resume-timeout-usec": ("t", 2_000_000)}


def send_all(scene: Scene, peer: PlainPeer, listener: FakeListener, number: int) -> None:
    """As the source: a channel that ends well."""
    channel = scene.own(peer.open(number))
    channel.sendall(b"memory")
    peer.fin(number, 6)
    with listener.accept() as qemu:
        assert qemu.recv_until_eof() == b"memory"
    peer.expect(CLOSE, number)
    peer.close_channel(number)
    channel.close()


def told_until_now(peer: PlainPeer) -> list[Frame]:
    """All that the other side has said up to the answer to a PING."""
    peer.send(PING, struct.pack("<Q", 1))
    told = []
    while (got := peer.recv()).type != PONG:
        told.append(got)
        if got.type == PING:
            peer.send(PONG, got.payload)
    return told


def test_what_the_source_gave_up(workdir: Path) -> None:
    """LOSS_UNTOLD: its bytes were on their way, and the destination had seen none: it is not done without them."""
    with Scene(workdir) as scene:
        victim = scene.incoming(**SOON)
        listener = scene.listen(victim)
        peer = scene.own(PlainPeer.source(Ticket.decode(victim.ticket)))
        send_all(scene, peer, listener, 0)
        channel = scene.own(peer.open(1))
        with listener.accept() as qemu:  # it has been silent for long enough
            peer.close()
            channel.close()
            victim.interrupted()
            peer = scene.own(peer.resume())
            peer.close_channel(0)
            peer.abort("Interrupted", "The source has given this channel up.", REFUSED, 1)
            told_until_now(peer)
            wait_eof(qemu.sock)
        peer.close()
        victim.interrupted()
        wait_until(lambda: "did not come back in time" in scene.broker.log(), "the resume time-out has ended")
        victim.interrupted()
        peer = scene.own(peer.resume())
        send_all(scene, peer, listener, 2)
        peer.close_channel()
        assert victim.migration.wait(20) == "done"


def test_refused_for_the_limit_and_lost(workdir: Path) -> None:
    """LIMIT_AS_LOSS: asked again, the destination says the same: nothing was given up."""
    with Scene(workdir, bystander=False, args=("--max-channels=1",)) as scene:
        victim = scene.incoming()
        listener = scene.listen(victim)
        peer = scene.own(PlainPeer.source(Ticket.decode(victim.ticket)))
        channel = scene.own(peer.open(0))
        channel.sendall(b"memory")
        with listener.accept() as qemu:
            for again in (False, True):
                peer.send(OPEN, struct.pack("<I", 0), 1)
                assert ERRORS[peer.expect(REFUSED, 1).number] == "LimitExceeded"
                if not again:
                    peer.close()
                    channel.close()
                    victim.interrupted()
                    peer = scene.own(peer.resume())
                    channel = scene.own(peer.open(0, theirs=6))
            peer.fin(0, 6)
            assert qemu.recv_until_eof() == b"memory"
        peer.expect(CLOSE, 0)
        peer.close_channel(0)
        peer.close_channel()
        assert victim.migration.wait(20) == "done"


class Source:
    """A source with two channels, each with 5 bytes sent and acknowledged, and ended; CLOSE is on its way to it."""

    def __init__(self, scene: Scene, listener: PlainListener) -> None:
        self.victim: Victim = scene.outgoing(listener.ticket.encode())
        self.peer: PlainPeer = scene.own(listener.accept())
        self.qemus = []
        for number in range(2):
            qemu: FakeQemu = scene.qemu(self.victim)
            self.qemus.append(qemu)
            assert self.peer.expect(OPEN).channel == number
            channel = scene.own(listener.accept_channel(self.peer)[1])
            qemu.send(b"there")
            qemu.shut_wr()
            assert self.peer.expect(FIN, number).number == 5
            self.peer.ack(number, 5)
            self.peer.fin(number, 0)
            self.peer.expect(CLOSE, number)
            assert channel.recv(5) == b"there"

    def done(self) -> None:
        self.peer.expect(CLOSE, ALL)
        self.peer.close_channel()
        assert self.victim.migration.wait(20) == "done"


@pytest.mark.parametrize("first", [0, 1])
def test_what_the_destination_gave_up(workdir: Path, first: int) -> None:
    """OLD_REPLACES: a channel that has ended well before does not stand in for one that was given up."""
    with Scene(workdir) as scene, PlainListener() as listener:
        source = Source(scene, listener)
        source.peer.close()
        source.peer = scene.own(listener.accept(before=source.peer))
        for number in range(2):
            source.peer.expect(OPEN, number)
        for number in (first, 1 - first):
            if number == 0:
                source.peer.abort("Interrupted", "The destination has given this channel up.", REFUSED, 0)
            else:
                source.peer.close_channel(1)
        assert not [got for got in told_until_now(source.peer) if got.channel == ALL]
        source.victim.interrupted()
        source.victim.migration.cancel()
        source.victim.expect("Cancelled", result="cancelled")
        source.peer.close()


def test_refusal_of_the_last_channel(workdir: Path) -> None:
    """REFUSED_HANGS: where all others have ended well, nothing is left to wait for."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim = scene.outgoing(listener.ticket.encode())
        peer = scene.own(listener.accept())
        qemu, late = scene.qemu(victim), scene.qemu(victim)
        for number in range(2):
            assert peer.expect(OPEN).channel == number
        scene.own(listener.accept_channel(peer)[1])
        qemu.send(b"there")
        qemu.shut_wr()
        assert peer.expect(FIN, 0).number == 5
        peer.ack(0, 5)
        peer.fin(0, 0)
        peer.expect(CLOSE, 0)
        peer.close_channel(0)
        peer.abort("LimitExceeded", "The destination allows 1 channels at once.", REFUSED, 1)
        wait_eof(late.sock)
        peer.expect(CLOSE, ALL)
        peer.close_channel()
        assert victim.migration.wait(20) == "done"
        peer.close()


def test_qemu_that_connects_when_all_is_said(workdir: Path) -> None:
    """DONE_TAKES: the destination may be done already, also where the source has lost its answer."""
    with Scene(workdir) as scene, PlainListener() as listener:
        source = Source(scene, listener)
        for number in range(2):
            source.peer.close_channel(number)
        source.peer.expect(CLOSE, ALL)
        source.peer.close()
        source.peer = scene.own(listener.accept(greet=False, before=source.peer))
        wait_eof(scene.qemu(source.victim).sock)
        source.peer.close()
        with listener.accept_raw() as sock:
            sock.sendall(rejection("TicketUsed"))
            assert source.victim.migration.wait(20) == "done"
