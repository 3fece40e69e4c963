# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every vmferryctl command line of the README and of vmferryctl(1) is run, and does what is said there.

The paths of monitors stand for those of the test's QEMUs; the rest is run as it is written, by a shell at the first host.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmlib.broker import ROOT
from vmlib.ctl import Result, environment, wait_all_finished
from vmlib.hosts import kill
from vmlib.migration import Pair
from vmlib.network import Network
from vmlib.two_hosts import Scene


pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu", "needs_postcopy"),
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")]

MONITOR = "/run/qemu/web1.qmp"


def documented() -> list[str]:
    """The command lines of README and page, without their comments."""
    readme = (ROOT / "README.md").read_text()
    page = (ROOT / "docs" / "vmferryctl.1.rst").read_text()
    # What a user of the hosts types is typed in tests/system/test_readme.py, where there are such users.
    lines = [line for block in re.findall(r"```sh\n(.*?)```", readme, re.S) for line in block.splitlines()
             if "vmferryctl --user " not in line]
    lines += [line.strip() for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", page) for line in block.splitlines()]
    found = [re.sub(r"\s+#.*", "", line) for line in lines if re.match(r"(ssh host2 )?vmferryctl ", line)]
    return list(dict.fromkeys(found))


@pytest.fixture
def scene(workdir: Path) -> Iterator[Scene]:
    with Network() as network, Pair(workdir, 32) as pair:
        made = Scene(workdir, network, pair, f"tcp:{Network.address_b}:0")
        yield made
        made.close()


class Shell:
    """At the first host, where vmferryctl and ssh are as the documents take them to be."""

    def __init__(self, scene: Scene, workdir: Path) -> None:
        self.scene, self.workdir = scene, workdir
        tools = workdir / "bin"
        tools.mkdir()
        (tools / "ssh").write_text(f"#!/bin/sh\nexec /usr/bin/{scene.env['VMFERRY_SSH']} \"$@\"\n")
        (tools / "ssh").chmod(0o755)
        self._env = environment({"DBUS_SYSTEM_BUS_ADDRESS": scene.a.bus.address})
        self._env["PATH"] = f"{tools}:{self._env['PATH']}"

    def run(self, line: str, at: str = "a") -> Result:
        pair, network = self.scene.pair, self.scene.network
        line = line.replace(f"--dst-qmp={MONITOR}", f"--dst-qmp={pair.destination.qmp_path}")
        near = pair.source if at == "a" else pair.destination
        line = re.sub(rf"(receive .*?--qmp=){MONITOR}", rf"\g<1>{pair.destination.qmp_path}", line)
        line = line.replace(f"--qmp={MONITOR}", f"--qmp={near.qmp_path}")
        line = line.replace("/var/lib/prometheus/node-exporter", str(self.workdir))
        broker = self.scene.a if at == "a" else self.scene.b
        netns = network.a if at == "a" else network.b
        run = subprocess.run(["ip", "netns", "exec", netns, "bash", "-o", "pipefail", "-c", line],
                             env={**self._env, "DBUS_SYSTEM_BUS_ADDRESS": broker.bus.address}, cwd=self.workdir,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150)
        return Result([line], run.returncode, run.stdout, run.stderr)


def moves(shell: Shell, *lines: str) -> None:
    """The lines move the guest; what is said before the last one must only work."""
    for line in lines[:-1]:
        shell.run(line, "b" if line.startswith("vmferryctl receive") else "a").succeeds()
    result = shell.run(lines[-1]).succeeds()
    if "-q" not in lines[-1].split():
        assert "web1: done after" in result.err, result
    else:
        assert result.json()["Result"] == "done"
    shell.scene.pair.assert_unharmed()


def pause(shell: Shell) -> None:
    """A post-copy begins, and its helper at the source dies."""
    with shell.scene.begin("--postcopy", "--bandwidth=4M", "--resume-timeout=0") as run:
        shell.scene.wait_in_postcopy()
        kill(shell.scene.a.helpers()[-1])
        assert "paused" in run.end().err
    shell.scene.pair.destination.wait_migration({"postcopy-paused"}, 30)
    shell.scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})


def resumed_by_hand(shell: Shell, receive: str, send: str) -> None:
    """Through the migration that both still have: the network was away for long, and is back."""
    scene = shell.scene
    with scene.begin("--postcopy", "--bandwidth=4M", "--resume-timeout=1") as run:
        scene.wait_in_postcopy()
        scene.network.cut()
        assert "paused" in run.end(90).err
    scene.pair.destination.wait_migration({"postcopy-paused"}, 60)
    scene.network.mend()
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    moves(shell, receive, send)


def looked_at(shell: Shell, lines: list[str]) -> None:
    """What one does while a migration is under way, and afterwards."""
    with shell.scene.begin("--bandwidth=4M") as run:
        shell.scene.pair.wait_transferred(1 << 20)
        run.process.kill()  # it goes on without the one that began it, and its monitor is free
    for line in lines:
        verb = line.split()[1]
        if verb in ("watch", "wait", "forget"):
            continue
        result = shell.run(line).succeeds()
        if verb in ("list", "status", "metrics"):
            written = shell.workdir / "vmferry.prom"
            assert "web1" in (written.read_text() if "--output" in line else result.out), result
        if verb == "show":
            assert re.fullmatch(r"active\n\d+\n", result.out), result
        if verb == "limit":
            assert "BandwidthLimit=104857600" in shell.run("vmferryctl show web1").out
    for verb in ("watch", "wait"):
        (line,) = [line for line in lines if line.startswith(f"vmferryctl {verb}")]
        # QEMU ended it first, and all that it had sent may have been delivered by then.
        assert shell.run(line).status in (0, 1, 3), "it says how it ended"
    shell.scene.pair.source.wait_migration({"cancelled", "failed"})
    shell.scene.pair.source.wait_sweeps(1)
    (forget,) = [line for line in lines if line.startswith("vmferryctl forget")]
    shell.run(forget).succeeds()
    assert shell.run("vmferryctl list").out == "0 migrations.\n"


MIGRATE = "vmferryctl migrate web1 host2 --qmp=/run/qemu/web1.qmp --dst-qmp=/run/qemu/web1.qmp"
WITH_B = "vmferryctl -H host1 migrate web1 host2 --qmp=/run/qemu/web1.qmp --dst-qmp=/run/qemu/web1.qmp"
RECEIVE = "vmferryctl receive web1 --qmp=/run/qemu/web1.qmp"
SEND = "vmferryctl send web1 --qmp=/run/qemu/web1.qmp"
LOOK = [
    "vmferryctl list", "vmferryctl status web1", "vmferryctl show web1 -p State -p BytesSent --value",
    "vmferryctl limit web1 100M", "vmferryctl watch web1", "vmferryctl wait web1 --timeout=1h", "vmferryctl metrics",
    "vmferryctl metrics --output=/var/lib/prometheus/node-exporter/vmferry.prom",
    f"vmferryctl cancel web1 --qmp={MONITOR}", "vmferryctl forget web1",
]
STORIES: list[tuple[list[str], Callable[..., None]]] = [
    (["vmferryctl check host2", f"{MIGRATE} --postcopy"], moves),
    ([f"{MIGRATE} --postcopy=auto"], moves),
    ([f"{MIGRATE} --ssh --security=plain"], moves),
    ([WITH_B], moves),
    ([f"{MIGRATE} -j -q"], moves),
    ([f"ssh host2 {RECEIVE} | {SEND}"], moves),
    ([f"{RECEIVE} --postcopy > ticket", f"{SEND} --postcopy < ticket"], moves),
    ([f"{MIGRATE} --resume"], lambda shell, line: (pause(shell), moves(shell, line))),
    ([f"{RECEIVE} --resume", f"{SEND} --resume"], resumed_by_hand),
    (LOOK, lambda shell, *lines: looked_at(shell, list(lines))),
]


# Of domains of libvirt, which tests/system/test_libvirt*.py move by these verbs and options on booted hosts.
DOMAINS = [
    "vmferryctl migrate web1 host2 --postcopy=auto",
    "vmferryctl migrate web1 host2 --postcopy --disks",
    "vmferryctl receive web1 --libvirt > ticket",
    "vmferryctl send web1 --libvirt --multifd=4 < ticket",
    "vmferryctl tunnel web1 host2 --disks -- virsh migrate web1 {dest-uri} --live --p2p --copy-storage-all \\",
]


def test_each_line_is_run() -> None:
    assert sorted(documented()) == sorted([*(line for lines, _ in STORIES for line in lines), *DOMAINS])


@pytest.mark.parametrize("number", range(len(STORIES)))
def test_story(scene: Scene, workdir: Path, number: int) -> None:
    lines, story = STORIES[number]
    # The guest changes all of its memory all the time: where nothing is said about that, pre-copy must end all the same.
    if not any("postcopy" in line or "resume" in line for line in lines) and lines is not LOOK:
        scene.pair.source.set_parameters({"downtime-limit": 60_000})
    story(Shell(scene, workdir), *lines)
    wait_all_finished(scene.a, scene.b)
