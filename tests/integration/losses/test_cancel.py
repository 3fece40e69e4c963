# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cancelled from either side, in each state: both QEMUs learn, both hosts say so and by whom, nothing is left.

With stand-ins for QEMU; qemu/test_cancel.py has what real ones do.
"""

from __future__ import annotations

import pytest
from vmlib.broker import wait_until
from vmlib.delay import DelayingRelay
from vmlib.fake_qemu import FakeQemu
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel, assert_failed, assert_learns

SECURITIES = pytest.mark.parametrize("security", ["tls", "plain"])
SIDES = pytest.mark.parametrize("side", ["source", "destination"])


def cancel(tunnel: Tunnel, side: str) -> None:
    (tunnel.outgoing if side == "source" else tunnel.incoming).cancel()


def assert_cancelled(tunnel: Tunnel, side: str) -> None:
    for migration in tunnel.ends:
        found = assert_failed(migration, "cancelled", "Cancelled")
        assert f"Cancelled at the {side}" in found["ErrorMessage"]


@SIDES
def test_cancel_waiting(hosts: Hosts, side: str) -> None:
    """Neither knows the other yet: each is cancelled by itself, with its QEMU."""
    incoming = hosts.prepare(endpoints=("as", []))
    outgoing = hosts.start(incoming)
    with FakeQemu.connect(outgoing.socket()) as qemu:
        qemu.send(b"QEVM")
        (outgoing if side == "source" else incoming).cancel()
        (incoming if side == "source" else outgoing).cancel()
        assert_learns(qemu)
        for migration in (incoming, outgoing):
            assert_failed(migration, "cancelled", "Cancelled")


def test_cancel_waiting_destination_before_its_source(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    hosts.prepare("other").cancel()  # the port stays open for another
    keeper = hosts.prepare("keeper")
    incoming.cancel()
    assert_failed(incoming, "cancelled", "Cancelled")
    assert_failed(hosts.start(incoming), "failed", "PeerRejected", "TicketUsed")
    keeper.cancel()
    keeper.wait_finished()


@SECURITIES
@SIDES
def test_cancel_connected(hosts: Hosts, security: str, side: str) -> None:
    tunnel = hosts.connect(security=security)
    cancel(tunnel, side)
    assert_cancelled(tunnel, side)


@SIDES
def test_cancel_connected_while_the_destination_is_dialled(hosts: Hosts, side: str) -> None:
    """The source QEMU is there, the destination's listens nowhere yet."""
    tunnel = hosts.connect()
    with FakeQemu.connect(tunnel.outgoing.socket()) as qemu:
        qemu.send(b"QEVM")
        wait_until(lambda: tunnel.incoming.get("Channels"), "the channel at the destination")
        cancel(tunnel, side)
        assert_learns(qemu)
        assert_cancelled(tunnel, side)


@SECURITIES
@SIDES
@pytest.mark.parametrize("count", [1, 17])
def test_cancel_active(hosts: Hosts, security: str, side: str, count: int) -> None:
    """With bytes in flight in both directions on every channel, and nobody who reads them."""
    tunnel = hosts.connect(security=security)
    pairs = [tunnel.open_channel() for _ in range(count)]
    for pair in pairs:
        for qemu in pair:
            qemu.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                qemu.send(bytes(32 << 20))
            qemu.sock.settimeout(20)
    cancel(tunnel, side)
    for pair in pairs:
        for qemu in pair:
            assert_learns(qemu)
            qemu.close()
    assert_cancelled(tunnel, side)


@SECURITIES
@SIDES
@pytest.mark.parametrize("mended", [True, False], ids=["mended", "cut"])
def test_cancel_interrupted(hosts: Hosts, security: str, side: str, mended: bool) -> None:
    """The other side cannot learn of it before the network is back; then it does. Where it never comes back, each is
    cancelled by itself."""
    never = {"resume_timeout_usec": ("t", 0)}
    incoming = hosts.prepare(security=security, **never)
    with DelayingRelay(0, hosts.destination.peer_port(), seed=1, most=0) as relay:
        outgoing = hosts.start(incoming, **never, endpoint=("s", f"tcp:127.0.0.1:{relay.address}"))
        tunnel = Tunnel(outgoing, incoming)
        pairs = [tunnel.open_channel() for _ in range(2)]
        relay.cut()
        for migration in tunnel.ends:
            migration.wait_state("interrupted")
        for pair in pairs:
            for qemu in pair:
                assert_learns(qemu)
                qemu.close()
        cancel(tunnel, side)
        assert_failed(outgoing if side == "source" else incoming, "cancelled", "Cancelled")
        if mended:
            relay.mend()
        else:
            cancel(tunnel, "destination" if side == "source" else "source")
        for migration in tunnel.ends:
            assert_failed(migration, "cancelled", "Cancelled")


@SECURITIES
@SIDES
def test_cancel_interrupted_with_its_channels(hosts: Hosts, security: str, side: str) -> None:
    """While QEMU's connections are kept: those at this side end at once, the others when the network is back."""
    incoming = hosts.prepare(security=security)
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy:
        tunnel = Tunnel(hosts.start(incoming, endpoint=("s", proxy.endpoint)), incoming)
        near, far = tunnel.open_channel()
        with near, far:
            proxy.silence()
            proxy.reset()
            for migration in tunnel.ends:
                migration.wait_state("interrupted")
            cancel(tunnel, side)
            here, there = (near, far) if side == "source" else (far, near)
            assert_learns(here)
            proxy.mend()
            assert_learns(there)
        for migration in tunnel.ends:
            assert_failed(migration, "cancelled", "Cancelled")


@SECURITIES
def test_cancel_at_the_destination_before_the_cut_is_noticed(hosts: Hosts, security: str) -> None:
    """What it says gets lost; a source that comes back is told all the same."""
    incoming = hosts.prepare(security=security)
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy:
        tunnel = Tunnel(hosts.start(incoming, endpoint=("s", proxy.endpoint)), incoming)
        near, far = tunnel.open_channel()
        with near, far:
            proxy.silence()
            incoming.cancel()
            assert_learns(far)
            assert_failed(incoming, "cancelled", "Cancelled")
            tunnel.outgoing.wait_state("interrupted")
            proxy.mend()
            assert_learns(near)
        assert_failed(tunnel.outgoing, "cancelled", "Cancelled")
