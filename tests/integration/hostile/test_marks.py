# SPDX-License-Identifier: LGPL-2.1-or-later
"""Marks in preambles, against the protocol page: who may come without one, and what a second one opens."""

from pathlib import Path

import pytest

from vmlib.peer import PlainPeer
from vmlib.scene import Scene
from vmlib.wire import CHANNEL, HELLO, MARKS, RESUME, Ticket, Unproved, connect, hello_payload, preamble, wait_eof


def refused(peer: PlainPeer, said: bytes) -> None:
    with connect(peer.ticket.endpoints[0]) as sock:
        sock.sendall(said)
        assert wait_eof(sock, 8) == b""  # before its deadline of 10 s


def test_source_that_makes_marks(workdir: Path) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with scene.listen(victim) as listener, PlainPeer.source(ticket, greet=False, mark=1) as peer:
            peer.send(HELLO, hello_payload(features=MARKS))
            assert peer.expect(HELLO).payload[4] & MARKS
            used = preamble(ticket.id, CHANNEL, number=7, key=peer.channel_key)
            for kind in (CHANNEL, RESUME):
                refused(peer, preamble(ticket.id, kind))
                refused(peer, preamble(ticket.id, kind, number=8, key=bytes(32)))
            refused(peer, preamble(ticket.id, RESUME, number=9, key=peer.channel_key))
            peer.send(2, bytes(4), 0)
            with peer.connect_channel(0, mark=7) as channel:
                refused(peer, used)
                channel.sendall(b"all of it")
                with listener.accept() as qemu:
                    assert qemu.recv_exact(9) == b"all of it"
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")


def test_source_that_makes_none(workdir: Path) -> None:
    """It is older: all that it says is taken as it was."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        with scene.listen(victim), PlainPeer.source(Ticket.decode(victim.ticket)) as peer:
            peer.open(0).close()
            peer.eof()
            with pytest.raises(Unproved):  # a handshake was spent on it
                peer.resume(key=bytes(32))
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
