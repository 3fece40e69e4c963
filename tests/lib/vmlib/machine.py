# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine with Debian's own kernel and the host's files, for what the host's kernel does not have."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

KERNELS = Path("/var/cache/vmferry-test")  # tools/install-deps unpacks one there

# What the machine itself needs, and then what is tested: vsock from it to itself.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "vsock_loopback")
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class MachineFailed(Exception):
    pass


def missing() -> str:
    """Why there can be no machine here, or nothing."""
    if os.uname().machine != "x86_64":
        return "kernel: the machine's is for x86-64 only"
    if os.geteuid() != 0:
        return "only root can give the machine the host's files"
    if not kernels():
        return f"there is no kernel in {KERNELS}: run tools/install-deps"
    return ""


def kernels() -> list[Path]:
    """The directories of those that were unpacked, the newest first."""
    return sorted(KERNELS.glob("linux-*"), key=lambda path: path.stat().st_mtime, reverse=True)


def in_order(names: tuple[str, ...], files: dict[str, Path]) -> list[Path]:
    """The modules' files, each after those that it depends on. Those that a kernel has built in have none."""
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        match = DEPENDS.search(path.read_bytes())
        for other in match.group(1).decode().split(",") if match else ():
            add(other)
        order.append(path)

    for name in names:
        add(name)
    return order


def cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """An archive of (name, mode, content) as the kernel unpacks it, cpio(5) "newc"."""
    def pieces() -> Iterator[bytes]:
        for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
            fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
            yield head + bytes(-len(head) % 4)
            yield content + bytes(-len(content) % 4)
    return b"".join(pieces())


def initramfs(init: Path) -> bytes:
    files = {path.name[:-3].replace("-", "_"): path for path in (kernels()[0] / "modules").rglob("*.ko")}
    modules = in_order(MODULES, files)
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in ("modules.d", "root")]
    entries += [(f"modules.d/{path.name}", stat.S_IFREG | 0o644, path.read_bytes()) for path in modules]
    listed = "".join(f"/modules.d/{path.name}\n" for path in modules)
    entries.append(("modules", stat.S_IFREG | 0o644, listed.encode()))
    entries.append(("init", stat.S_IFREG | 0o755, init.read_bytes()))
    return cpio(entries)


def run(init: Path, work: Path, command: list[str], limit: float, memory: int = 1536) -> str:
    """
    Boots, runs the command in the machine and turns it off; work is /mnt in it. The console's text; raises where the
    command failed, or took longer than limit seconds.
    """
    image = work / "initramfs"
    image.write_bytes(initramfs(init))
    share = "security_model=none,multidevs=remap"
    words = " ".join(["console=ttyS0", "loglevel=4", "panic=-1", "mitigations=off", "--", *command])
    qemu = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", str(min(4, os.cpu_count() or 1)), "-m", str(memory),
            "-nodefaults", "-display", "none", "-no-reboot",
            "-serial", "stdio", "-kernel", str(kernels()[0] / "vmlinuz"), "-initrd", str(image), "-append", words,
            "-virtfs", f"local,path=/,mount_tag=host,readonly=on,{share}",
            "-virtfs", f"local,path={work},mount_tag=work,{share}"]
    try:
        done = subprocess.run(qemu, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=limit)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout
        raise MachineFailed(f"it did not end within {limit} s:\n{said}") from None
    if not re.search(r"^init: 0\r?$", done.stdout, re.MULTILINE):
        raise MachineFailed(done.stdout)
    return done.stdout
