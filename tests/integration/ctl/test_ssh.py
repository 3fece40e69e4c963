# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl and another host, over a real ssh: what works, and what is said when it does not."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vmlib.broker import Broker, wait_until
from vmlib.ctl import (CANCELLED, DONE, FAILED, PROGRAM, USAGE, Result, Running, Terminal, ctl,
                       environment, wait_all_finished)
from vmlib.network import Network, ip
from vmlib.sshd import Sshd
from vmlib.wire import Ticket

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")


class Two:
    """Two hosts: namespaces, a broker in each, an sshd in the second one."""

    def __init__(self, workdir: Path, network: Network) -> None:
        self.network = network
        self.a = Broker(workdir, "a", netns=network.a)
        self.b = Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0")
        self.sshd = Sshd(workdir, ("ip", "netns", "exec", network.b), network.address_b, bus=self.b.bus.address)
        self.prefix, self.prefix_b = (("ip", "netns", "exec", netns) for netns in (network.a, network.b))

    def ctl(self, *args: str, broker: Broker | None = None, stdin: str = "", **env: str) -> Result:
        """As somebody at the first host."""
        return ctl(broker or self.a, *args, stdin=stdin, env={**self.sshd.env(), **env}, prefix=self.prefix)

    def remote(self, *args: str, stdin: str = "", **env: str) -> Result:
        """The same with -H: the first host's broker has no part in it."""
        return ctl(None, "-H", "host2", *args, stdin=stdin, env={**self.sshd.env(), **env}, prefix=self.prefix)

    def close(self) -> None:
        self.sshd.close()
        try:
            wait_all_finished(self.a, self.b)
        finally:
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


@pytest.mark.parametrize("host", ["root@host2", "ssh://host2", "ssh://root@host2"])
def test_ways_to_write_a_host(two: Two, host: str) -> None:
    ctl(None, "-H", host, "list", env=two.sshd.env(), prefix=two.prefix).succeeds()


def test_receive_at_another_host(two: Two) -> None:
    """The way of two commands and a pipe: the ticket is on no command line and in no file."""
    ticket = two.remote("receive", "web1").succeeds().out
    assert ticket.startswith("vmferry1:")
    two.ctl("send", "web1", stdin=ticket).succeeds()
    assert two.ctl("show", "web1", "-p", "State", "--value").out == "connected\n"
    two.ctl("cancel", "web1").succeeds()
    two.remote("wait", "web1").fails(CANCELLED)


@contextmanager
def bus_over_tcp(two: Two) -> Iterator[str]:
    """Yields the address of the second host's bus, as the first host reaches it without ssh."""
    forward = subprocess.Popen([*two.prefix_b, "socat", f"TCP-LISTEN:1234,bind={two.network.address_b},fork,reuseaddr",
                                f"UNIX-CONNECT:{two.b.bus.address.removeprefix('unix:path=')}"])
    try:
        wait_until(lambda: subprocess.run([*two.prefix_b, "ss", "-Hltn", "sport = :1234"], check=True, capture_output=True,
                                          text=True).stdout != "", "socat", 60)
        yield f"tcp:host={two.network.address_b},port=1234"
    finally:
        forward.terminate()
        forward.wait()


def test_address_by_which_the_caller_came(two: Two) -> None:
    """By ssh or D-Bus. It is first in the ticket, before that of the default route, also of more than a ticket holds."""
    for n in range(20):
        ip("-n", two.network.b, "link", "add", f"br{n}", "type", "bridge")
        ip("-n", two.network.b, "address", "add", f"172.{n + 16}.0.1/16", "dev", f"br{n}")
        ip("-n", two.network.b, "link", "set", f"br{n}", "up")
    ip("-n", two.network.b, "route", "add", "default", "via", "172.30.0.2")
    two.b.stop()
    two.b.listen = "tcp:*:0"
    two.b.start()
    with bus_over_tcp(two) as bus:
        for receive, first in ((two.remote, [two.network.address_b, "172.30.0.1"]),
                               (lambda *words: ctl(None, f"--address={bus}", *words, prefix=two.prefix),
                                [two.network.address_b, "172.30.0.1"]),
                               (lambda *words: ctl(two.b, *words), ["172.30.0.1", two.network.address_b])):
            endpoints = Ticket.decode(receive("receive", "web1").succeeds().out.strip()).endpoints
            assert [one.split(":")[1] for one in endpoints[:2]] == first and len(endpoints) == 16, endpoints
            assert "5 of this host's are left out: tcp:172.3" in two.b.log()
            ctl(two.b, "cancel", "web1").succeeds()
            ctl(two.b, "wait", "-q", "web1").fails(CANCELLED)


def test_check_of_another_host(two: Two) -> None:
    result = two.ctl("check", "host2")
    assert result.status == DONE, result
    for what in ("vmferryd", "answers at host2", "versions", "endpoints", "clock", "tunnel", "speed", "round trip"):
        assert re.search(rf"^(ok  |warn)  .*{what}", result.out, re.M), (what, result)
    assert f"tcp:{two.network.address_b}:" in result.out and "FAIL" not in result.out
    assert [entry for broker in (two.a, two.b) for entry in broker.list()] == []


@pytest.mark.parametrize(("value", "word"), [("1", "Every QEMU at host3 may use userfaultfd."),
                                             ("0", "Only a QEMU with root's rights can receive a post-copy at host3.")])
def test_check_asks_the_other_host_about_postcopy(two: Two, workdir: Path, value: str, word: str) -> None:
    """The setting of the host that receives counts, not that of the host where it is asked."""
    setting, device = workdir / "setting", workdir / "device"
    setting.write_text(f"{value}\n")
    device.touch(0o600)
    mount = (f"mount --bind {setting} /proc/sys/vm/unprivileged_userfaultfd; "
             f"test ! -e /dev/userfaultfd || mount --bind {device} /dev/userfaultfd")
    two.sshd.close()
    with Sshd(workdir, (*two.prefix_b, "sh", "-ec", f'{mount}; exec "$@"', "sh"), two.network.address_b, "host3",
              bus=two.b.bus.address) as sshd:
        assert word in two.ctl("check", "host3", VMFERRY_SSH=sshd.client).out
    two.sshd.start()


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
    two.sshd.restart()
    migrate(two).fails(FAILED, "There is no vmferryctl at host2", "Install")


def test_start_up_file_that_talks(two: Two, workdir: Path) -> None:
    wrapper = workdir / "bin"
    wrapper.mkdir()
    (wrapper / "vmferryctl").write_text("#!/bin/sh\necho Welcome to this host\n")
    (wrapper / "vmferryctl").chmod(0o755)
    config = workdir / "ssh-host2" / "sshd_config"
    config.write_text(re.sub(r"PATH=\S+", f"PATH={wrapper}:/usr/bin:/bin", config.read_text()))
    two.sshd.restart()
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
        run.end(60).fails(FAILED, "the connection to host2 is lost", "the other host was silent for 15 s")
    two.network.mend()
    migration.cancel()


# ---- ssh as its user has it ----

BANNER = "Authorized uses only.\r\nAll activity may be monitored and reported.\n"


def wrap(two: Two, workdir: Path, before: str, after: str = "") -> None:
    """vmferryctl at the second host, with what a login script says around it."""
    wrapper = workdir / "bin" / "vmferryctl"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\n{before}\n{PROGRAM} \"$@\"\ns=$?\n{after}\nexit $s\n")
    wrapper.chmod(0o755)
    config = workdir / "ssh-host2" / "sshd_config"
    config.write_text(re.sub(r"PATH=\S+", f"PATH={wrapper.parent}:/usr/bin:/bin", config.read_text()))
    two.sshd.restart()


@pytest.fixture(params=["nothing", "banner", "new host key", "login script"])
def talking(two: Two, workdir: Path, request: pytest.FixtureRequest) -> Two:
    """Something else is said on ssh's stderr, too."""
    if request.param == "banner":
        (workdir / "banner").write_text(BANNER)
        two.sshd.add(server=f"Banner {workdir}/banner")
    elif request.param == "new host key":
        config = two.sshd.config.read_text()
        two.sshd.config.write_text(re.sub(r"UserKnownHostsFile .*", "UserKnownHostsFile /dev/null", config) +
                                   "  StrictHostKeyChecking accept-new\n")
    elif request.param == "login script":
        wrap(two, workdir, "printf 'vmferryctl: Welcome.\\r\\n** Be nice.\\r\\n' >&2", "printf 'Good bye.\\r\\n' >&2")
    return two


def test_far_words_among_others(talking: Two) -> None:
    """What the far end says is told without what is said beside it, and its exit status is kept."""
    result = talking.remote("receive", "web1", "--qmp=/nonexistent").fails(FAILED, "/nonexistent")
    assert result.err.startswith("vmferryctl: At host2: There is no QMP socket /nonexistent."), result
    result = talking.remote("receive", "web1", f"--qmp=/{'x' * 120}").fails(USAGE, "longer than 107 bytes")
    assert result.err.startswith("vmferryctl: At host2: The path of the QMP socket, "), result
    result = talking.remote("receive", "web1", f"--qmp=/{'x' * 3000}").fails(USAGE, "longer than 107 bytes")
    assert result.err.startswith("vmferryctl: At host2: The path of the QMP socket, "), result
    for text in (talking.remote("list").succeeds(), talking.remote("show", "none").fails(FAILED, "'none' at host2")):
        assert not re.search("Authorized|nice|Permanently|[?]", text.err), text


def test_no_far_words(talking: Two) -> None:
    """ssh itself fails: that is the reason, and nothing else is."""
    (talking.sshd.config.parent / "user.pub").write_text("")
    result = talking.remote("list").fails(FAILED, "Permission denied")
    assert re.fullmatch(r"vmferryctl: ssh to host2 failed: \S+: Permission denied \(\S+\)\. Does 'ssh host2 true' work\?\n",
                        result.err), result


def test_no_bus_and_a_banner(two: Two, workdir: Path) -> None:
    (workdir / "banner").write_text(BANNER)
    config = workdir / "ssh-host2" / "sshd_config"
    config.write_text(config.read_text().replace("/bus-b", "/no-such-bus"))
    two.sshd.add(server=f"Banner {workdir}/banner")
    result = two.remote("list").fails(FAILED, "no-such-bus", "Is it running?")
    assert result.err.startswith("vmferryctl: At host2: Cannot connect to the D-Bus at "), result


def test_lost_and_a_banner(two: Two, workdir: Path) -> None:
    """The connection ends while it watches: the reason is not what was said when it began."""
    (workdir / "banner").write_text(BANNER)
    two.sshd.add(server=f"Banner {workdir}/banner")
    migration = two.b.prepare("web1")
    with Running(None, "-H", "host2", "watch", "web1", env=two.sshd.env(), prefix=two.prefix) as run:
        assert run.process.stderr and "waiting" in run.process.stderr.readline()
        for pid in subprocess.run(["ps", "-o", "pid=", "--ppid", str(two.sshd.process.pid)], check=True, text=True,
                                  capture_output=True).stdout.split():
            os.kill(int(pid), signal.SIGTERM)
        result = run.end(30).fails(FAILED, "host2", "lost")
    assert "Authorized" not in result.err and "?" not in result.err, result
    migration.cancel()


LOCAL = "LocalForward 127.0.0.1:21999 127.0.0.1:9\nExitOnForwardFailure yes"
REMOTE = "RemoteForward 127.0.0.1:21999 127.0.0.1:9\nExitOnForwardFailure yes"
SETTINGS = {
    "local": LOCAL,
    "remote": REMOTE,
    "dynamic": "DynamicForward 127.0.0.1:21999\nExitOnForwardFailure yes",
    "local, not insisted on": "LocalForward 127.0.0.1:21999 127.0.0.1:9",
    "command": "RemoteCommand tmux new -A\nRequestTTY force",
    "no session": "SessionType none",
    "subsystem": "SessionType subsystem",
    "background": "ForkAfterAuthentication yes\nStdinNull yes",
    "agent and display": "ForwardAgent yes\nForwardX11 yes\nForwardX11Trusted yes",
    "tunnel": "Tunnel yes\nExitOnForwardFailure yes",
    "picture": "VisualHostKey yes",
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_for_people(two: Two, settings: str) -> None:
    """What ssh_config has for a shell: two connections at once (the bus, and a sink for bytes) work all the same."""
    two.sshd.add(client=SETTINGS[settings])
    result = two.ctl("check", "host2")
    assert result.status == DONE and re.search("^ok    speed ", result.out, re.M), result
    assert not result.err, result


def test_local_command_is_not_run(two: Two, workdir: Path) -> None:
    two.sshd.add(client=f"PermitLocalCommand yes\nLocalCommand touch {workdir}/touched")
    two.remote("list").succeeds()
    assert not (workdir / "touched").exists()


def test_quiet_ssh_has_a_reason(two: Two) -> None:
    two.sshd.add(client="LogLevel QUIET")
    two.sshd.close()
    two.remote("list").fails(FAILED, "host2", "refused")
    two.sshd.start()


@pytest.mark.parametrize("persist", ["", "\nControlPersist 30"])
def test_connections_of_others_are_not_used(two: Two, workdir: Path, persist: str) -> None:
    """Nor made: a command of the user's would then depend on us."""
    two.sshd.add(client=f"ControlMaster auto\nControlPath {workdir}/cm-%C{persist}")
    migration = two.b.prepare("web1")
    with Running(None, "-H", "host2", "watch", "web1", env=two.sshd.env(), prefix=two.prefix) as run:
        assert run.process.stderr and "waiting" in run.process.stderr.readline()
        assert two.sshd.connections() == 1 and not list(workdir.glob("cm-*"))
        run.interrupt()
        run.end()
    wait_until(lambda: two.sshd.connections() == 0, "the end of ssh's connection", 60)
    migration.cancel()


# ---- ssh asks ----


@pytest.fixture
def asking(two: Two, workdir: Path) -> Iterator[Terminal]:
    """A terminal on the first host, whose user's key has a passphrase; nothing is left of what ssh was asked for."""
    two.sshd.lock_key("open sesame")
    run = workdir / "run"
    run.mkdir()
    with Terminal(workdir, columns=200) as terminal:
        terminal.type(f"export VMFERRY_SSH={shlex.quote(two.sshd.client)} XDG_RUNTIME_DIR={run}; clear")
        terminal.key("Enter")
        terminal.wait_for(r"\A\$ *$")
        yield terminal
    wait_until(lambda: list(run.iterdir()) == [], "nothing is left of what ssh was asked for")
    wait_until(lambda: two.sshd.connections() == 0, "the end of ssh's connections", 60)


def test_ssh_asks_once(two: Two, asking: Terminal) -> None:
    """For the bus and what else vmferryctl says to that host."""
    asking.run([*two.prefix, str(PROGRAM), f"--address={two.a.bus.address}", "check", "host2"])
    asking.wait_for("Enter passphrase for key")
    asking.type("open sesame")
    asking.key("Enter")
    screen = asking.wait_for(r"^(ok|warn) +round trip .*\n(.*\n)*\$ *$", 60)
    assert len(re.findall("Enter passphrase", screen)) == 1 and "FAIL" not in screen, screen


def test_ssh_asks_in_vain(two: Two, asking: Terminal) -> None:
    """None is given; Ctrl-C; and where it may not ask at all."""
    words = [*two.prefix, str(PROGRAM), "-H", "host2", "list"]
    asking.run(words)
    asking.wait_for(r"Enter passphrase for key.*:\s*\Z")
    asking.key("Enter")  # as for a key that is not to be used
    asking.wait_for("vmferryctl: ssh to host2 failed: .*Permission denied")
    asking.run(words)
    asking.wait_for(r"Enter passphrase for key.*:\s*\Z")
    asking.key("C-c")
    asking.wait_for("vmferryctl: Interrupted while ssh was connecting to host2.")
    asking.run(["clear"])
    asking.wait_for(r"\A(?![\s\S]*passphrase)")  # or what stood there before would be taken for the answer
    asking.run([*words, "--no-ask-password"])
    screen = asking.wait_for("vmferryctl: ssh to host2 failed: .*Permission denied")
    assert "Enter passphrase" not in screen


def test_ssh_asked_for_one_that_is_killed(two: Two, asking: Terminal, workdir: Path) -> None:
    """What it leaves is removed by the next one; the fixture looks."""
    run, pid = workdir / "run", workdir / "pid"
    words = shlex.join([*two.prefix, str(PROGRAM), "-H", "host2"])
    migration = two.b.prepare("web1")
    asking.run(["sh", "-c", f"echo $$ > {pid}; exec {words} watch web1"])
    asking.wait_for(r"Enter passphrase for key.*:\s*\Z")
    asking.type("open sesame")
    asking.key("Enter")
    asking.wait_for("waiting")
    (left,) = run.iterdir()
    os.kill(int(pid.read_text()), signal.SIGKILL)
    asking.wait_for(r"Killed\s+\$\s*\Z")
    wait_until(lambda: two.sshd.connections() == 0, "the end of ssh's connection", 30)
    assert left.exists()
    asking.run(["sh", "-c", f"clear; {words} cancel web1"])
    asking.wait_for(r"\A\s*Enter passphrase for key.*:\s*\Z")
    assert not left.exists()
    asking.type("open sesame")
    asking.key("Enter")
    migration.wait_finished(30)
    asking.wait_for(r"^\$\s*\Z")


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
        assert run.wait(30) == DONE


@pytest.mark.load_sensitive(reason="it is heard of at once, and not when the time to answer is over")
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
