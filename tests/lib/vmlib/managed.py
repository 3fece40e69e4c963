# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vmferryd under a service manager's part of the protocol: READY=1, and the FD store of systemd 252.

    with ManagedBroker(workdir, "d") as broker:
        ...
        broker.restart()        # SIGTERM, and started again with what it had stored
        broker.crash()          # SIGKILL, likewise
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

from .broker import Broker, Client, wait_until

_FIRST = 3  # SD_LISTEN_FDS_START
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class FdStore:
    """What PID 1 keeps for one service. `limit` is FileDescriptorStoreMax=."""

    def __init__(self, path: Path, limit: int = 4096) -> None:
        self.path = path
        self.limit = limit
        self.ready = 0
        self.stopping = 0
        self.hold_barriers = False  # until release_barriers() who asks for one waits: sd_notify_barrier(3)
        self.refused: list[str] = []
        self._entries: list[tuple[str, int]] = []
        self._barriers: list[int] = []
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name="fd-store", daemon=True)
        self._thread.start()

    def names(self) -> list[str]:
        with self._lock:
            return [name for name, _ in self._entries]

    def drain(self) -> None:
        """Takes all that has been sent: as PID 1 does before it looks at its children."""
        while True:
            with self._lock:
                if not select.select([self._socket], [], [], 0)[0]:
                    return
                self._receive()

    def entries(self) -> list[tuple[str, int]]:
        """Names and descriptors (borrowed), after drain()."""
        self.drain()
        with self._lock:
            return list(self._entries)

    def put(self, name: str, fd: int) -> None:
        """As if the service had stored it; takes fd."""
        with self._lock:
            self._entries.append((name, fd))

    def remove(self, name: str) -> int:
        """How many went."""
        with self._lock:
            gone = [fd for entry, fd in self._entries if entry == name]
            self._entries = [(entry, fd) for entry, fd in self._entries if entry != name]
        for fd in gone:
            os.close(fd)
        return len(gone)

    def clear(self) -> None:
        """What `systemctl stop` does with 252."""
        self.drain()
        for name in set(self.names()):
            self.remove(name)

    def release_barriers(self) -> None:
        with self._lock:
            for fd in self._barriers:
                os.close(fd)
            self._barriers.clear()
            self.hold_barriers = False

    def close(self) -> None:
        self.release_barriers()
        os.eventfd_write(self._wake, 1)
        self._thread.join(10)
        self.clear()
        self._socket.close()
        os.close(self._wake)
        self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            ready = select.select([self._socket, self._wake], [], [])[0]
            if self._wake in ready:
                return
            with self._lock:
                if select.select([self._socket], [], [], 0)[0]:
                    self._receive()

    def _receive(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._socket, 4096, 16)
        fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
        name = fields.get("FDNAME", "stored")
        if "READY" in fields:
            self.ready += 1
        if "STOPPING" in fields:
            self.stopping += 1
        if "BARRIER" in fields and self.hold_barriers:
            self._barriers += fds
            return
        if "FDSTOREREMOVE" in fields:
            for entry in [entry for entry in self._entries if entry[0] == name]:
                os.close(entry[1])
                self._entries.remove(entry)
        for fd in fds:
            if "FDSTORE" not in fields:  # BARRIER
                os.close(fd)
                continue
            same = any(os.path.sameopenfile(fd, other) for _, other in self._entries)
            # systemd polls what does not say FDPOLL=0, and drops it at its hang-up.
            hung_up = fields.get("FDPOLL") != "0" and _hung_up(fd)
            if same or hung_up or len(self._entries) >= self.limit:
                if not same:
                    self.refused.append(name)
                os.close(fd)
            else:
                self._entries.append((name, fd))


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class ManagedBroker(Broker):
    """A broker whose descriptors outlive it. Its helpers do too: they are found by their session, and reaped here."""

    def __init__(self, workdir: Path, name: str, limit: int = 4096, **arguments: Any) -> None:
        self.store = FdStore(workdir / f"notify-{name}", limit)
        self._sessions: set[int] = set()
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            super().__init__(workdir, name, **arguments)
        except BaseException:
            self.store.close()
            raise

    def _spawn(self, command: list[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        entries = self.store.entries()
        environment = {**os.environ, **self.environment(), "NOTIFY_SOCKET": str(self.store.path)}
        high = []
        above = _FIRST + len(entries) + 100  # they are moved down from here, so that none is in another's way
        try:
            for _, fd in entries:
                high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above))
            moves = "".join(f" {_FIRST + i}<&{fd} {fd}<&-" for i, fd in enumerate(high))
            if entries:
                environment["LISTEN_FDS"] = str(len(entries))
                environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in entries)
            process = subprocess.Popen(["bash", "-c", f'export LISTEN_PID=$$; exec "$@"{moves}', "bash", *command],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                       env=environment, pass_fds=high)
        finally:
            for fd in high:
                os.close(fd)
        # The number of a session in which nobody is left is given to others, whose processes are none of ours.
        self._sessions &= {session for _, session, _ in _processes()}
        self._sessions.add(process.pid)
        return process

    def restart(self) -> None:
        """As `systemctl restart`."""
        status = self.stop()
        assert status == 0, f"vmferryd {self.name} ended with {status}: {self.log()}"
        self.start()

    def crash(self) -> None:
        """As SIGKILL and Restart=."""
        self.kill()
        self.start()

    def kill_only(self) -> None:
        """SIGKILL; it is not started again yet."""
        self.kill()

    def helpers(self) -> list[int]:
        """All that run, whichever broker has started them."""
        return [pid for pid, session, state in _processes() if session in self._sessions and state != "Z"
                and pid != self.process.pid and _name(pid) == "vmferry-helper"]

    def stand_ins(self) -> list[int]:
        """What it has started, or a broker before it, that is no vmferry-helper."""
        return [pid for pid in self._left() if _name(pid) != "vmferry-helper"]

    def reap(self) -> None:
        """Takes the ends of those helpers whose broker had gone before."""
        for pid, session, state in _processes():
            if state == "Z" and session in self._sessions and pid != self.process.pid:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass  # it is the broker's own

    def close(self) -> None:
        """At the end no migration may be left in the store."""
        try:
            super().close()
        finally:
            self.store.clear()  # what goes on without a broker ends when it sees that
            try:
                wait_until(lambda: not self.helpers(), f"the helpers of {self.name}: {self.helpers()}", 20)
            finally:
                for pid in self.helpers():
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda: (self.reap(), not self._left())[1], "no zombies", 20)
                self.store.close()
                _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _left(self) -> list[int]:
        return [pid for pid, session, _ in _processes() if session in self._sessions and pid != self.process.pid]


def _processes() -> list[tuple[int, int, str]]:
    """pid, session and state of each."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append((int(entry.name), int(fields[3]), fields[0]))
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


__all__ = ["FdStore", "ManagedBroker", "Client"]
