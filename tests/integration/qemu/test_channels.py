# SPDX-License-Identifier: LGPL-2.1-or-later
"""The many connections of a real QEMU, multifd's and postcopy-preempt's: never is one taken for another.

Every connection is held back for a random time at the source, between the tunnel's ends (where they overtake each
other), and at the destination. Each migration runs several times, with other delays: $VMFERRY_LONG makes it ten.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from vmlib.broker import Broker
from vmlib.delay import DelayingRelay
from vmlib.hosts import Hosts, Tunnel
from vmlib.migration import Pair

pytestmark = pytest.mark.qemu

SECURITIES = pytest.mark.parametrize("security", ["tls", "plain"])
ROUNDS = range(10 if os.environ.get("VMFERRY_LONG") else 2)
MIB = 32


class Delayed:
    """A tunnel with a delaying relay at its source, in its middle, and at its destination."""

    def __init__(self, stack: ExitStack, hosts: Hosts, security: str, seed: int) -> None:
        to_qemu = hosts.workdir / "to-qemu"
        incoming = hosts.prepare(security=security, sockets=("a{ss}", {"migrate": str(to_qemu)}))
        port = hosts.destination.peer_port()
        between = stack.enter_context(DelayingRelay(0, port, 3 * seed, overtake=True))
        outgoing = hosts.start(incoming, endpoint=("s", f"tcp:127.0.0.1:{between.address}"))
        self.tunnel = Tunnel(outgoing, incoming)
        at_source, at_destination = hosts.workdir / "source", hosts.workdir / "destination"
        stack.enter_context(DelayingRelay(at_source, Path(outgoing.socket()), 3 * seed + 1))
        stack.enter_context(DelayingRelay(to_qemu, at_destination, 3 * seed + 2))
        self.source, self.destination = f"unix:{at_source}", f"unix:{at_destination}"

    def assert_done(self, count: int) -> None:
        """So many channels, each of which both ends count alike."""
        there, _ = self.tunnel.assert_done()
        assert there > MIB << 20
        of_source, of_destination = (migration.get("Channels") for migration in self.tunnel.ends)
        assert [channel[1] for channel in of_source] == list(range(count))
        assert [(*c[:2], c[3], c[2], c[4]) for c in of_destination] == of_source
        assert {channel[4] for channel in of_source} == {"closed"}


@SECURITIES
@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("seed", ROUNDS)
def test_multifd(hosts: Hosts, needs_qemu: None, security: str, count: int, seed: int) -> None:
    with ExitStack() as stack:
        delayed = Delayed(stack, hosts, security, seed)
        pair = stack.enter_context(Pair(hosts.workdir, MIB, {"multifd": True}, {"multifd-channels": count}))
        pair.source.wait_sweeps()  # until then its memory is zeros, which cost nothing
        outcome = pair.precopy(delayed.source, delayed.destination)
        assert outcome.ram["multifd-bytes"] > MIB << 18
        pair.assert_unharmed()
        delayed.assert_done(1 + count)


@SECURITIES
@pytest.mark.parametrize("seed", ROUNDS)
def test_postcopy_preempt(hosts: Hosts, needs_postcopy: None, security: str, seed: int) -> None:
    preempt = {"postcopy-preempt": True}
    with ExitStack() as stack:
        delayed = Delayed(stack, hosts, security, seed)
        pair = stack.enter_context(Pair(hosts.workdir, MIB, parameters={"max-postcopy-bandwidth": 32 << 20}))
        pair.enable_postcopy()
        for qemu in (pair.source, pair.destination):
            qemu.set_capabilities(preempt)
        pair.source.wait_sweeps()
        pair.listen(delayed.destination)
        pair.begin(delayed.source)
        pair.begin_postcopy()
        outcome = pair.wait_completed()
        assert outcome.ram["postcopy-requests"] > 0
        pair.assert_unharmed()
        delayed.assert_done(2)


def same_host(broker: Broker, security: str) -> Tunnel:
    incoming = broker.prepare("web1", {"security": ("s", security)})
    return Tunnel(broker.outgoing(incoming.ticket or "", "web1"), incoming)


@SECURITIES
def test_same_host_multifd(workdir: Path, needs_qemu: None, security: str) -> None:
    """Source and destination are QEMUs of one host, as for an upgrade of QEMU: one broker is both ends."""
    with Broker(workdir, "h") as broker, \
            Pair(workdir, MIB, {"multifd": True}, {"multifd-channels": 4}) as pair:
        tunnel = same_host(broker, security)
        assert tunnel.outgoing.id == tunnel.incoming.id and tunnel.outgoing.socket() != tunnel.incoming.socket()
        pair.source.wait_sweeps()
        pair.precopy(f"unix:{tunnel.outgoing.socket()}", f"unix:{tunnel.incoming.socket()}")
        pair.assert_unharmed()
        tunnel.assert_done()
        assert sorted(row[2] for row in broker.list()) == ["incoming", "outgoing"]


@SECURITIES
def test_same_host_postcopy(workdir: Path, needs_postcopy: None, security: str) -> None:
    with Broker(workdir, "h") as broker, Pair(workdir, MIB) as pair:
        tunnel = same_host(broker, security)
        pair.source.wait_sweeps()  # a VM of zeros would be over before post-copy begins
        pair.postcopy(f"unix:{tunnel.outgoing.socket()}", f"unix:{tunnel.incoming.socket()}")
        pair.assert_unharmed()
        tunnel.assert_done()


@SECURITIES
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("capability", [{}, {"multifd": True}], ids=["one", "multifd"])
def test_cancel_active(hosts: Hosts, needs_qemu: None, security: str, side: str, capability: dict[str, Any]) -> None:
    """Both QEMUs learn: the source's guest runs on, the destination's QEMU ends."""
    slow = {"max-bandwidth": 8 << 20, "downtime-limit": 1, **({"multifd-channels": 4} if capability else {})}
    tunnel = hosts.connect(security=security)
    with Pair(hosts.workdir, MIB, capability, slow) as pair:
        pair.source.wait_sweeps()
        path = tunnel.incoming.socket()
        pair.listen(f"unix:{path}")
        pair.begin(f"unix:{tunnel.outgoing.socket()}")
        pair.wait_transferred(4 << 20)
        (tunnel.outgoing if side == "source" else tunnel.incoming).cancel()
        pair.source.wait_migration({"failed"})
        if capability:
            pair.destination.wait_cut_off(path)
        else:
            assert pair.destination.wait_exit() != 0
        tunnel.assert_failed("cancelled", "Cancelled")
        pair.source.wait_sweeps(2)
        assert pair.source.status() == "running" and "!" not in pair.serial()
