#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""In a machine whose kernel has AppArmor: what QEMU may do under the profile that libvirt's virt-aa-helper makes for web1.

Prints a JSON object: for each path how QEMUs of that profile fared, one that listens there and one that migrates to it.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

UUID = "6a2c0f0e-1111-4222-8333-000000776562"
PROFILE = f"libvirt-{UUID}"
DOMAIN = f"""
<domain type='qemu'>
  <name>web1</name><uuid>{UUID}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""
ID = "0123456789abcdef"
LAYOUT = {
    "migrate": f"/run/libvirt/vmferry/{ID}/migrate.tunnelmigrate.dest.web1",
    "disks": f"/run/libvirt/vmferry/{ID}/disks.tunnelmigrate.dest.web1",
}
# What the profile must deny, or all the rest shows nothing. (Who may connect is up to the file's mode alone with Linux 6.1.)
DENIED = {
    "another VM's": f"/run/libvirt/vmferry/{ID}/migrate.tunnelmigrate.dest.web2",
    "no layout": f"/run/vmferry/incoming/{ID}/migrate.sock",
}
QEMU = ["/usr/bin/qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-S"]


def become() -> None:
    """libvirt's user, and the profile from the next execve(2) on."""
    user = pwd.getpwnam("libvirt-qemu")
    Path("/proc/self/attr/exec").write_text(f"exec {PROFILE}")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


class Qemu:
    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([*QEMU, "-qmp", "stdio", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, preexec_fn=become)
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: object) -> dict[str, object]:
        """Its answer; empty where it has ended."""
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps({"execute": command, "arguments": arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return {}
        for line in self.process.stdout:
            answer = json.loads(line)
            if "return" in answer or "error" in answer:
                return dict(answer)
        return {}

    def confined(self) -> str:
        try:
            return Path(f"/proc/{self.process.pid}/attr/current").read_text().strip()
        except OSError:
            return ""

    def end(self) -> str:
        """What it said on stderr."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.communicate()[1]


def wait(condition: Callable[[], object], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def status(qemu: Qemu) -> str:
    found = qemu.call("query-migrate").get("return")
    return str(found.get("status")) if isinstance(found, dict) else "ended"


def listens(path: str) -> str:
    """The destination: QEMU makes the socket, and whoever is not confined, as the helper, connects to it and is heard."""
    qemu = Qemu("-incoming", f"unix:{path}")
    try:
        if not wait(lambda: os.path.exists(path) or qemu.process.poll() is not None) or not os.path.exists(path):
            return qemu.end()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(b"no stream of QEMU's")
            qemu.process.wait(60)  # it has read that
            return "heard, as " + PROFILE
    finally:
        qemu.end()


def migrates(path: str) -> str:
    """The source: it connects, as with several connections and disks, to a socket of the broker's; bytes go both ways."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen()
        listener.settimeout(30)
        qemu = Qemu()
        try:
            label = qemu.confined()
            answer = qemu.call("migrate", uri=f"unix:{path}")
            if "error" in answer or not wait(lambda: status(qemu) != "setup") or status(qemu) in ("failed", "ended"):
                return f"{answer} {qemu.call('query-migrate')}"
            peer, _ = listener.accept()
            magic = peer.recv(4)
            peer.close()
            return f"heard {magic.decode(errors='replace')}, as {label.partition(' ')[0]}"
        finally:
            qemu.end()


@contextmanager
def directory(path: str) -> Iterator[None]:
    where = os.path.dirname(path)
    os.makedirs(where)
    for name in (where, os.path.dirname(where)):
        os.chmod(name, 0o777)
    try:
        yield
    finally:
        shutil.rmtree(where)


def main() -> int:
    subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=False)
    subprocess.run(["/usr/lib/libvirt/virt-aa-helper", "-c", "-u", PROFILE], input=DOMAIN, text=True, check=True)
    found: dict[str, dict[str, str]] = {name: {} for name in (*LAYOUT, *DENIED)}
    for act, paths in ((listens, {**LAYOUT, **DENIED}), (migrates, LAYOUT)):
        for name, path in paths.items():
            with directory(path):
                found[name][act.__name__] = act(path)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
