#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""In a machine whose kernel has AppArmor: QEMUs under the profile that libvirt's virt-aa-helper makes for web1 move a guest
from the one to the other, through two brokers that have a host's directories each.

    confined.py WAY…     pre-copy, parallel-disks or post-copy

Prints a JSON object: for each way how it went. Before each the destination tries to listen where the profile denies it.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from vmlib.broker import Broker, wait_until  # noqa: E402
from vmlib.disks import add_disk, export, mirror  # noqa: E402
from vmlib.hosts import Tunnel  # noqa: E402
from vmlib.migration import Pair  # noqa: E402
from vmlib.polkit import SystemBroker  # noqa: E402
from vmlib.qmp import QmpError  # noqa: E402

UUID = "6a2c0f0e-1111-4222-8333-000000776562"
PROFILE = f"libvirt-{UUID}"
WORK = Path("/var/lib/libvirt/qemu/domain--1-web1")  # of a domain that libvirt has not numbered yet
DISKS = [Path(f"/var/lib/libvirt/images/web1-{end}") for end in ("near", "far")]
MIB = 1
DOMAIN = f"""
<domain type='qemu'>
  <name>web1</name><uuid>{UUID}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='floppy'><source file='{WORK}/guest-{MIB}.img'/><target dev='fda'/></disk>
    <disk type='file'><source file='{DISKS[0]}'/><target dev='vda'/></disk>
    <disk type='file'><source file='{DISKS[1]}'/><target dev='vdb'/></disk>
  </devices>
</domain>
"""
OWN_DIRECTORIES = """
for directory in /run/vmferry /run/libvirt/vmferry; do mount -t tmpfs -o mode=755 tmpfs $directory || exit; done
exec "$0" "$@"
"""
CONFINED = ("setpriv", "--reuid=libvirt-qemu", "--regid=libvirt-qemu", "--clear-groups", "aa-exec", "-p", PROFILE, "--")
LIMIT = 120.0  # seconds: the processor that emulates one is emulated itself


class Host(SystemBroker):
    """Its sockets are where an installed broker has them; other hosts see its directories empty."""

    def __init__(self, workdir: Path, name: str) -> None:
        super().__init__(workdir, name, wrapper=("unshare", "--mount", "sh", "-c", OWN_DIRECTORIES))

    def _spawn(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return super()._spawn([word for word in command if not word.startswith("--runtime-dir=")], log)

    def qemu(self) -> tuple[str, ...]:
        """What a QEMU's command line begins with."""
        return ("nsenter", f"--target={self.pid}", "--mount", *CONFINED)


def tunnel(a: Broker, b: Broker, *streams: str) -> Tunnel:
    """One that is connected. It is made before the QEMUs start, and again if need be: a helper that takes longer than 5 s to
    start is given up, which happens here where the machine outside is loaded."""
    options = {"layout": ("s", "libvirt:web1"), "streams": ("as", ["migrate", *streams])}
    for _ in range(10):
        incoming = b.prepare("web1", options)
        assert incoming.ticket
        way = Tunnel(a.outgoing(incoming.ticket, "web1", options), incoming)
        wait_until(lambda way=way: way.outgoing.get("State") != "waiting", "it dials", LIMIT)  # type: ignore[misc]
        if way.outgoing.get("State") == "connected":
            return way
        for end in way.ends:
            end.cancel()
            end.wait_finished(LIMIT)
    raise AssertionError(a.log() + b.log())


def denied(pair: Pair, way: Tunnel) -> None:
    """What the profile must deny, or all the rest shows nothing: another VM's name, and another directory."""
    for path in (Path(way.incoming.socket()).with_name("migrate.tunnelmigrate.dest.web2"), Path("/run/vmferry/migrate.sock")):
        try:
            pair.destination.execute("migrate-incoming", uri=f"unix:{path}")
        except QmpError as error:
            assert "Permission denied" in error.desc, error
        else:
            raise AssertionError(f"it listens at {path}")


def precopy(pair: Pair, way: Tunnel) -> None:
    pair.precopy(f"unix:{way.outgoing.socket()}", f"unix:{way.incoming.socket()}", LIMIT)


def postcopy(pair: Pair, way: Tunnel) -> None:
    pair.enable_postcopy()
    pair.source.set_parameters({"max-bandwidth": 1 << 20})  # so slow that pre-copy does not come to its end
    pair.listen(f"unix:{way.incoming.socket()}")
    pair.begin(f"unix:{way.outgoing.socket()}")
    pair.begin_postcopy(LIMIT)
    pair.wait_completed(LIMIT)
    while pair.source.qmp.wait_event("MIGRATION", 1)["data"]["status"] != "postcopy-active":
        pass


def parallel_disks(pair: Pair, way: Tunnel) -> None:
    for qemu in (pair.source, pair.destination):
        qemu.set_capabilities({"multifd": True, "pause-before-switchover": True})
        qemu.set_parameters({"multifd-channels": 2})
    add_disk(pair.source, DISKS[0])
    add_disk(pair.destination, DISKS[1])
    export(pair.destination, way.incoming.socket("disks"))
    mirror(pair.source, way.outgoing.socket("disks"))
    pair.source.qmp.wait_event("BLOCK_JOB_READY", LIMIT)
    pair.listen(f"unix:{way.incoming.socket()}")
    pair.begin(f"unix:{way.outgoing.socket()}")
    pair.source.wait_migration({"pre-switchover"}, LIMIT)
    pair.source.execute("block-job-cancel", device="mirror")
    pair.source.qmp.wait_event("BLOCK_JOB_COMPLETED", LIMIT)
    pair.source.execute("blockdev-del", node_name="target")
    pair.source.execute("migrate-continue", state="pre-switchover")
    pair.wait_completed(LIMIT)
    pair.destination.execute("nbd-server-stop")
    assert DISKS[0].read_bytes() == DISKS[1].read_bytes()


WAYS: dict[str, tuple[Callable[[Pair, Tunnel], None], tuple[str, ...]]] = {
    "pre-copy": (precopy, ()),
    "parallel-disks": (parallel_disks, ("disks",)),
    "post-copy": (postcopy, ()),
}


def move(name: str, a: Host, b: Host) -> str:
    act, streams = WAYS[name]
    way = tunnel(a, b, *streams)
    with Pair(WORK, MIB, prefixes=(a.qemu(), b.qemu())) as pair:
        labels = {Path(f"/proc/{qemu.pid}/attr/current").read_text().strip() for qemu in (pair.source, pair.destination)}
        denied(pair, way)
        pair.source.wait_sweeps(1, LIMIT)
        act(pair, way)
        pair.assert_unharmed()
    way.assert_done(LIMIT)
    channels = sorted(channel[0] for channel in way.outgoing.get("Channels"))
    return f"moved by {' '.join(channels)} as {' '.join(labels)}"


def make_files() -> None:
    user = pwd.getpwnam("libvirt-qemu")
    for directory in (WORK, "/run/vmferry", "/run/libvirt/vmferry"):
        os.makedirs(directory, exist_ok=True)
    WORK.parent.chmod(0o755)
    for disk, content in zip(DISKS, (secrets.token_bytes(2 << 20), bytes(2 << 20))):
        disk.write_bytes(content)
    for path in (WORK, *DISKS):
        os.chown(path, user.pw_uid, user.pw_gid)


def main() -> int:
    subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=False)
    make_files()
    subprocess.run(["/usr/lib/libvirt/virt-aa-helper", "-c", "-u", PROFILE], input=DOMAIN, text=True, check=True)
    Path("/proc/sys/vm/unprivileged_userfaultfd").write_text("1")
    found = {}
    with Host(Path("/run/libvirt"), "a") as a, Host(Path("/run/libvirt"), "b") as b:
        for name in sys.argv[1:]:
            try:
                found[name] = move(name, a, b)
            except Exception:
                found[name] = f"{traceback.format_exc()}\n{a.log()}\n{b.log()}"
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
