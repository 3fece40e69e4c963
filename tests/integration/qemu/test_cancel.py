# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cancelled from either side, in each state of each kind of migration: both QEMUs learn, both hosts say `cancelled`.

What losses/test_cancel.py shows with stand-ins, with real QEMUs where what they do with it differs.
"""

from __future__ import annotations

import pytest
from vmlib.disks import STREAMS, add_disk, export, make_disk, mirror
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel
from vmlib.migration import NEVER_CONVERGE, Pair

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]

MIB = 32
SLOW = {**NEVER_CONVERGE, "max-bandwidth": 8 << 20, "max-postcopy-bandwidth": 4 << 20}
SIDES = pytest.mark.parametrize("side", ["source", "destination"])
PREEMPT = pytest.mark.parametrize("capabilities", [{}, {"postcopy-preempt": True}], ids=["one", "preempt"])


def cancel(tunnel: Tunnel, side: str) -> None:
    """And both say so, by the same words."""
    (tunnel.outgoing if side == "source" else tunnel.incoming).cancel()
    tunnel.assert_failed("cancelled", "Cancelled")
    for migration in tunnel.ends:
        assert f"ancelled at the {side}" in migration.get("ErrorMessage")


def runs_on(pair: Pair) -> None:
    """At the source, unharmed."""
    pair.source.wait_migration({"failed"})
    pair.source.wait_sweeps(2)
    assert pair.source.status() == "running" and "!" not in pair.serial()


@SIDES
@pytest.mark.parametrize("cut", [False, True], ids=["active", "interrupted"])
def test_disks(hosts: Hosts, side: str, cut: bool) -> None:
    """The disk's copy fails at the source as the memory's does; the guest and its disk go on there."""
    resume = {"resume_timeout_usec": ("t", 0)}
    incoming = hosts.prepare(streams=STREAMS, **resume)
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy, \
            Pair(hosts.workdir, MIB, {}, SLOW) as pair:
        tunnel = Tunnel(hosts.start(incoming, streams=STREAMS, endpoint=("s", proxy.endpoint), **resume), incoming)
        images = [hosts.workdir / "source.raw", hosts.workdir / "destination.raw"]
        for qemu, image in zip((pair.source, pair.destination), images):
            make_disk(image, filled=image == images[0])
            add_disk(qemu, image)
        pair.source.wait_sweeps()
        pair.destination.set_parameters(SLOW)
        export(pair.destination, incoming.socket("disks"))
        tunnel.outgoing.set_limit(16 << 20)
        mirror(pair.source, tunnel.outgoing.socket("disks"))
        pair.listen(f"unix:{incoming.socket()}")
        pair.begin(f"unix:{tunnel.outgoing.socket()}")
        pair.wait_transferred(2 << 20)
        if cut:
            proxy.reset()
            runs_on(pair)
        cancel(tunnel, side)
        if not cut:
            runs_on(pair)
        assert pair.source.qmp.wait_event("BLOCK_JOB_COMPLETED", 30)["data"]["error"]
        assert pair.destination.wait_exit() != 0


@SIDES
@PREEMPT
def test_postcopy_active(hosts: Hosts, needs_postcopy: None, side: str, capabilities: dict[str, bool]) -> None:
    """Both are paused, and nothing is lost: the guest is recovered over another migration."""
    tunnel = hosts.connect()
    with Pair(hosts.workdir, MIB, parameters=SLOW) as pair:
        begin_postcopy(pair, tunnel, capabilities)
        cancel(tunnel, side)
        recover_over_another(hosts, pair)


@SIDES
@PREEMPT
@pytest.mark.parametrize("mended", [True, False], ids=["mended", "cut"])
def test_postcopy_paused(hosts: Hosts, needs_postcopy: None, side: str, capabilities: dict[str, bool],
                         mended: bool) -> None:
    """The network was lost; whether it is back by then or not, the other host hears of it at the latest when it is."""
    resume = {"resume_timeout_usec": ("t", 0)}
    incoming = hosts.prepare(**resume)
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy, \
            Pair(hosts.workdir, MIB, parameters=SLOW) as pair:
        tunnel = Tunnel(hosts.start(incoming, endpoint=("s", proxy.endpoint), **resume), incoming)
        begin_postcopy(pair, tunnel, capabilities)
        proxy.silence()
        proxy.reset()
        for qemu in (pair.source, pair.destination):
            qemu.wait_migration({"postcopy-paused"}, 30)
        for migration in tunnel.ends:
            migration.wait_state("interrupted")
        if mended:
            proxy.mend()
            cancel(tunnel, side)
        else:
            here = tunnel.outgoing if side == "source" else tunnel.incoming
            here.cancel()
            assert here.wait_finished()["Result"] == "cancelled"
            proxy.mend()
            tunnel.assert_failed("cancelled", "Cancelled", timeout=30)
        recover_over_another(hosts, pair)


def begin_postcopy(pair: Pair, tunnel: Tunnel, capabilities: dict[str, bool]) -> None:
    pair.enable_postcopy()
    for qemu in (pair.source, pair.destination):
        qemu.set_capabilities(capabilities)
    pair.source.wait_sweeps()
    pair.listen(f"unix:{tunnel.incoming.socket()}")
    pair.begin(f"unix:{tunnel.outgoing.socket()}")
    pair.begin_postcopy()


def recover_over_another(hosts: Hosts, pair: Pair) -> None:
    for qemu in (pair.source, pair.destination):
        qemu.wait_migration({"postcopy-paused"}, 30)
    again = hosts.connect()
    pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    pair.recover(f"unix:{again.outgoing.socket()}", f"unix:{again.incoming.socket()}")
    pair.wait_completed()
    pair.assert_unharmed()
    again.assert_done()
