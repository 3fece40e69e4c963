# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl watch --notify tells a desktop what becomes of its user's migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vmlib.broker import Bus
from vmlib.ctl import Running, ctl
from vmlib.delay import DelayingRelay
from vmlib.hosts import Hosts, Tunnel
from vmlib.notifications import Desktop


@pytest.fixture
def session(workdir: Path) -> Iterator[tuple[Bus, Desktop]]:
    """The bus of a session with a desktop on it."""
    bus = Bus(workdir, "session")
    desktop = Desktop(bus.connect())
    try:
        yield bus, desktop
    finally:
        bus.close()
        desktop.close()


@contextmanager
def watching(hosts: Hosts, bus: Bus, after: str = "60s") -> Iterator[Running]:
    """One that follows the broker at the source."""
    with Running(hosts.source, "watch", f"--notify={after}", env={"DBUS_SESSION_BUS_ADDRESS": bus.address}) as running:
        assert running.process.stderr and "is told" in running.process.stderr.readline()
        yield running


def ended(running: Running) -> None:
    running.interrupt()
    assert running.end().status == 0


def test_ends(hosts: Hosts, session: tuple[Bus, Desktop]) -> None:
    """One notification per migration, as it ends; what had ended before is no news; another outcome replaces the first."""
    bus, desktop = session
    old = hosts.connect("old")
    old.outgoing.cancel()
    old.outgoing.wait_finished()
    with watching(hosts, bus) as running:
        moved = hosts.connect("web1")
        source, destination = moved.open_channel()
        moved.outgoing.call("Report", "sa{sv}", "moved", {"downtime-usec": ("t", 340_000)})
        for qemu in (source, destination):
            qemu.shut_wr()
        for qemu in (source, destination):
            assert qemu.recv_until_eof() == b""
            qemu.close()
        told = desktop.wait(1)
        assert (told["app"], told["title"], told["text"], told["urgency"], told["replaces"]) == \
            ("vmferry", "VM 'web1' has moved", "It stood still for 340 ms.", 1, 0)
        lost = hosts.connect("<b>web2</b>")
        lost.outgoing.call("Report", "sa{sv}", "not-moved", {"reason": ("s", "<i>it</i> & that")})
        lost.outgoing.cancel()
        told = desktop.wait(2)
        assert (told["title"], told["text"], told["urgency"]) == \
            ("VM '<b>web2</b>' was not moved", "&lt;i&gt;it&lt;/i&gt; &amp; that", 1)
        lost.outgoing.call("Report", "sa{sv}", "lost", {})
        again = desktop.wait(3)
        assert (again["title"], again["urgency"], again["replaces"]) == ("VM '<b>web2</b>' is lost", 2, told["id"])
        ended(running)
    assert len(desktop.calls) == 3 and "old" not in str(desktop.calls)


def test_interruption(hosts: Hosts, session: tuple[Bus, Desktop]) -> None:
    """One that lasts is told, and that it goes on."""
    bus, desktop = session
    incoming = hosts.prepare()
    with DelayingRelay(0, hosts.destination.peer_port(), seed=1, most=0) as relay, watching(hosts, bus, "300ms") as running:
        outgoing = hosts.start(incoming, endpoint=("s", f"tcp:127.0.0.1:{relay.address}"))
        tunnel = Tunnel(outgoing, incoming)
        for migration in tunnel.ends:
            migration.wait_state("connected")
        relay.cut()
        told = desktop.wait(1)
        assert (told["title"], told["text"]) == ("The migration of VM 'web1' is interrupted", "The network has been lost for 300 ms.")
        assert outgoing.get("GivesUpUsec") > outgoing.get("StartedUsec") + 50_000_000
        relay.mend()
        again = desktop.wait(2)
        assert (again["title"], again["replaces"], again["urgency"]) == ("The migration of VM 'web1' goes on", told["id"], 0)
        assert outgoing.get("GivesUpUsec") == 0
        outgoing.cancel()
        for migration in tunnel.ends:
            migration.wait_finished()
        assert desktop.wait(3)["title"] == "The migration of VM 'web1' was cancelled"
        ended(running)


def test_without_a_desktop(hosts: Hosts, workdir: Path) -> None:
    """What cannot be shown is said, and it goes on; it ends with its session."""
    with Bus(workdir, "session") as bus, watching(hosts, bus) as running:
        tunnel = hosts.connect()
        tunnel.outgoing.cancel()
        assert running.process.stderr and "shows no notification" in running.process.stderr.readline()
        bus.close()
        assert running.end(20).status == 1


def test_restarted_broker(managed: Hosts, session: tuple[Bus, Desktop]) -> None:
    """What ends while another broker comes is told as well."""
    bus, desktop = session
    with watching(managed, bus) as running:
        tunnel = managed.connect()
        managed.source.kill()
        managed.source.start()
        tunnel.outgoing.cancel()
        assert desktop.wait(1)["title"] == "The migration of VM 'web1' was cancelled"
        ended(running)


def test_refused(hosts: Hosts, workdir: Path) -> None:
    ctl(hosts.source, "watch", "--notify", "web1").fails(2, "--notify tells of all migrations of yours")
    ctl(hosts.source, "watch", "--notify=soon").fails(2, "--notify=soon")
    ctl(hosts.source, "watch", "--notify", env={"DBUS_SESSION_BUS_ADDRESS": f"unix:path={workdir}/none"}).fails(
        1, "Cannot connect to the session's bus")
