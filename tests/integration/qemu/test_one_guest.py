# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real guest never runs on two hosts, whatever is lost when; it is where vmferryctl says, with the manual's status.

The switchover is held open by a limit on the way back, so that the destination's last word does not come. $VMFERRY_LONG
walks the whole matrix, otherwise a few of its cells.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.broker import Broker, wait_until
from vmlib.ctl import BOTH_RUN, CANCELLED, DONE, FAILED, Result, Running, ctl
from vmlib.faulty import FaultyProxy
from vmlib.guest import assert_unharmed
from vmlib.hosts import Hosts, kill
from vmlib.migration import Pair
from vmlib.network import free_port
from vmlib.qemu import Qemu, QemuDied

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu", "needs_postcopy")]

MIB = 48
SLOW = "--bandwidth=4M"
LONG = bool(os.environ.get("VMFERRY_LONG"))


def runs(qemu: Qemu) -> bool:
    try:
        return qemu.alive and qemu.status() == "running"
    except QemuDied:  # right then
        return False


class Scene:
    """Two brokers, a network between them that can be lost, and a pair of QEMUs."""

    def __init__(self, workdir: Path, proxy: FaultyProxy, hosts: Hosts, pair: Pair) -> None:
        self.proxy, self.hosts, self.pair = proxy, hosts, pair
        self.source, self.destination = pair.source, pair.destination
        self.words = ["migrate", "web1", hosts.destination.bus.address, f"--qmp={self.source.qmp_path}",
                      f"--dst-qmp={self.destination.qmp_path}"]

    def begin(self, *args: str) -> Running:
        return Running(self.hosts.source, *self.words, f"--endpoint={self.proxy.endpoint}", "--resume-timeout=2", *args)

    def resume(self, *args: str) -> Result:
        return ctl(self.hosts.source, *self.words, "--resume", *args, timeout=90)

    def hold_last_word(self, rate: str = "1") -> None:
        wait_until(lambda: ctl(self.hosts.destination, "limit", "web1", rate).status == 0, "the limit", 60)

    def speed_up(self) -> None:
        self.source.set_parameters({"max-bandwidth": 1 << 40, "downtime-limit": 60_000, "max-postcopy-bandwidth": 0})

    def where(self) -> tuple[bool, bool]:
        """Whether it runs at the source, at the destination; never at both."""
        state = runs(self.source), runs(self.destination)
        assert state != (True, True)
        return state

    def assert_stays(self, state: tuple[bool, bool]) -> None:
        for _ in range(5):
            assert self.where() == state
            time.sleep(0.1)


@pytest.fixture
def scene(workdir: Path) -> Iterator[Scene]:
    port = free_port()
    with (FaultyProxy(("127.0.0.1", port)) as proxy, Hosts(workdir, listen=f"tcp:127.0.0.1:{port}") as hosts):
        with Pair(workdir, MIB) as pair:
            for qemu in (pair.source, pair.destination):
                qemu.set_parameters({"downtime-limit": 300, "max-bandwidth": 128 << 20})
                qemu.set_capabilities({"events": False})
            pair.source.wait_sweeps(1)
            yield Scene(workdir, proxy, hosts, pair)
        proxy.mend()
        for broker in hosts.brokers:
            ctl(broker, "cancel", "web1", "--force")
            ctl(broker, "wait", "web1", "-q")


# ---- How far it is ----


def first_pass(scene: Scene, *args: str) -> Running:
    run = scene.begin(SLOW, *args)
    scene.pair.wait_transferred(2 << 20)
    return run


def switchover(scene: Scene, *args: str) -> Running:
    """The destination has everything, and the source waits for its last word."""
    run = scene.begin("--downtime-limit=60s", *args)
    scene.hold_last_word()
    scene.destination.wait_until(lambda: scene.destination.query_migrate().get("status") == "completed",
                                 "all to arrive", 60)
    assert scene.source.query_migrate()["status"] in ("active", "device")
    assert scene.where() == (False, False)
    return run


def in_postcopy(scene: Scene, *args: str) -> Running:
    run = scene.begin(SLOW, "--downtime-limit=1ms", *args)
    scene.destination.wait_until(lambda: scene.destination.status() == "running", "it to run there", 60)
    assert not runs(scene.source)
    return run


# ---- What comes ----


def cut(scene: Scene, run: Running) -> None:
    scene.proxy.silence()


def ctrl_c(scene: Scene, run: Running) -> None:
    run.interrupt()


def cancel(scene: Scene, run: Running) -> None:
    ctl(scene.hosts.source, "cancel", "web1", "--force").succeeds()


def monitor_cancels(scene: Scene, run: Running) -> None:
    scene.source.execute("migrate_cancel")


def kill_source(scene: Scene, run: Running) -> None:
    scene.source.kill()


def kill_destination(scene: Scene, run: Running) -> None:
    scene.destination.kill()


NEITHER, SOURCE, DESTINATION = (False, False), (True, False), (False, True)
HERE = "was not moved; it runs on at the source"

# How far, what comes, exit status, where it runs then, what is said.
PRECOPY = [
    (first_pass, cut, FAILED, SOURCE, HERE),
    (first_pass, ctrl_c, CANCELLED, SOURCE, HERE),
    (first_pass, cancel, CANCELLED, SOURCE, HERE),
    (first_pass, kill_source, FAILED, NEITHER, "does not run any more"),
    (first_pass, kill_destination, FAILED, SOURCE, HERE),
    (switchover, cut, FAILED, SOURCE, HERE),
    (switchover, ctrl_c, CANCELLED, SOURCE, HERE),
    (switchover, cancel, CANCELLED, SOURCE, HERE),
    (switchover, kill_source, FAILED, NEITHER, "it stands still ('paused')"),
]
POSTCOPY = [
    (cut, FAILED, DESTINATION, "nothing is lost: QEMU at"),
    (ctrl_c, FAILED, DESTINATION, "goes on by itself"),
    (cancel, FAILED, DESTINATION, "nothing is lost: QEMU at"),
    (monitor_cancels, FAILED, DESTINATION, "is lost"),
    (kill_source, FAILED, DESTINATION, "is lost"),
    (kill_destination, FAILED, NEITHER, "is gone"),
]
FEW = [(switchover, cut), (switchover, ctrl_c), (switchover, kill_source), (first_pass, kill_destination)]


@pytest.mark.parametrize(("far", "what", "status", "where", "words"),
                         [row for row in PRECOPY if LONG or row[:2] in FEW])
def test_precopy(scene: Scene, far, what, status: int, where: tuple[bool, bool], words: str) -> None:  # type: ignore[no-untyped-def]
    with far(scene) as run:
        what(scene, run)
        run.end(90).fails(status, words)
    scene.assert_stays(where)
    if where == SOURCE:
        scene.source.wait_sweeps(2)
        assert_unharmed(scene.source.serial())


@pytest.mark.parametrize(("what", "status", "where", "words"),
                         [row for row in POSTCOPY if LONG or row[0] in (ctrl_c, kill_source, kill_destination)])
def test_postcopy(scene: Scene, what, status: int, where: tuple[bool, bool], words: str) -> None:  # type: ignore[no-untyped-def]
    with in_postcopy(scene, "--postcopy") as run:
        what(scene, run)
        run.end(90).fails(status, words)
    scene.assert_stays(where)


@pytest.mark.parametrize("what", [cut, cancel] if LONG else [cancel])
def test_automatic_recovery(scene: Scene, what) -> None:  # type: ignore[no-untyped-def]
    """Also through a new tunnel, where the old one has finished."""
    with scene.begin("--bandwidth=64M", "--downtime-limit=1ms", "--postcopy=auto") as run:
        scene.destination.wait_until(lambda: scene.destination.status() == "running", "it to run there", 60)
        scene.source.set_parameters({"max-postcopy-bandwidth": 1 << 20})
        what(scene, run)
        scene.source.wait_migration({"postcopy-paused"}, 30)
        scene.proxy.mend()
        scene.source.set_parameters({"max-postcopy-bandwidth": 0})
        run.end(90).succeeds()
    scene.assert_stays(DESTINATION)
    scene.pair.assert_unharmed()


@pytest.mark.long
@pytest.mark.parametrize("what", [ctrl_c, kill_source, kill_destination])
def test_automatic(scene: Scene, what) -> None:  # type: ignore[no-untyped-def]
    words = {ctrl_c: "goes on by itself", kill_source: "is lost", kill_destination: "is gone"}
    with in_postcopy(scene, "--postcopy=auto", "--bandwidth=32M") as run:
        scene.source.set_parameters({"max-postcopy-bandwidth": 1 << 20})
        what(scene, run)
        run.end(90).fails(FAILED, words[what])
    scene.assert_stays(NEITHER if what is kill_destination else DESTINATION)


# ---- All that can come, at all times: at most one runs, and what is said of it is so ----


def at_setup(scene: Scene, *args: str) -> Running:
    run = scene.begin(SLOW, *args)
    wait_until(lambda: "status" in scene.source.query_migrate(), "the migration", 60)
    return run


def last_pass(scene: Scene, *args: str) -> Running:
    """All was sent once; what the guest has changed since is sent again."""
    run = scene.begin("--bandwidth=32M", "--downtime-limit=1ms", *args)
    scene.source.wait_until(lambda: int(scene.source.query_migrate().get("ram", {}).get("dirty-sync-count", 0)) > 1,
                            "the second pass", 60)
    return run


def after_last_word(scene: Scene, *args: str) -> Running:
    """The source has heard it and let go; vmferryctl has not looked since, and has started the VM nowhere."""
    run = switchover(scene, *args)
    run.process.send_signal(signal.SIGSTOP)
    scene.hold_last_word("0")
    scene.source.wait_migration({"completed"}, 30)
    assert scene.where() == NEITHER
    return run


def ctrl_c_twice(scene: Scene, run: Running) -> None:
    run.interrupt()
    run.interrupt()


def sigterm(scene: Scene, run: Running) -> None:
    run.process.terminate()


def quit_source(scene: Scene, run: Running) -> None:
    with contextlib.suppress(QemuDied):
        scene.source.execute("quit")
    scene.source.wait_exit()


def quit_destination(scene: Scene, run: Running) -> None:
    with contextlib.suppress(QemuDied):
        scene.destination.execute("quit")
    scene.destination.wait_exit()


def guest_powers_off(scene: Scene, run: Running) -> None:
    """Where it runs; in the switchover at the source, as if it had asked for that right before."""
    qemu = scene.destination if runs(scene.destination) else scene.source
    with contextlib.suppress(QemuDied):
        qemu.execute("human-monitor-command", command_line="o /h 0x604 0x2000")  # ACPI's PM1a control: S5
    qemu.wait_exit()


def kill_broker(broker: Broker) -> None:
    """With all that it had; the next one knows of no migration."""
    helpers = broker.helpers()
    broker.kill()
    for pid in helpers:
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
    broker.start()


def kill_source_broker(scene: Scene, run: Running) -> None:
    kill_broker(scene.hosts.source)


def kill_destination_broker(scene: Scene, run: Running) -> None:
    kill_broker(scene.hosts.destination)


EVENTS = [cut, ctrl_c, ctrl_c_twice, cancel, monitor_cancels, kill_source, kill_destination, quit_source,
          quit_destination, sigterm, guest_powers_off, kill_source_broker, kill_destination_broker]


def judge(scene: Scene, result: Result) -> None:
    """Where it runs is where it is said to run."""
    here, there = scene.where()
    said = result.err.splitlines()[-1]
    assert result.status in (DONE, FAILED, CANCELLED), result
    if result.status == DONE:
        assert (here, there) == DESTINATION and "At the destination it is running" in result.err, result
    if HERE in said:
        assert here, result
    if "does not run any more" in said or "stands still" in said:
        assert not there or "VM stands still, and" in said, result
    if f"runs at {scene.words[2]}" in said:
        assert there, result
    for _ in range(10):  # nor a moment later
        scene.where()
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("what", EVENTS)
@pytest.mark.parametrize("far", [at_setup, first_pass, last_pass, switchover, after_last_word])
def test_each_cell_of_precopy(scene: Scene, far, what) -> None:  # type: ignore[no-untyped-def]
    with far(scene) as run:
        what(scene, run)
        run.process.send_signal(signal.SIGCONT)
        judge(scene, run.end(90))


@pytest.mark.long
@pytest.mark.parametrize("what", [kill_destination, quit_destination])
def test_destination_gone_after_the_last_word(scene: Scene, what) -> None:  # type: ignore[no-untyped-def]
    """It never ran there, and goes on at the source, as the message says."""
    with after_last_word(scene) as run:
        what(scene, run)
        run.process.send_signal(signal.SIGCONT)
        run.end(90).fails(FAILED, "stands still at the source as well", "'cont'")
    scene.source.execute("cont")
    scene.assert_stays(SOURCE)
    scene.source.wait_sweeps(2)
    assert_unharmed(scene.source.serial())


@pytest.mark.long
@pytest.mark.parametrize("what", EVENTS)
@pytest.mark.parametrize("how", ["--postcopy", "--postcopy=auto"])
@pytest.mark.parametrize("far", [at_setup, in_postcopy])
def test_each_cell_of_postcopy(scene: Scene, far, how: str, what) -> None:  # type: ignore[no-untyped-def]
    args = [how, *(["--bandwidth=32M"] if how == "--postcopy=auto" and far is in_postcopy else [])]
    with far(scene, *args) as run:
        if far is in_postcopy:
            scene.source.set_parameters({"max-postcopy-bandwidth": 1 << 20})
        what(scene, run)
        scene.proxy.mend()
        with contextlib.suppress(QemuDied):
            scene.source.set_parameters({"max-postcopy-bandwidth": 0})
        judge(scene, run.end(90))


# ---- 'receive' and 'send', which have one monitor each ----


def receive(scene: Scene, *args: str) -> str:
    return ctl(scene.hosts.destination, "receive", "web1", f"--qmp={scene.destination.qmp_path}",
               f"--endpoint={scene.proxy.endpoint}", "--resume-timeout=2", *args).succeeds().out


def send(scene: Scene, ticket: str, *args: str) -> Running:
    return Running(scene.hosts.source, "send", "web1", f"--qmp={scene.source.qmp_path}", "--resume-timeout=2", *args,
                   stdin=ticket)


@pytest.mark.parametrize("how", [[], ["--postcopy"]])
def test_two_halves(scene: Scene, how: list[str]) -> None:
    """The VM runs at the destination once the source has let go, and QEMU there is as it was."""
    before = states(scene.destination)
    ticket = receive(scene, *how)
    with send(scene, ticket, *how, "--downtime-limit=9s") as run:
        run.end(90).succeeds()
    scene.destination.wait_until(lambda: scene.destination.status() == "running", "it to run there", 60)
    scene.destination.wait_until(lambda: states(scene.destination) == before, "the settings of before", 60)
    scene.pair.assert_unharmed()


@pytest.mark.long
def test_two_halves_that_differ(scene: Scene) -> None:
    """QEMU at the destination waits for more connections than come, and neither says a word."""
    with send(scene, receive(scene, "--multifd=2")) as run:
        assert run.process.stderr
        assert any("was --multifd= given to 'receive' as here?" in line for line in run.process.stderr)
        run.interrupt()
        run.end(90).fails(CANCELLED, HERE)
    scene.assert_stays(SOURCE)


def switchover_of_halves(scene: Scene) -> Running:
    run = send(scene, receive(scene), "--downtime-limit=60s")
    scene.hold_last_word()
    scene.destination.wait_until(lambda: scene.destination.query_migrate().get("status") == "completed",
                                 "all to arrive", 60)
    assert scene.where() == NEITHER
    return run


@pytest.mark.parametrize("what", [cut, ctrl_c, cancel, monitor_cancels])
def test_two_halves_at_the_switchover(scene: Scene, what) -> None:  # type: ignore[no-untyped-def]
    """'send' cannot ask the destination, and says so; the VM stands still there all the same."""
    with switchover_of_halves(scene) as run:
        what(scene, run)
        run.end(90).fails(BOTH_RUN, "runs on at the source", "query-status")
    scene.assert_stays(SOURCE)
    scene.proxy.mend()
    ctl(scene.hosts.destination, "wait", "web1", "-q")
    scene.assert_stays(SOURCE)


def test_two_halves_of_a_paused_vm(scene: Scene) -> None:
    """It stays paused; what is not told so refuses it, before the ticket is used."""
    scene.source.execute("stop")
    ticket = receive(scene, "--paused")
    with send(scene, ticket) as run:
        run.end().fails(FAILED, "is paused", "--paused")
    with send(scene, ticket, "--paused") as run:
        run.end(90).succeeds()
    ctl(scene.hosts.destination, "wait", "web1", "-q")
    scene.assert_stays(NEITHER)
    assert scene.destination.status() == "paused"


# ---- vmferryctl is killed ----


@pytest.mark.parametrize("far", [first_pass, switchover, in_postcopy] if LONG else [switchover])
def test_killed(scene: Scene, far) -> None:  # type: ignore[no-untyped-def]
    """The same command with --resume takes it over."""
    with far(scene, *(["--postcopy"] if far is in_postcopy else [])) as run:
        run.process.kill()
        run.end()
        scene.where()
        scene.speed_up()
        if far is switchover:
            scene.hold_last_word("0")
            scene.source.wait_migration({"completed"}, 30)
            scene.assert_stays(NEITHER)
        result = scene.resume()
    assert result.status == DONE and "At the destination it is running" in result.err, result
    scene.assert_stays(DESTINATION)
    scene.pair.assert_unharmed()


# ---- Capabilities ----


def states(qemu: Qemu) -> dict[str, bool]:
    return {one["capability"]: one["state"] for one in qemu.execute("query-migrate-capabilities")}


@pytest.mark.parametrize("left", ["pause-before-switchover", "x-colo", "multifd", "postcopy-ram"])
def test_capability_left_on(scene: Scene, left: str) -> None:
    """By something else, in the source's QEMU; what the destination's had is there again afterwards."""
    scene.source.set_capabilities({left: True})
    before = states(scene.source), states(scene.destination)
    result = ctl(scene.hosts.source, *scene.words, "--downtime-limit=60s", timeout=90).succeeds()
    assert "At the destination it is running" in result.err
    assert (states(scene.source), states(scene.destination)) == before
    scene.assert_stays(DESTINATION)
    scene.pair.assert_unharmed()


@pytest.mark.parametrize("how", ["--postcopy", "--multifd=2"])
def test_settings_are_put_back(scene: Scene, how: str) -> None:
    before = states(scene.destination)
    ctl(scene.hosts.source, *scene.words, how, "--downtime-limit=60s", timeout=90).succeeds()
    assert states(scene.destination) == before
