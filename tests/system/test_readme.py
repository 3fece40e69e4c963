# SPDX-License-Identifier: LGPL-2.1-or-later
"""What README.md tells a stranger to type, typed on two hosts on which vmferry was never installed.

"tools/test fresh" runs this on hosts which have little more than debootstrap's smallest choice of packages.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlib.broker import ROOT, wait_until
from vmlib.nspawn import LOWER, Host, TwoHosts
from vmlib.package import package
from vmlib.qmp import Qmp

HOME = "/root"
ALICE = 4101
LIMIT = 180.0  # seconds from an empty host to the first migration that is done


def blocks(where: str) -> list[list[str]]:
    """The lines of README's blocks that are marked so, without their comments."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(rf"<!-- {re.escape(where)}\b.*?-->\n```sh\n(.*?)```", text, re.S)
    assert found, f"README.md has no block '{where}'"
    return [[re.sub(r"\s+#.*", "", line) for line in block.splitlines()] for block in found]


class Keyboard:
    """Types on a host, as root or as alice."""

    def __init__(self, host: Host, user: str | None = None) -> None:
        self.host, self.user = host, user
        runtime = f"/run/user/{ALICE}"
        self._env = ["env", f"HOME={HOME}"] if user is None else \
            ["env", "HOME=/", f"XDG_RUNTIME_DIR={runtime}", f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus"]

    def type(self, line: str, directory: str = "/tmp") -> subprocess.CompletedProcess[str]:
        done = self.host.run(*self._env, "bash", "-c", f"cd {directory} && {line}", user=self.user, check=False, timeout=150,
                             stdin="y\n")  # where apt asks whether to go on
        assert done.returncode == 0, f"{line}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done


def let_in(hosts: TwoHosts) -> None:
    """ssh from the first host to the second, for root and alice; each knows the other's name."""
    host1, host2 = hosts
    key = hosts.shared / "readme-key"
    key.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for host in hosts:
        names = f"127.0.0.1 localhost\n{host1.address} host1\n{host2.address} host2\n"
        host.run("tee", "/etc/hosts", stdin=names)
        for name, uid in (("root", "root"), ("alice", "alice")):
            host.run("install", "-m600", "-o", uid, str(key), f"/etc/ssh/readme-{name}")
    host1.run("tee", "/etc/ssh/ssh_config.d/readme.conf", stdin="Host host2\n  IdentityFile /etc/ssh/readme-%u\n"
              "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n")
    host2.run("tee", "/etc/ssh/sshd_config.d/readme.conf", stdin="AuthorizedKeysFile /etc/ssh/readme.pub\n"
              "StrictModes no\nPermitRootLogin prohibit-password\n")
    host2.run("tee", "/etc/ssh/readme.pub", stdin=key.with_suffix(".pub").read_text())
    host2.run("usermod", "--shell", "/bin/bash", "alice")
    host2.run("ssh-keygen", "-A")
    host2.systemctl("restart", "ssh.service")


def quit_qemu(host: Host, path: str) -> None:
    if host.run("test", "-S", path, check=False).returncode == 0:
        try:
            Qmp.connect(str(host.outside(path))).execute("quit")
        except OSError:
            pass
        wait_until(lambda: host.run("pidof", "qemu-system-x86_64", check=False).returncode != 0, "QEMU ends", 20)


@pytest.fixture
def fresh(needs_qemu: None, hosts: TwoHosts) -> Iterator[TwoHosts]:
    """Without vmferry, and with ssh from one to the other; afterwards with the package again."""
    try:
        for host in hosts:
            if host.run("test", "-e", "/usr/bin/vmferryctl", check=False).returncode == 0:
                host.purge()
                host.run("userdel", "vmferry")
        let_in(hosts)
        yield hosts
    finally:
        for host in hosts:
            for path in ("/run/qemu/web1.qmp", f"/run/user/{ALICE}/web1.qmp"):
                quit_qemu(host, path)
            host.systemctl("stop", "ssh.service", f"user@{ALICE}.service")
            host.reset()
            if LOWER == "/":
                host.install()


def install(hosts: TwoHosts) -> None:
    (lines,) = blocks("install, on both hosts")
    for host in hosts:
        keyboard = Keyboard(host)
        host.run("mkdir", "-p", "/root/vmferry/build-deb")
        host.run("cp", str(copy_of(package(), hosts.shared)), "/root/vmferry/build-deb/")
        for line in lines:
            keyboard.type(line, "/root/vmferry")
        host.run("rm", "-r", "/root/vmferry")


def copy_of(deb: Path, shared: Path) -> Path:
    """Where the hosts see it."""
    copy = shared / deb.name
    copy.write_bytes(deb.read_bytes())
    return copy


def moved(done: subprocess.CompletedProcess[str]) -> bool:
    return re.search(r"^web1: done after .*At the destination it is running", done.stderr, re.M) is not None


@pytest.mark.load_sensitive(reason="all of it takes less than three minutes")
def test_quick_start(needs_postcopy: None, fresh: TwoHosts) -> None:
    """Word by word, in the order in which it stands there."""
    began = time.monotonic()
    install(fresh)
    (at_host1, then), (at_host2,) = blocks("quick start, at host1"), blocks("quick start, at host2")
    host1, host2 = (Keyboard(host) for host in fresh)
    for line in at_host1:
        host1.type(line)
    for line in at_host2:
        host2.type(line)
    for line in then:
        done = host1.type(line)
        assert "FAIL" not in done.stdout, done.stdout
    assert moved(done), done
    assert time.monotonic() - began < LIMIT
    for host, status in ((fresh.a, "postmigrate"), (fresh.b, "running")):
        assert Qmp.connect(str(host.outside("/run/qemu/web1.qmp"))).execute("query-status")["status"] == status


def test_as_a_user(fresh: TwoHosts) -> None:
    """alice has an account and ssh, and nothing else; her QEMUs are started as the quick start's, where she may."""
    install(fresh)
    for host in fresh:
        host.systemctl("start", f"user@{ALICE}.service")
    host1, host2 = (Keyboard(host, "alice") for host in fresh)
    for keyboard, (lines, *_) in ((host1, blocks("quick start, at host1")), (host2, blocks("quick start, at host2"))):
        keyboard.type(lines[-1].replace("/run/qemu", "$XDG_RUNTIME_DIR"))
    for line in blocks("as a user, at host1")[0]:
        done = host1.type(line)
    assert moved(done), done
    for host in fresh:
        assert not host.broker_pid, "the system's broker has nothing to do with it"
