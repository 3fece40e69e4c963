# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMUs of two versions, from each to each, moved by vmferryctl: docs/qemu-versions.md has what came of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vmlib.broker import MIGRATION, Broker
from vmlib.ctl import FAILED, ctl
from vmlib.hosts import Hosts
from vmlib.migration import Pair
from vmlib.network import Network
from vmlib.versions import qemus

LONG = bool(os.environ.get("VMFERRY_LONG"))
QEMUS = qemus() if LONG else {}
MACHINE = ["-machine", "pc-i440fx-7.2"]  # the same for all
MODES = {
    "pre-copy": ["--downtime-limit=60s"],
    "post-copy": ["--postcopy", "--downtime-limit=1ms"],
    "preempt": ["--postcopy", "--downtime-limit=1ms"],
    "multifd": ["--multifd=2", "--downtime-limit=60s"],
}

pytestmark = [pytest.mark.qemu, pytest.mark.long, pytest.mark.usefixtures("needs_qemu", "needs_postcopy")]


def pair_of(workdir: Path, there: str, here: str) -> Pair:
    return Pair(workdir, 64, extra=MACHINE, prefixes=(QEMUS[here], QEMUS[there]))


@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("here", "there"), [(here, there) for here in QEMUS or ["7.2"] for there in QEMUS or ["7.2"]])
def test_crossed(hosts: Hosts, workdir: Path, here: str, there: str, mode: str, security: str) -> None:
    with pair_of(workdir, there, here) as pair:
        for qemu in (pair.source, pair.destination):
            qemu.set_parameters({"downtime-limit": 300, "max-bandwidth": 128 << 20})
            qemu.set_capabilities({"events": False})
        if mode == "preempt":
            pair.source.set_capabilities({"postcopy-ram": True, "postcopy-preempt": True})
        pair.source.wait_sweeps(1)
        ctl(hosts.source, "migrate", "web1", hosts.destination.bus.address, f"--qmp={pair.source.qmp_path}",
            f"--dst-qmp={pair.destination.qmp_path}", f"--security={security}", *MODES[mode], timeout=120).succeeds()
        pair.assert_unharmed()
        path = hosts.source.list()[0][5]
        channels = hosts.source.client.get(path, MIGRATION, "Channels")
        assert len(channels) == {"multifd": 3, "preempt": 2}.get(mode, 1)
        assert hosts.source.client.get(path, MIGRATION, "Outcome") == "moved"


def test_multifd_with_postcopy(hosts: Hosts, workdir: Path) -> None:
    """QEMU permits it from 10.1 on."""
    for version in (version for version in QEMUS if tuple(map(int, version.split("."))) >= (10, 1)):
        with Pair(workdir, 64, name=version, extra=MACHINE, prefixes=(QEMUS[version], QEMUS[version])) as pair:
            pair.source.set_parameters({"max-bandwidth": 128 << 20})
            pair.source.wait_sweeps(1)
            ctl(hosts.source, "migrate", "web1", hosts.destination.bus.address, f"--qmp={pair.source.qmp_path}",
                f"--dst-qmp={pair.destination.qmp_path}", "--multifd=2", "--postcopy", "--downtime-limit=1ms",
                timeout=120).succeeds()
            pair.assert_unharmed()
            assert len(hosts.source.client.get(hosts.source.list()[-1][5], MIGRATION, "Channels")) >= 3


@pytest.mark.parametrize("version", [version for version in QEMUS if version != "7.2"] or ["7.2"])
def test_preempt_recovers(workdir: Path, version: str) -> None:
    """QEMU closes the recovered channel for preempted pages with something unread; it has moved all the same."""
    with (Network() as network,
          Broker(workdir, "a", netns=network.a) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0") as b,
          Pair(workdir, 256, None, {"max-postcopy-bandwidth": 24 << 20}, extra=MACHINE,
               prefixes=(QEMUS[version], QEMUS[version])) as pair):
        resume = {"resume-timeout-usec": ("t", 500_000)}  # short: the cut is for good
        incoming = b.prepare(options=resume)
        outgoing = a.outgoing(incoming.ticket or "", options=resume)
        source, destination = f"unix:{outgoing.socket()}", f"unix:{incoming.socket()}"
        pair.source.wait_sweeps(1)
        pair.enable_postcopy()
        for qemu in (pair.source, pair.destination):
            qemu.set_capabilities({"postcopy-preempt": True})
        pair.listen(destination)
        pair.begin(source)
        pair.begin_postcopy()
        network.cut()
        for qemu in (pair.source, pair.destination):
            qemu.wait_migration({"postcopy-paused"}, 60)
        for migration in (outgoing, incoming):
            migration.wait_state("interrupted")
        network.mend()
        pair.recover(source, destination)
        pair.wait_completed(120)
        assert outgoing.wait() == "done" and incoming.wait() == "done"
        assert [channel[4] for channel in outgoing.get("Channels")] == ["lost"] * 2 + ["closed"] * 2
        pair.assert_unharmed()


def test_an_incoming_qemu_that_fails(hosts: Hosts, workdir: Path) -> None:
    """It ends, and the guest goes on where it is. (It is another machine.)"""
    for number, version in enumerate(QEMUS):
        prefixes = (QEMUS[version], QEMUS[version])
        with Pair(workdir, 64, name=f"a{number}", extra=MACHINE, prefixes=prefixes) as pair, \
                Pair(workdir, 64, name=f"b{number}", extra=["-machine", "q35"], prefixes=prefixes) as other:
            pair.source.wait_sweeps(1)
            result = ctl(hosts.source, "migrate", "web1", hosts.destination.bus.address,
                         f"--qmp={pair.source.qmp_path}", f"--dst-qmp={other.destination.qmp_path}",
                         "--downtime-limit=60s", timeout=120)
            result.fails(FAILED, "runs on at the source")
            assert other.destination.wait_exit() != 0
            pair.source.wait_sweeps(1)
