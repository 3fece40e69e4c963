# SPDX-License-Identifier: LGPL-2.1-or-later
"""What everybody else sees of a migration that vmferryctl drives. The ways to its end are in vmlib/outcomes.py."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from vmlib.ctl import Running, ctl
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, cancel_and_wait
from vmlib.one_host import Scene
from vmlib.outcomes import SLOW, WAYS, End

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]


class Stage(Scene):
    """With a network that can be away."""

    def __init__(self, hosts: Hosts, workdir: Path, proxy: FaultyProxy) -> None:
        super().__init__(hosts, workdir)
        self.cut, self.mend, self._endpoint = proxy.refuse, proxy.mend, proxy.endpoint

    def begin(self, *options: str) -> Running:
        return super().begin(f"--endpoint={self._endpoint}", *options)

    def ends(self) -> tuple[End, End]:
        here, there = (End(self.migration(broker), partial(ctl, broker), broker.log) for broker in self.hosts.brokers)
        return here, there


@pytest.fixture
def stage(hosts: Hosts, workdir: Path) -> Iterator[Stage]:
    other = hosts.prepare("other")  # opens the port, so that the proxy can be told of it
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy:
        stage = Stage(hosts, workdir, proxy)
        with stage.pair:
            yield stage
    cancel_and_wait(other)


@pytest.mark.usefixtures("needs_postcopy")
@pytest.mark.parametrize("name", WAYS)
def test_all_say_the_same(stage: Stage, name: str) -> None:
    way = WAYS[name]
    with stage.begin(*way.options) as run:
        way.deed(stage, run)
        run.end(90)
    for end in stage.ends():
        way.judge(end, {})


@pytest.fixture
def scene(hosts: Hosts, workdir: Path) -> Iterator[Scene]:
    scene = Scene(hosts, workdir)
    with scene.pair:
        yield scene


def test_ctrl_c_is_a_cancel_each_time(hosts: Hosts, workdir: Path) -> None:
    """It is no race: the tunnel waits for the cancel although both QEMUs have closed their sockets."""
    for i in range(3):
        (workdir / str(i)).mkdir()
        scene = Scene(hosts, workdir / str(i))
        with scene.pair, scene.begin(*SLOW) as run:
            scene.wait_phase("pre-copy")
            run.interrupt()
            assert run.end(60).status == 3
        for broker in hosts.brokers:
            assert scene.migration(broker).wait_finished()["Result"] == "cancelled"
            assert scene.migration(broker).get("Outcome") == "not-moved"
            scene.migration(broker).call("Forget")


def test_send_alone_tells_the_other_host(scene: Scene) -> None:
    """Without the destination's monitor and broker in hand: the outcome goes through the tunnel."""
    ticket = scene.receive()
    scene.send(ticket, "--downtime-limit=9s").succeeds()
    found = scene.migration(scene.hosts.destination).wait_finished()
    assert (found["Outcome"], found["Details"]["told-by"]) == ("moved", ("s", "peer"))


def test_watch_and_status_show_what_the_driver_shows(scene: Scene) -> None:
    with scene.begin(*SLOW) as run:
        scene.wait_phase("pre-copy")
        text = ctl(scene.hosts.destination, "status", "web1").succeeds().out
        line = next(line for line in text.splitlines() if "Progress: " in line)
        assert "pre-copy" in line and " % " in line and "left " in line, text
        run.interrupt()
        run.end(60)
