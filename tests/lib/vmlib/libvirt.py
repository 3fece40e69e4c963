# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt on two booted hosts, with domains whose guests check their own memory.

    with TwoHosts() as hosts, Libvirt(hosts) as libvirt:
        web1 = libvirt.domain("web1")
        web1.start()
        hosts.a.run("vmferryctl", "migrate", "web1", "host-b")
        web1.assert_unharmed()
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .broker import wait_until
from .guest import assert_unharmed, build_guest, count_sweeps
from .nspawn import Host, TwoHosts

IMAGES = "/var/lib/libvirt/images"
MIB = 24  # that the guest sweeps
_SSH = "Host *\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
_DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='fd'/></os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='floppy'>
      <driver name='qemu' type='raw'/><source file='{images}/guest.img'/><target dev='fda' bus='fdc'/>
      <readonly/><shareable/>
    </disk>
    {disks}
    <serial type='file'><source path='/var/log/libvirt/{name}.ser' append='on'/><target port='0'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""
_DISKS = f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/><source file='{IMAGES}/d1.img'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/><source file='{IMAGES}/d2.qcow2'/><target dev='vdb' bus='virtio'/>
    </disk>
"""


def available() -> str:
    """Why there is no libvirt for the hosts; "" where there is."""
    if shutil.which("virsh") is None or not Path("/usr/sbin/libvirtd").exists():
        return "libvirt is not installed"
    return ""


class Domain:
    """A domain that is defined on host a."""

    def __init__(self, libvirt: "Libvirt", name: str, disks: bool, mib: int) -> None:
        self.libvirt = libvirt
        self.hosts = libvirt.hosts
        self.name = name
        self.disks = disks
        self.uuid = f"6a2c0f0e-1111-4222-8333-{name.encode().hex().zfill(12)[-12:]}"
        self.memory = mib

    @property
    def serial(self) -> str:
        """What the guest printed: on the hosts in the order in which it ran there."""
        return "".join(self._serial(host) for host in self.libvirt.order)

    def _serial(self, host: Host) -> str:
        path = host.outside(f"/var/log/libvirt/{self.name}.ser")
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        xml = _DOMAIN.format(name=self.name, uuid=self.uuid, images=IMAGES, memory=self.memory,
                             disks=_DISKS if self.disks else "")
        if self.disks:
            self._make_disks()
        self.hosts.a.run("virsh", "-q", "define", "/dev/stdin", stdin=xml)
        self.hosts.a.run("virsh", "-q", "start", self.name)
        self.wait_sweeps(2)

    def _make_disks(self) -> None:
        for host in self.hosts:
            fill = host is self.hosts.a
            host.run("sh", "-ec", f"""cd {IMAGES}; rm -f d1.img d2.qcow2; qemu-img create -q -f qcow2 d2.qcow2 24M
                {'head -c 16M /dev/urandom > d1.img; qemu-io -c "write -P 0x5a 0 12M" d2.qcow2 > /dev/null' if fill
                 else 'truncate -s 16M d1.img'}""")

    def assert_disks_equal(self) -> None:
        """Both QEMUs must have let go of them, or stand still."""
        sums = [host.run("sh", "-ec", f"""cd {IMAGES}; sha256sum < d1.img
            qemu-img convert -U -O raw d2.qcow2 /tmp/x.raw; sha256sum < /tmp/x.raw; rm /tmp/x.raw""").stdout
                for host in self.hosts]
        assert sums[0] == sums[1]

    def sweeps(self) -> int:
        return count_sweeps(self.serial)

    def wait_sweeps(self, more: int, timeout: float = 60) -> None:
        before = self.sweeps()
        wait_until(lambda: self.sweeps() >= before + more, f"{self.name} sweeps: {self.serial[-40:]}", timeout)

    def assert_unharmed(self) -> None:
        """It goes on, and no word of its memory was ever wrong."""
        self.wait_sweeps(1)
        assert_unharmed(self.serial)

    def state(self, host: Host) -> str:
        """"running (migrated)", …; "" where it is not there."""
        done = host.run("virsh", "-q", "domstate", self.name, "--reason", check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def is_persistent(self, host: Host) -> bool:
        return "Persistent:     yes" in host.run("virsh", "dominfo", self.name, check=False).stdout

    def wait_active(self, timeout: float = 30) -> None:
        """Until memory flows."""
        wait_until(lambda: "Memory processed" in self.hosts.a.run("virsh", "domjobinfo", self.name, check=False).stdout,
                   f"{self.name} migrates", timeout)

    def hurry(self, host: Host) -> None:
        """The guest writes as fast as the tests' limits let it go: a pre-copy ends once it may go faster."""
        host.run("virsh", "-q", "migrate-setspeed", self.name, "1024")

    def remove(self) -> None:
        for host in self.hosts:
            host.run("virsh", "-q", "destroy", self.name, check=False)
            host.run("virsh", "-q", "undefine", self.name, check=False)
            host.run("rm", "-f", f"/var/log/libvirt/{self.name}.ser")


class Background:
    """A command of a host that runs while a test does other things."""

    def __init__(self, host: Host, *argv: str, **options: Any) -> None:
        self._done: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._run, args=(host, argv, options), daemon=True)
        self._thread.start()

    def _run(self, host: Host, argv: tuple[str, ...], options: dict[str, Any]) -> None:
        self._done = host.run(*argv, check=False, **options)

    def wait(self, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        self._thread.join(timeout)
        assert self._done is not None, "it has not ended"
        return self._done


class Libvirt:
    """libvirtd and sshd on both hosts; root of each may log in at the other one as host-a, host-b."""

    def __init__(self, hosts: TwoHosts) -> None:
        self.hosts = hosts
        self.order = (hosts.a, hosts.b)
        self._domains: list[Domain] = []
        key = hosts.shared / "libvirt-key"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        guest = build_guest(hosts.shared, MIB)
        for number, host in enumerate(hosts, 1):
            self._prepare(host, number, key, guest)

    def _prepare(self, host: Host, number: int, key: Path, guest: Path) -> None:
        host.run("tee", "-a", "/etc/libvirt/libvirtd.conf",
                 stdin=f'\nhost_uuid = "5b1cbbd0-0000-4000-8000-00000000000{number}"\n')
        host.run("tee", "/etc/hosts", stdin="127.0.0.1 localhost\n10.78.0.1 host-a\n10.78.0.2 host-b\n")
        host.run("sh", "-ec", f"""
            install -d -m 700 /root/.ssh; install -m 600 {key} /root/.ssh/id_ed25519
            cp {key}.pub /root/.ssh/authorized_keys; cat > /root/.ssh/config
            install -m 644 {guest} {IMAGES}/guest.img
            ssh-keygen -A > /dev/null; systemctl start ssh libvirtd.socket libvirtd""", stdin=_SSH, timeout=90)

    def domain(self, name: str = "web1", disks: bool = False, mib: int = 64) -> Domain:
        one = Domain(self, name, disks, mib)
        self._domains.append(one)
        one.remove()
        return one

    def _left(self, host: Host) -> list[str]:
        return host.run("find", "/run/libvirt/vmferry", "-mindepth", "1").stdout.splitlines()

    def clean(self) -> None:
        for one in self._domains:
            one.remove()
        self._domains = []
        for host in self.hosts:
            wait_until(lambda host=host: not self._left(host), f"no socket is left on host {host.name}")  # type: ignore[misc]
            assert not host.run("sh", "-c", "ls -d /run/vmferryctl-* 2>/dev/null || true").stdout

    @contextmanager
    def postcopy(self, possible: bool = True) -> Iterator[None]:
        """Every QEMU may use userfaultfd meanwhile, or none without root's rights: those of this machine, too, whose kernel
        it is. So the tests of another process wait."""
        path = Path("/proc/sys/vm/unprivileged_userfaultfd")
        with Path("/run/lock/vmferry-test-userfaultfd").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_text()
            path.write_text("1\n" if possible else "0\n")
            try:
                yield
            finally:
                path.write_text(before)

    def close(self) -> None:
        for host in self.hosts:
            host.systemctl("stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd",
                           "virtlogd.socket", "virtlogd", "ssh", check=False)
            host.systemctl("reset-failed")

    def __enter__(self) -> "Libvirt":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
