# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file system of FUSE with one empty file, whose daemon does not answer when a certain process closes it.

As a program: silent_fuse.py MOUNTPOINT PID. It mounts, says so in a line, and serves until it is ended.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

# linux/fuse.h
LOOKUP, FORGET, GETATTR, OPEN, RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 18, 25, 26, 36, 42
HEADER = struct.Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
FILE = 2  # its nodeid; 1 is the root's
MNT_DETACH = 2


def _attributes(node: int) -> bytes:
    mode = stat.S_IFREG | 0o666 if node == FILE else stat.S_IFDIR | 0o777
    return struct.pack("=6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int) -> tuple[int, bytes]:
    """A negative errno, or 0; and what follows it."""
    if opcode == INIT:
        return 0, struct.pack("=IIIIHHIIHHI", 7, 31, 4096, 0, 8, 8, 65536, 1, 16, 0, 0).ljust(64, b"\0")
    if opcode == LOOKUP:
        return 0, struct.pack("=QQQQII", FILE, 0, 0, 0, 0, 0) + _attributes(FILE)
    if opcode == GETATTR:
        return 0, struct.pack("=QII", 0, 0, 0) + _attributes(node)
    if opcode == OPEN:
        return 0, struct.pack("=QII", 1, 0, 0)
    return (0, b"") if opcode in (RELEASE, FLUSH) else (-38, b"")  # ENOSYS


def serve(mountpoint: str, pid: int) -> None:
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"silent", mountpoint.encode(), b"fuse", 0, options.encode()) < 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    while True:
        request = os.read(fd, 1 << 18)
        _, opcode, unique, node, _, _, thread, _, _ = HEADER.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        if opcode == FLUSH and Path(f"/proc/{pid}/task/{thread}").exists():
            continue  # not answered
        error, data = _answer(opcode, node)
        os.write(fd, struct.pack("=IiQ", 16 + len(data), error, unique) + data)


class SilentFuse:
    """It, at a directory that is there; OSError says why this machine cannot."""

    def __init__(self, mountpoint: Path, pid: int) -> None:
        self._mountpoint = mountpoint
        self._daemon = subprocess.Popen([sys.executable, __file__, str(mountpoint), str(pid)], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        assert self._daemon.stdout and self._daemon.stderr
        if self._daemon.stdout.readline() != "mounted\n":
            self._daemon.wait(10)
            raise OSError(self._daemon.stderr.read().strip().splitlines()[-1])
        self.file = mountpoint / "file"

    def let_go(self) -> None:
        """Without its daemon, nothing waits for it."""
        if self._daemon.poll() is None:
            self._daemon.kill()
            self._daemon.communicate(timeout=10)
            ctypes.CDLL(None).umount2(str(self._mountpoint).encode(), MNT_DETACH)

    def __enter__(self) -> "SilentFuse":
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
