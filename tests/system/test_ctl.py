# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl between two booted hosts: from one of them, through ssh alone, and from a third place."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from vmlib.ctl import PROGRAM, environment
from vmlib.migration import Pair
from vmlib.nspawn import TwoHosts
from vmlib.sshd import PORT, Sshd

PATH = "/usr/bin:/bin"


class Scene:
    """An sshd on each host, and a QEMU: the source on a, the destination on b."""

    def __init__(self, hosts: TwoHosts, workdir: Path, stack: ExitStack) -> None:
        self.hosts = hosts
        sshds = [stack.enter_context(Sshd(workdir, tuple(host.enter_light), host.address, f"host{host.name}", path=PATH,
                                          proxied=True)) for host in hosts]
        text = "".join(sshd.config.read_text() for sshd in sshds)
        self._third = workdir / "ssh_config_third"
        self._third.write_text(text)
        self._near = workdir / "ssh_config_near"
        self._near.write_text(re.sub(r"  ProxyCommand .*\n", "", text))
        self.pair = stack.enter_context(Pair(workdir, 64, prefixes=(hosts.a.enter_light, hosts.b.enter_light)))
        self.pair.source.set_parameters({"downtime-limit": 300})
        self.pair.source.wait_sweeps(1)

    @property
    def words(self) -> list[str]:
        return ["migrate", "web1", "hostb", f"--qmp={self.pair.source.qmp_path}",
                f"--dst-qmp={self.pair.destination.qmp_path}"]

    def at_a(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.hosts.a.run("env", f"VMFERRY_SSH=ssh -F {self._near}", "vmferryctl", *args, check=check, timeout=120)

    def from_a_third_place(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Out here, where there is no broker: it has a door to the sshd of each host, and nothing else."""
        return subprocess.run([PROGRAM, "-H", "hosta", *args], capture_output=True, text=True, timeout=120,
                              env=environment({"VMFERRY_SSH": f"ssh -F {self._third}"}))

    def judge(self, done: subprocess.CompletedProcess[str], peer: str) -> None:
        assert done.returncode == 0, done
        assert re.search(r"^web1: done after .*; it stood still for .* At the destination it is running", done.stderr, re.M)
        self.pair.assert_unharmed()
        record = {host.name: host.run("vmferryctl", "show", "web1").stdout for host in self.hosts}
        for text in record.values():
            assert "\nResult=done\n" in text and "\nSecurity=tls\n" in text
        assert re.search(rf"^Peer={peer}", record["a"], re.M), record["a"]


@pytest.fixture
def scene(needs_postcopy: None, hosts: TwoHosts) -> Iterator[Scene]:
    workdir = Path(tempfile.mkdtemp(dir=hosts.shared))
    with ExitStack() as stack:
        yield Scene(hosts, workdir, stack)


@pytest.fixture
def only_ssh(hosts: TwoHosts) -> Iterator[None]:
    """Of the ports of b only ssh's can be reached from a."""
    rules = [["to", hosts.b.address, "ipproto", "tcp", "dport", ports, "blackhole"]
             for ports in (f"1-{PORT - 1}", f"{PORT + 1}-65534")]  # the kernel takes no 65535
    with ExitStack() as stack:
        for rule in rules:
            hosts.a.run("ip", "rule", "add", *rule)
            stack.callback(hosts.a.run, "ip", "rule", "delete", *rule)
        yield


@pytest.mark.parametrize("how", ["--postcopy", "--postcopy=auto"])
def test_migrate(scene: Scene, how: str) -> None:
    scene.judge(scene.at_a(*scene.words, how), rf"tcp:{scene.hosts.b.address}:16520")


def test_only_port_22_is_open(scene: Scene, only_ssh: None) -> None:
    refused = scene.at_a(*scene.words, "--postcopy", "--expire=5", check=False)
    assert refused.returncode in (1, 4) and "could not be connected" in refused.stderr, refused
    for host in scene.hosts:
        host.run("vmferryctl", "wait", "-q", "web1", check=False)
    scene.judge(scene.at_a(*scene.words, "--postcopy", "--ssh"), "unix:")


@pytest.mark.parametrize("ssh", [[], ["--ssh"]])
def test_from_a_third_place(scene: Scene, ssh: list[str]) -> None:
    done = scene.from_a_third_place(*scene.words, "--postcopy", *ssh)
    scene.judge(done, "unix:" if ssh else rf"tcp:{scene.hosts.b.address}:16520")


def test_check(scene: Scene) -> None:
    done = scene.at_a("check", "hostb")
    for name in ("broker", "versions", "endpoints", "migration", "clock", "tunnel", "speed", "round trip"):
        assert re.search(rf"^(ok  |warn)  {name} ", done.stdout, re.M), done.stdout


def test_check_finds_the_firewall(scene: Scene, only_ssh: None) -> None:
    done = scene.at_a("check", "hostb", check=False)
    assert done.returncode == 1, done
    assert re.search(rf"^FAIL  tunnel +.*{scene.hosts.b.address}:16520.*\n.*→ .*firewall.*--ssh", done.stdout, re.M), done


def test_not_authorized(hosts: TwoHosts) -> None:
    """alice may look, and no more."""
    hosts.a.run("vmferryctl", "list", user="alice")
    done = hosts.a.run("vmferryctl", "receive", "web1", user="alice", check=False)
    assert done.returncode == 5 and done.stderr.count("vmferryctl: ") == 1, done
    assert "web1" not in hosts.a.run("vmferryctl", "list").stdout


def test_the_bus_starts_the_broker(hosts: TwoHosts) -> None:
    hosts.a.systemctl("stop", "vmferryd.service")
    assert re.match(r"vmferryd \d", hosts.a.run("vmferryctl", "status").stdout)
    assert hosts.a.broker_pid


def test_completions_are_installed(hosts: TwoHosts) -> None:
    for path in ("bash-completion/completions/vmferryctl", "zsh/vendor-completions/_vmferryctl",
                 "doc/vmferry/examples/vmferry-metrics.timer", "man/man1/vmferryctl.1.gz"):
        assert hosts.a.outside(f"/usr/share/{path}").exists(), path
