# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways in which a migration can end, and what everybody else sees of it: all say the same, at both hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vmlib.broker import MIGRATION, Broker, Migration, wait_until
from vmlib.ctl import Running, ctl
from vmlib.hosts import Hosts, kill
from vmlib.migration import Pair
from vmlib.qemu import Qemu

MIB = 64
pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]
needs_postcopy = pytest.mark.usefixtures("needs_postcopy")


class Scene:
    def __init__(self, hosts: Hosts, workdir: Path) -> None:
        self.hosts = hosts
        self.pair = Pair(workdir, MIB)
        for qemu in (self.pair.source, self.pair.destination):
            qemu.set_parameters({"downtime-limit": 300, "max-bandwidth": 128 << 20})
        self.pair.source.wait_sweeps(2)

    def start(self, *options: str) -> Running:
        return Running(self.hosts.source, "migrate", "web1", self.hosts.destination.bus.address,
                       f"--qmp={self.pair.source.qmp_path}", f"--dst-qmp={self.pair.destination.qmp_path}", *options)

    def migration(self, broker: Broker) -> Migration:
        return Migration(broker, wait_until(broker.list, "there is one")[-1][5])

    def wait_phase(self, phase: str) -> None:
        for broker in self.hosts.brokers:
            wait_until(lambda: broker.list() and self.migration(broker).get("Phase") == phase, f"{phase} is told", 30)


@pytest.fixture
def scene(hosts: Hosts, workdir: Path) -> Iterator[Scene]:
    scene = Scene(hosts, workdir)
    with scene.pair:
        yield scene


def nothing(scene: Scene, run: Running) -> None:
    """It moves by itself."""


def interrupt(scene: Scene, run: Running) -> None:
    scene.wait_phase("pre-copy")
    run.interrupt()


def cancel_elsewhere(scene: Scene, run: Running) -> None:
    scene.wait_phase("pre-copy")
    scene.migration(scene.hosts.destination).cancel()


def killed(qemu: Callable[[Scene], Qemu], phase: str) -> Callable[[Scene, Running], None]:
    def deed(scene: Scene, run: Running) -> None:
        scene.wait_phase(phase)
        kill(qemu(scene).pid)

    return deed


def source(scene: Scene) -> Qemu:
    return scene.pair.source


def destination(scene: Scene) -> Qemu:
    return scene.pair.destination


@dataclass(frozen=True)
class Way:
    options: tuple[str, ...]
    deed: Callable[[Scene, Running], None]
    outcome: str
    results: tuple[str, ...]  # what the tunnel may say
    status: int  # of wait
    log: str


SLOW = ("--bandwidth=8M",)
POSTCOPY = (*SLOW, "--postcopy=after 1")
WAYS = {
    "moved": Way(("--downtime-limit=9s",), nothing, "moved", ("done",), 0, "The VM has moved"),
    "ctrl-c": Way(SLOW, interrupt, "not-moved", ("cancelled",), 3, "The VM was not moved"),
    "cancelled-elsewhere": Way(SLOW, cancel_elsewhere, "not-moved", ("cancelled",), 3, "The VM was not moved"),
    "source-killed": Way(SLOW, killed(source, "pre-copy"), "lost", ("cancelled", "failed", "done"), 1, "The VM is lost"),
    "destination-killed": Way(SLOW, killed(destination, "pre-copy"), "not-moved", ("cancelled", "failed", "done"), -1,
                              "The VM was not moved"),
    "source-killed-in-post-copy": Way(POSTCOPY, killed(source, "post-copy"), "lost", ("cancelled", "failed", "done"), 1,
                                      "The VM is lost"),
}


@needs_postcopy
@pytest.mark.parametrize("name", WAYS)
def test_all_say_the_same(scene: Scene, name: str) -> None:
    way = WAYS[name]
    with scene.start(*way.options) as run:
        way.deed(scene, run)
        run.end(90)
    for broker in scene.hosts.brokers:
        migration = scene.migration(broker)
        found = migration.wait_finished(30)
        assert found["Outcome"] == way.outcome, found
        assert found["Result"] in way.results, found
        assert (found["Progress"] == 1) == (way.outcome == "moved"), found
        assert way.log in broker.log()
        text = ctl(broker, "status", migration.id).succeeds().out
        assert f"State: finished: {way.outcome}\n" in text and f"Outcome: {way.outcome}, told by the owner" in text
        waited = ctl(broker, "wait", migration.id)
        assert waited.out == f"{migration.id} web1 {way.outcome}\n"
        assert waited.status == (way.status if way.status >= 0 else {"cancelled": 3}.get(found["Result"], 1)), waited
        assert broker.client.get(migration.path, MIGRATION, "Phase") != ""
        (line,) = ctl(broker, "list", "--all", "--no-legend", "--columns=vm,state,outcome").succeeds().out.splitlines()
        assert line.split() == ["web1", "finished", way.outcome]
        figures = ctl(broker, "metrics").succeeds().out
        role = found["Role"]
        assert f'vmferry_migrations_total{{role="{role}",outcome="{way.outcome}"}} 1\n' in figures
        assert sum(int(n) for n in re.findall(r"^vmferry_migrations_total.* (\d+)$", figures, re.M)) == 1
        assert re.search(rf'^vmferry_migration_state_info{{.*,outcome="{way.outcome}"}} 1$', figures, re.M), figures


def test_ctrl_c_is_a_cancel_each_time(hosts: Hosts, workdir: Path) -> None:
    """It is no race: the tunnel waits for the cancel although both QEMUs have closed their sockets."""
    for i in range(3):
        (workdir / str(i)).mkdir()
        scene = Scene(hosts, workdir / str(i))
        with scene.pair, scene.start(*SLOW) as run:
            interrupt(scene, run)
            assert run.end(60).status == 3
        for broker in hosts.brokers:
            assert scene.migration(broker).wait_finished(10)["Result"] == "cancelled"
            assert scene.migration(broker).get("Outcome") == "not-moved"
            scene.migration(broker).call("Forget")


def test_send_alone_tells_the_other_host(scene: Scene) -> None:
    """Without the destination's monitor and broker in hand: the outcome goes through the tunnel."""
    ticket = ctl(scene.hosts.destination, "receive", "web1", f"--qmp={scene.pair.destination.qmp_path}").succeeds().out
    ctl(scene.hosts.source, "send", "web1", f"--qmp={scene.pair.source.qmp_path}", "--downtime-limit=9s", stdin=ticket,
        timeout=90).succeeds()
    found = scene.migration(scene.hosts.destination).wait_finished(10)
    assert (found["Outcome"], found["Details"]["told-by"]) == ("moved", ("s", "peer"))


def test_watch_and_status_show_what_the_driver_shows(scene: Scene) -> None:
    with scene.start(*SLOW) as run:
        scene.wait_phase("pre-copy")
        text = ctl(scene.hosts.destination, "status", "web1").succeeds().out
        line = next(line for line in text.splitlines() if "Progress: " in line)
        assert "pre-copy" in line and " % " in line and "left " in line, text
        run.interrupt()
        run.end(60)
