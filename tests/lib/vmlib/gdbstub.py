# SPDX-License-Identifier: LGPL-2.1-or-later
"""Just enough of the GDB remote protocol to write a guest's memory, which QMP can't."""

import socket
from pathlib import Path


class GdbStub:
    """A session with QEMU's gdbstub (`-gdb unix:PATH,server=on,wait=off`). The guest stands still while it lasts."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        self._received = b""
        try:
            self._sock.connect(str(path))
            self._command("?")
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> "GdbStub":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_memory(self, address: int, data: bytes) -> None:
        """Writes guest memory, at an address as the guest's CPU sees it."""
        answer = self._command(f"M{address:x},{len(data):x}:{data.hex()}")
        if answer != "OK":
            raise OSError(f"gdbstub: writing {len(data)} bytes at {address:#x}: {answer!r}")

    def close(self) -> None:
        """Detaches, so that the guest runs on. Harmless when done twice."""
        if self._sock.fileno() >= 0:
            try:
                self._command("D")
            finally:
                self._sock.close()

    def _command(self, text: str) -> str:
        """Runs a command. Returns its answer; told of a stop only where that is the answer, that is to "?"."""
        self._sock.sendall(f"${text}#{sum(text.encode()) & 0xFF:02x}".encode())
        while True:
            answer = self._read_packet()
            # The stop that our connecting brought about is told whenever it has come about.
            if text == "?" or not answer.startswith("T"):
                return answer

    def _read_packet(self) -> str:
        """The next packet, acknowledged: "$", text, "#" and two digits; before it, acknowledgements ("+")."""
        while b"#" not in self._received[:-2]:
            chunk = self._sock.recv(4096)
            if not chunk:
                raise EOFError("gdbstub: the connection ended")
            self._received += chunk
        head, _, rest = self._received.partition(b"#")
        self._received = rest[2:]
        self._sock.sendall(b"+")
        return head[head.index(b"$") + 1 :].decode()
