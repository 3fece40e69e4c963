# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl and another host, over a real ssh: what works, and what is said when it does not."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vmlib.broker import Broker
from vmlib.ctl import (CANCELLED, DONE, FAILED, PROGRAM, TIMED_OUT, USAGE, Result, Running, ctl, environment,
                       wait_all_finished)
from vmlib.network import Network
from vmlib.sshd import Sshd

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")


class Two:
    """Two hosts: namespaces, a broker in each, an sshd in the second one."""

    def __init__(self, workdir: Path, network: Network) -> None:
        self.network = network
        self.a = Broker(workdir, "a", netns=network.a)
        self.b = Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0")
        self.sshd = Sshd(workdir, ("ip", "netns", "exec", network.b), network.address_b, bus=self.b.bus.address)
        self.prefix = ("ip", "netns", "exec", network.a)

    def ctl(self, *args: str, broker: Broker | None = None, stdin: str = "", **env: str) -> Result:
        """As somebody at the first host."""
        return ctl(broker or self.a, *args, stdin=stdin, env={**self.sshd.env(), **env}, prefix=self.prefix)

    def remote(self, *args: str, stdin: str = "", **env: str) -> Result:
        """The same with -H: the first host's broker has no part in it."""
        return ctl(None, "-H", "host2", *args, stdin=stdin, env={**self.sshd.env(), **env}, prefix=self.prefix)

    def close(self) -> None:
        self.sshd.close()
        wait_all_finished(self.a, self.b)
        for broker in (self.a, self.b):
            broker.close()


@pytest.fixture
def two(workdir: Path) -> Iterator[Two]:
    with Network() as network:
        hosts = Two(workdir, network)
        yield hosts
        hosts.close()


def test_verbs_at_another_host(two: Two) -> None:
    migration = two.b.prepare("web1")
    assert migration.id in two.remote("list").succeeds().out
    assert two.remote("status", "web1", "-j").json()["Id"] == migration.id
    assert two.remote("status").out.startswith(f"vmferryd {two.b.get('Version')} at host2\n")
    two.remote("cancel", "web1").succeeds()
    two.remote("wait", "web1").fails(CANCELLED, "web1")
    two.remote("forget", "web1").succeeds()
    assert two.b.list() == []
    two.remote("show", "none").fails(FAILED, "'none' at host2")


def test_receive_at_another_host(two: Two) -> None:
    """The way of two commands and a pipe: the ticket is on no command line and in no file."""
    ticket = two.remote("receive", "web1").succeeds().out
    assert ticket.startswith("vmferry1:")
    two.ctl("send", "web1", stdin=ticket).succeeds()
    assert two.ctl("show", "web1", "-p", "State", "--value").out == "connected\n"
    two.ctl("cancel", "web1").succeeds()
    two.remote("wait", "web1").fails(CANCELLED)


def test_check_of_another_host(two: Two) -> None:
    result = two.ctl("check", "host2")
    assert result.status == DONE, result
    for what in ("vmferryd", "answers at host2", "versions", "endpoints", "clock", "tunnel", "speed", "round trip"):
        assert re.search(rf"^(ok  |warn)  .*{what}|answers at host2", result.out, re.M), (what, result)
    assert f"tcp:{two.network.address_b}:" in result.out and "FAIL" not in result.out
    assert [entry for broker in (two.a, two.b) for entry in broker.list()] == []


def test_check_finds_a_closed_port(two: Two, workdir: Path) -> None:
    """The other host announces an address where nobody listens, as behind a firewall that refuses."""
    two.b.stop()
    two.b.args = ()
    two.b.listen = "tcp:127.0.0.1:0"
    two.b.start()
    result = two.ctl("check", "host2")
    assert result.status == FAILED, result
    assert re.search(r"^FAIL  tunnel +.*127\.0\.0\.1.*\n +→ .*firewall.*--ssh", result.out, re.M), result
    assert re.search(r"^warn  endpoints .*loopback", result.out, re.M), result
    assert [entry for broker in (two.a, two.b) for entry in broker.list()] == []


def test_check_when_ssh_fails(two: Two) -> None:
    two.sshd.close()
    result = two.ctl("check", "host2")
    assert result.status == FAILED and re.search(r"^FAIL  bus .*host2.*refused", result.out, re.M), result
    two.sshd.start()


# ---- ssh that fails ----


def migrate(two: Two, *args: str, **env: str) -> Result:
    return two.ctl("migrate", "web1", "host2", "--qmp=/x", "--dst-qmp=/y", *args, **env)


def test_nobody_listens(two: Two) -> None:
    two.sshd.close()
    for result in (migrate(two), two.remote("list")):
        result.fails(FAILED, "ssh to host2 failed", "refused", "'ssh host2 true'")
    two.sshd.start()


def test_host_is_not_known(two: Two) -> None:
    words = ["migrate", "web1", "nowhere.invalid", "--qmp=/x", "--dst-qmp=/y"]
    two.ctl(*words).fails(FAILED, "nowhere.invalid", "resolve")


def test_key_is_refused(two: Two, workdir: Path) -> None:
    (workdir / "ssh-host2" / "user.pub").write_text("")
    for result in (migrate(two), two.remote("list")):
        result.fails(FAILED, "host2", "Permission denied")


def test_host_key_changed(two: Two, workdir: Path) -> None:
    (workdir / "ssh-host2" / "known_hosts").write_text("host2 " + (workdir / "ssh-host2" / "user.pub").read_text())
    migrate(two).fails(FAILED, "host2", "Host key verification failed")


def test_no_ssh(two: Two) -> None:
    migrate(two, VMFERRY_SSH="/nonexistent/ssh").fails(FAILED, "/nonexistent/ssh", "No such file")


def test_no_vmferryctl_there(two: Two, workdir: Path) -> None:
    config = workdir / "ssh-host2" / "sshd_config"
    config.write_text(re.sub(r"PATH=\S+", "PATH=/usr/bin:/bin", config.read_text()))
    two.sshd.close()
    two.sshd.log.unlink()
    two.sshd.start()
    migrate(two).fails(FAILED, "There is no vmferryctl at host2", "Install")


def test_start_up_file_that_talks(two: Two, workdir: Path) -> None:
    wrapper = workdir / "bin"
    wrapper.mkdir()
    (wrapper / "vmferryctl").write_text("#!/bin/sh\necho Welcome to this host\n")
    (wrapper / "vmferryctl").chmod(0o755)
    config = workdir / "ssh-host2" / "sshd_config"
    config.write_text(re.sub(r"PATH=\S+", f"PATH={wrapper}:/usr/bin:/bin", config.read_text()))
    two.sshd.close()
    two.sshd.log.unlink()
    two.sshd.start()
    migrate(two).fails(FAILED, "'Welcome to this host'", "start-up file")


def test_bus_is_not_there(two: Two) -> None:
    two.b.stop()
    two.remote("list").fails(FAILED, "vmferryd is not on this bus")
    two.b.start()


def test_monitor_is_not_there(two: Two) -> None:
    """The far end says what a near one would, and where."""
    two.remote("receive", "web1", "--qmp=/nonexistent").fails(FAILED, "At host2:", "/nonexistent", "-qmp unix:PATH")
    assert two.b.list() == []


def test_bad_hosts(two: Two) -> None:
    for host in ("-oProxyCommand=true", "-H"):
        ctl(None, f"--host={host}", "list", env=two.sshd.env()).fails(USAGE, host)


def test_arguments_are_not_for_the_shell(two: Two, workdir: Path) -> None:
    name = f"/x'; touch {workdir}/touched; echo '$(id)"
    two.remote("receive", "web1", f"--qmp={name}").fails(FAILED, "$(id)", "touch")
    assert not (workdir / "touched").exists()


def test_network_is_cut(two: Two) -> None:
    """While it watches: it says so, and does not hang."""
    migration = two.b.prepare("web1")
    with Running(None, "-H", "host2", "watch", "web1", env=two.sshd.env(), prefix=two.prefix) as run:
        assert run.process.stderr and "waiting" in run.process.stderr.readline()
        two.network.cut()
        result = run.end(60)
        assert result.status in (FAILED, TIMED_OUT) and "host2" in result.err, result
    two.network.mend()
    migration.cancel()


# ---- What it reaches there ends ----


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        yield listener
    path.unlink()


@pytest.mark.parametrize("what", ["qmp", "bus"])
def test_the_far_end_ends_with_what_it_reached(workdir: Path, what: str) -> None:
    """Its stdin stays open, as ssh leaves it: the other side of that does not know that there is nobody any more."""
    words = ["qmp", str(workdir / "far")] if what == "qmp" else ["bus", f"--address=unix:path={workdir}/far"]
    with listening(workdir / "far") as listener, subprocess.Popen(
            [str(PROGRAM), "stdio", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as run:
        far, _ = listener.accept()
        far.sendall(b"last words")
        far.close()
        assert run.stdout and run.stdout.read().endswith(b"\nlast words")
        assert run.wait(10) == DONE


def test_the_far_monitor_closes(two: Two, workdir: Path) -> None:
    """It answers nothing and goes: that is heard of at once, and not when the time to answer is over."""
    def serve() -> None:
        far, _ = listener.accept()
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
        far.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\r\n")
        far.recv(4096)
        far.close()

    with listening(workdir / "monitor") as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        two.remote("receive", "web1", f"--qmp={workdir}/monitor").fails(FAILED, "qmp_capabilities",
                                                                        "closed the connection")
        assert time.monotonic() - began < 15
        thread.join()
