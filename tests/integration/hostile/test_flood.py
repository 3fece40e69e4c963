# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who comes to the peer port too often: floods, crowds of silent ones, and racers with the right ticket."""

import os
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmlib.peer import PlainPeer
from vmlib.scene import Scene
from vmlib.wire import Ticket, connect, preamble

LONG = bool(os.environ.get("VMFERRY_LONG"))


@pytest.mark.load_sensitive(reason="a peer gets through within 2 s")
def test_flood(workdir: Path) -> None:
    """5,000 connections, some with garbage, some with a preamble; and the right one gets through."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        says = (b"", preamble(ticket.id), preamble(99), b"x" * 32, preamble(ticket.id)[:20])
        kept: list[socket.socket] = []
        for i in range(5000):
            sock = connect(ticket.endpoints[0])
            sock.sendall(says[i % len(says)])
            kept.append(sock)
            if len(kept) > 400:
                kept.pop(0).close()
        begin = time.monotonic()
        scene.migrate(victim)
        assert time.monotonic() - begin < 2
        for sock in kept:
            sock.close()


@pytest.mark.parametrize("what", ["silent", "preamble"])
@pytest.mark.load_sensitive(reason="a peer gets through within 2 s")
def test_beside_a_thousand_silent_ones(workdir: Path, what: str) -> None:
    """An authorized peer gets through within 2 s, whether they stop before their preamble or after it."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        silent = []
        for _ in range(1000):
            sock = connect(ticket.endpoints[0])
            if what == "preamble":
                sock.sendall(preamble(ticket.id))
            silent.append(sock)
        begin = time.monotonic()
        scene.migrate(victim)
        assert time.monotonic() - begin < 2
        for sock in silent:
            sock.close()


def test_racers(workdir: Path) -> None:
    """Many hold the right ticket: exactly one wins; whoever is answered reads TicketUsed."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        winners: list[PlainPeer] = []

        def race(_: int) -> str:
            try:
                peer = PlainPeer.source(ticket, greet=False)
                try:
                    peer.greet()
                except AssertionError as error:
                    peer.close()
                    return "TicketUsed" if "TicketUsed" in str(error) else repr(error)
                except (EOFError, ConnectionError):
                    peer.close()
                    return "closed"
                winners.append(peer)
                return "won"
            except (EOFError, ConnectionError):
                return "closed"  # pushed out by newer ones, or the control connection was there first

        with ThreadPoolExecutor(200) as pool:
            outcomes = Counter(pool.map(race, range(1000 if LONG else 200)))
        assert outcomes["won"] == 1, outcomes
        assert set(outcomes) <= {"won", "TicketUsed", "closed"}, outcomes
        assert outcomes["TicketUsed"] >= outcomes["closed"], outcomes
        with scene.listen(victim) as listener, winners[0] as peer:
            scene.send_all(victim, listener, peer)
