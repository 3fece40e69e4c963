# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl moves a real guest between two hosts' networks, over a real ssh; and brings it through a lost network."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.broker import wait_until
from vmlib.ctl import CANCELLED, FAILED, PROGRAM, Running, Terminal, ctl
from vmlib.hosts import kill
from vmlib.migration import Pair
from vmlib.network import Network
from vmlib.two_hosts import Scene

MIB = 64
SLOW = "--bandwidth=8M"

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu", "needs_postcopy"),
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")]


@pytest.fixture
def scene(workdir: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    listens = getattr(request, "param", f"tcp:{Network.address_b}:0")
    with Network() as network, Pair(workdir, MIB) as pair:
        made = Scene(workdir, network, pair, listens)
        yield made
        made.close()


UNREACHABLE = pytest.mark.parametrize("scene", ["tcp:127.0.0.1:0"], indirect=True)


def tickets_that_all_can_see() -> list[str]:
    """Processes with a ticket in their command line or environment."""
    found = []
    for path in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        try:
            if b"vmferry1:" in path.read_bytes():
                found.append(str(path))
        except OSError:
            pass
    return found


def test_migrate(scene: Scene) -> None:
    with scene.begin("--postcopy", "--bandwidth=24M") as run:
        while run.process.poll() is None:
            assert not tickets_that_all_can_see()
        scene.judge(run.end())
    assert ctl(scene.a, "show", "web1", "-p", "Peer", "--value").out.startswith(f"tcp:{scene.network.address_b}:")


@UNREACHABLE
@pytest.mark.parametrize("how", [["--postcopy"], ["--multifd=2", "--downtime-limit=60s"]])
def test_all_through_ssh(scene: Scene, how: list[str]) -> None:
    """From one host to the other only sshd can be reached."""
    scene.at(scene.a, *scene.words, *how).fails(FAILED, "could not be connected", "127.0.0.1")
    for broker in (scene.a, scene.b):
        for migration in broker.list():
            ctl(broker, "wait", "-q", migration[0])
            ctl(broker, "forget", migration[0]).succeeds()
    scene.judge(scene.migrate("--ssh", *how))


@pytest.mark.parametrize("how", [["--postcopy"], ["--postcopy", "--ssh"]])
def test_from_a_third_place(scene: Scene, how: list[str]) -> None:
    """vmferryctl is at neither end: it speaks ssh to both."""
    scene.judge(ctl(None, "-H", "host1", *scene.words, *how, env=scene.third, timeout=150))


@UNREACHABLE
def test_ctrl_c_in_precopy_through_ssh(scene: Scene) -> None:
    with scene.begin("--ssh", SLOW) as run:
        scene.pair.wait_transferred(4 << 20)
        run.interrupt()
        run.end().fails(CANCELLED, "web1", "runs on at the source")
    scene.pair.source.wait_sweeps(2)


@UNREACHABLE
def test_detached_in_postcopy_through_ssh(scene: Scene) -> None:
    """The ssh connections that carry it outlive vmferryctl, and end with the migration."""
    with scene.begin("--ssh", "--postcopy", SLOW) as run:
        scene.wait_in_postcopy()
        run.interrupt()
        run.end().fails(FAILED, "web1", "goes on by itself")
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    scene.pair.wait_completed()
    for broker in (scene.a, scene.b):
        ctl(broker, "wait", "web1").succeeds()
    scene.pair.assert_unharmed()


@UNREACHABLE
@pytest.mark.parametrize("persist", ["", "ControlPersist 30"])
def test_detached_where_connections_are_shared(scene: Scene, workdir: Path, persist: str) -> None:
    """By the user's ssh_config. Each channel has a connection of its own all the same, and outlives vmferryctl."""
    scene.share(f"ControlMaster auto\nControlPath {workdir}/cm-%C\n{persist}")
    with scene.begin("--ssh", "--postcopy", SLOW, "--resume-timeout=5") as run:
        scene.wait_in_postcopy()
        wait_until(lambda: scene.sshds[1].connections() == 2 + 3, "the bus, the monitor; control and what channels_of() says")
        run.interrupt()
        run.end().fails(FAILED, "web1", "goes on by itself")
    wait_until(lambda: scene.sshds[1].connections() == 3, "the end of what was only vmferryctl's", 60)
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    scene.pair.wait_completed()
    for broker in (scene.a, scene.b):
        ctl(broker, "wait", "web1").succeeds()
    scene.pair.assert_unharmed()
    assert not list(workdir.glob("cm-*"))


@UNREACHABLE
@pytest.mark.parametrize("ends", ["ctrl-c", "killed"])
def test_asked_once_for_all_channels(scene: Scene, workdir: Path, ends: str) -> None:
    """One connection carries all. It outlives vmferryctl, and ends with the migration."""
    sshd, run = scene.sshds[1], workdir / "run"
    sshd.lock_key("open sesame")
    run.mkdir()
    with Terminal(workdir, columns=200) as terminal:
        terminal.type(f"export VMFERRY_SSH={shlex.quote(scene.env['VMFERRY_SSH'])} XDG_RUNTIME_DIR={run}; clear")
        terminal.key("Enter")
        terminal.wait_for(r"\A\$ *$")
        terminal.run([*scene.prefix, str(PROGRAM), f"--address={scene.a.bus.address}", *scene.words, "--ssh", "--postcopy",
                      SLOW])
        terminal.wait_for("Enter passphrase for key")
        terminal.type("open sesame")
        terminal.key("Enter")
        scene.wait_in_postcopy()
        assert sshd.connections() == 1
        if ends == "ctrl-c":
            terminal.key("C-c")
            screen = terminal.wait_for("goes on by itself")
            assert len(re.findall("Enter passphrase", screen)) == 1, screen
            terminal.wait_for(r"^\$\s*\Z")
            assert list(run.iterdir()) == []
        else:
            found = subprocess.run(["pgrep", "-o", "-f", f"^{PROGRAM} .*{scene.pair.source.qmp_path}"], check=True,
                                   capture_output=True, text=True)
            os.kill(int(found.stdout), signal.SIGKILL)
            terminal.wait_for("Killed")
        assert scene.pair.source.query_migrate()["status"] == "postcopy-active" and sshd.connections() == 1
        scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
        scene.pair.wait_completed()
        for broker in (scene.a, scene.b):
            ctl(broker, "wait", "web1").succeeds()
        wait_until(lambda: sshd.connections() == 0, "the end of ssh's connection", 60)
    scene.pair.assert_unharmed()


@pytest.mark.parametrize("back", [True, False], ids=["back", "away"])
def test_the_way_to_the_source_is_lost(scene: Scene, back: bool) -> None:
    """vmferryctl is at a third place. Its ssh to the source's host ends; there is another one, or none."""
    sshd = scene.sshds[0]
    with Running(None, "-H", "host1", *scene.words, SLOW, env=scene.third) as run:
        scene.pair.wait_transferred(2 << 20)
        sessions = sshd.sessions()
        assert sessions
        if not back:
            sshd.close()
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):  # of two of one connection, the other may end with the first
                kill(pid)
        if not back:
            assert run.process.stderr
            said = next(line for line in run.process.stderr if "unreachable" in line)
            assert re.search(r"no connection to host1 for \d+ s, trying again \(ssh to host1 failed: ", said), said
            run.interrupt()
            run.end().fails(FAILED, "goes on without vmferryctl", "stands still until then", "--resume")
        scene.pair.source.set_parameters({"max-bandwidth": 1 << 40, "downtime-limit": 60_000})
        if back:
            scene.judge(run.end())
            return
    scene.pair.source.wait_migration({"completed"}, 60)
    assert scene.pair.destination.status() == "paused"
    sshd.start()
    ctl(None, "-H", "host1", *scene.words, "--resume", env=scene.third).succeeds()
    assert scene.pair.destination.status() == "running"
    scene.pair.assert_unharmed()


def test_short_cut_goes_unnoticed(scene: Scene) -> None:
    with scene.begin("--postcopy", SLOW) as run:
        scene.wait_in_postcopy()
        scene.network.cut()
        assert run.process.stderr
        for line in run.process.stderr:
            if "interrupted" in line:
                break
        scene.network.mend()
        scene.pair.source.set_parameters({"max-postcopy-bandwidth": 16 << 20})
        result = run.end()
    scene.judge(result)
    assert ctl(scene.a, "show", "web1", "-p", "Reconnects", "--value").out != "0\n"


def test_paused_postcopy_recovers_by_itself(scene: Scene) -> None:
    """--postcopy=auto: the network is away for longer than the tunnel bridges."""
    with scene.begin("--postcopy=auto", "--bandwidth=24M", "--resume-timeout=1") as run:
        scene.wait_in_postcopy()
        scene.pair.source.set_parameters({"max-postcopy-bandwidth": 4 << 20})
        scene.network.cut()
        for qemu in (scene.pair.source, scene.pair.destination):
            qemu.wait_migration({"postcopy-paused"}, 60)
        scene.network.mend()
        scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
        result = run.end(120)
    scene.judge(result)
    assert "paused" in result.err and "resumed as soon as" in result.err


def test_paused_postcopy_is_resumed(scene: Scene) -> None:
    """By 'receive --resume' and 'send --resume', through the same migration."""
    ticket = scene.at(scene.b, "receive", "web1", f"--qmp={scene.pair.destination.qmp_path}", "--postcopy",
                      "--resume-timeout=1").succeeds().out
    with Running(scene.a, "send", "web1", f"--qmp={scene.pair.source.qmp_path}", "--postcopy", SLOW,
                 "--resume-timeout=1", stdin=ticket) as run:
        scene.wait_in_postcopy()
        scene.network.cut()
        run.end(90).fails(FAILED, "web1", "paused", "nothing is lost", "receive", "--resume", "send")
    scene.pair.destination.wait_migration({"postcopy-paused"}, 60)
    scene.network.mend()
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    again = scene.at(scene.b, "receive", "web1", f"--qmp={scene.pair.destination.qmp_path}", "--resume").succeeds()
    assert again.out == "", "the migration is the same: it needs no ticket"
    scene.judge(scene.at(scene.a, "send", "web1", f"--qmp={scene.pair.source.qmp_path}", "--resume"))
