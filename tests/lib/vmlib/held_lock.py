# SPDX-License-Identifier: LGPL-2.1-or-later
"""A socket whose lock in the kernel is held for as long as the test likes: by setsockopt(2), which copies a filter from
memory that is not there (userfaultfd(2))."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
from types import TracebackType

SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
SO_ATTACH_FILTER = 26
PAGE = mmap.PAGESIZE


class HeldLock:
    """Raises OSError where the kernel has no userfaultfd(2)."""

    def __init__(self, sock: socket.socket) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.syscall(SYS_USERFAULTFD[os.uname().machine], os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        self._memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        fcntl.ioctl(self._fd, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
        fcntl.ioctl(self._fd, UFFDIO_REGISTER, bytearray(struct.pack("=QQQQ", self._address, PAGE, 1, 0)))
        self._thread = threading.Thread(target=self._attach, args=(sock.fileno(),))

    def _attach(self, fd: int) -> None:
        program = ctypes.create_string_buffer(struct.pack("@HP", 1, self._address))
        self._libc.setsockopt(fd, socket.SOL_SOCKET, SO_ATTACH_FILTER, program, len(program.raw) - 1)

    def __enter__(self) -> HeldLock:
        self._thread.start()
        assert select.select([self._fd], [], [], 10)[0], "the kernel has not come to the memory that is not there"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        fcntl.ioctl(self._fd, UFFDIO_ZEROPAGE, bytearray(struct.pack("=QQQQ", self._address, PAGE, 0, 0)))
        self._thread.join()
        os.close(self._fd)
