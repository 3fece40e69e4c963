# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks of QEMUs, and the mirror job that carries them."""

from __future__ import annotations

import random
from pathlib import Path

from .qemu import Qemu

SIZE = 1 << 30
STREAMS = ("as", ["migrate", "disks"])


def make_disk(path: Path, filled: bool) -> None:
    """Sparse, with some 100 MiB that is random, in pieces all over it."""
    chance = random.Random(1)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for _ in range(100 if filled else 0):
            file.seek(chance.randrange(SIZE - (1 << 20)) & ~0xFFF)
            file.write(chance.randbytes(1 << 20))


def add_disk(qemu: Qemu, path: Path) -> None:
    qemu.execute("blockdev-add", node_name="disk0", driver="raw",
                 file={"driver": "file", "filename": str(path), "discard": "unmap"})
    qemu.execute("device_add", driver="virtio-blk-pci", id="disk0", drive="disk0", bus="pci.0", addr="0x8")


def write(qemu: Qemu, offset: int, size: int, byte: int) -> None:
    """As the guest would, were it more than a boot sector."""
    said = qemu.execute("human-monitor-command", command_line=f'qemu-io disk0 "write -P {byte} {offset} {size}"')
    assert "error" not in said.lower() and "fail" not in said.lower(), said


def export(qemu: Qemu, path: str) -> None:
    qemu.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    qemu.execute("block-export-add", type="nbd", id="disk0", node_name="disk0", writable=True)


def mirror(qemu: Qemu, path: str) -> None:
    server = {"type": "unix", "path": path}
    qemu.execute("blockdev-add", node_name="target", driver="nbd", export="disk0", server=server)
    qemu.execute("blockdev-mirror", job_id="mirror", device="disk0", target="target", sync="full")
