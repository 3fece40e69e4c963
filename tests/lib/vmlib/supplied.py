# SPDX-License-Identifier: LGPL-2.1-or-later
"""A manager that brings all descriptors of a migration, so that it needs no path and no port."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .fake_qemu import FakeQemu
from .hosts import Hosts, Tunnel

NO_PATH = ("a{ss}", {"migrate": ""})
NO_PORT = ("as", [])


def start(hosts: Hosts, security: str = "plain") -> Tunnel:
    """A migration that opens nothing by itself."""
    incoming = hosts.prepare(security=security, sockets=NO_PATH, endpoints=NO_PORT)
    return Tunnel(hosts.start(incoming, sockets=NO_PATH), incoming)


def add_peers(tunnel: Tunnel, count: int,
              make_pair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair) -> list[socket.socket]:
    """Peer connections as a manager brings them; returns its own copies of both ends, by which it can cut them."""
    kept = []
    for _ in range(count):
        pair = make_pair()
        kept += pair
        for end, migration in zip(pair, tunnel.ends):
            migration.call("AddPeerConnection", "h", end)
    return kept


def add_streams(tunnel: Tunnel) -> tuple[FakeQemu, FakeQemu, list[socket.socket]]:
    """A connection of both QEMUs by AddStream; and the manager's own copies of what it passed."""
    qemus, kept = [], []
    for migration in tunnel.ends:
        ours, theirs = socket.socketpair()
        migration.call("AddStream", "sh", "migrate", theirs)
        qemus.append(FakeQemu(ours))
        kept.append(theirs)
    return qemus[0], qemus[1], kept
