# SPDX-License-Identifier: LGPL-2.1-or-later
"""One real QEMU that runs the test guest, or waits for it to come in."""

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import guest
from .qmp import Qmp, QmpClosed

_SUN_PATH_MAX = 107
_POLL = 0.01  # seconds
_PIDFD_GETFD = 438  # on every architecture; Python has no call for it
_libc = ctypes.CDLL(None, use_errno=True)


class QemuDied(Exception):
    """QEMU ended though it was needed. The message has its exit status and what it said on stderr."""


class MigrationFailed(Exception):
    """A migration went to a state that ends the wait for another. `state` is that state."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


def postcopy_available() -> bool:
    """Whether a destination QEMU, run as this user, may use userfaultfd for the kernel's faults too."""
    knob = Path("/proc/sys/vm/unprivileged_userfaultfd")
    return knob.exists() and (os.geteuid() == 0 or knob.read_text().strip() == "1")


def qemu_binary() -> str | None:
    """$VMFERRY_QEMU, or the qemu-system-x86_64 in $PATH; None where there is none."""
    return os.environ.get("VMFERRY_QEMU") or shutil.which("qemu-system-x86_64")


class Qemu:
    """A QEMU process with all its files in `workdir`; they begin with `name`.

    `image` is a guest image of build_guest() and `ram_mib` the VM's memory: both the same on source and
    destination. `incoming` is None for a source; for a destination it is a URI to listen at, or "defer" to
    listen later, by listen(). With `gdb`, a gdbstub listens at `gdb_path`. `extra` goes to the end of the
    command line, `prefix` in front of it: a program that becomes the QEMU, on another host for instance.

    The harness's own monitor is a socketpair; a second one listens at `qmp_path`, for the program under test.
    close() ends the process and reaps it; a `with` does so too.
    """

    def __init__(
        self,
        workdir: Path,
        image: Path,
        ram_mib: int,
        name: str = "vm",
        incoming: str | None = None,
        gdb: bool = False,
        extra: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        binary = qemu_binary()
        if binary is None:
            raise FileNotFoundError("no qemu-system-x86_64 found, and $VMFERRY_QEMU is not set")
        self.name = name
        self.qmp_path = workdir / f"{name}.qmp"
        self.gdb_path = workdir / f"{name}.gdb"
        self._serial_path = workdir / f"{name}.serial"
        self._stderr_path = workdir / f"{name}.stderr"
        self._sockets: list[Path] = [_checked_socket(self.qmp_path), self.gdb_path]
        if incoming is not None:
            self._remember_socket(incoming)

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # fmt: off
        self.command = [
            *prefix, binary, "-name", name, "-no-user-config", "-nodefaults", "-display", "none",
            "-machine", "pc", "-accel", "tcg,tb-size=16", "-m", f"{ram_mib}M",
            "-drive", f"file={image},format=raw,if=floppy,readonly=on",
            "-chardev", f"file,id=serial0,path={self._serial_path}", "-serial", "chardev:serial0",
            "-chardev", f"socket,id=harness,fd={theirs.fileno()}", "-mon", "chardev=harness,mode=control",
            "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
            *(["-gdb", f"unix:{self.gdb_path},server=on,wait=off"] if gdb else []),
            *(["-incoming", incoming] if incoming is not None else []),
            *extra,
        ]
        # fmt: on
        try:
            with theirs, self._stderr_path.open("wb") as stderr:
                self._process = subprocess.Popen(
                    self.command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                    start_new_session=True,  # Ctrl-C is for us, who then end it
                )
        except BaseException:
            ours.close()
            raise
        try:
            self.qmp = Qmp(ours)
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            self._unlink_sockets()
            raise QemuDied(self.diagnosis()) from error

    def __enter__(self) -> "Qemu":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The process.

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop_process(self) -> None:
        """Freezes the whole QEMU (SIGSTOP), as a hung host would. Its sockets stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def continue_process(self) -> None:
        """Undoes stop_process()."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends QEMU at once (SIGKILL) and reaps it; its files stay until close(). Harmless when done twice."""
        self._process.kill()
        self._process.wait()

    def wait_exit(self, timeout: float = 30.0) -> int:
        """Waits until QEMU ends by itself; returns its exit status (negative: a signal)."""
        return self._process.wait(timeout)

    def wait_cut_off(self, path: str, timeout: float = 30.0) -> None:
        """Waits until it has failed for the loss of the connections that it accepted at `path`.

        With multifd, 7.2 may wait for ever for one of its own threads instead, which ends without a word where what
        it reads ends between two packets. Then it has lost them all the same.
        """

        def cut_off() -> bool:
            if self._process.poll() is not None:
                return True
            connections = self._connections_at(path)
            return bool(connections) and all(connections)

        deadline = time.monotonic() + timeout
        while not cut_off():
            if time.monotonic() >= deadline:
                raise TimeoutError(f"it is connected at {path}: {self.diagnosis()}")
            time.sleep(_POLL)
        assert self._process.poll() != 0, self.diagnosis()

    def _connections_at(self, path: str) -> list[bool]:
        """Of each that it accepted there, whether its other end is closed. Empty where it has ended meanwhile."""
        found = []
        try:
            with open(os.pidfd_open(self.pid), "rb", buffering=0) as process:
                for entry in Path(f"/proc/{self.pid}/fd").iterdir():
                    if not os.readlink(entry).startswith("socket:"):
                        continue
                    fd = _libc.syscall(_PIDFD_GETFD, process.fileno(), int(entry.name), 0)
                    if fd < 0:
                        continue
                    with socket.socket(fileno=fd) as sock:
                        if sock.getsockname() != path or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                            continue
                        poll = select.poll()
                        poll.register(sock, 0)
                        found.append(bool(poll.poll(0)))
        except (FileNotFoundError, ProcessLookupError):
            return []
        return found

    def close(self) -> None:
        """Ends QEMU if it still runs, reaps it, removes its sockets. Harmless when done twice."""
        self.kill()
        self.qmp.close()
        self._unlink_sockets()

    def diagnosis(self) -> str:
        """What there is to say when something went wrong with this QEMU."""
        code = self._process.poll()
        state = "runs" if code is None else f"ended with status {code}"
        stderr = self._stderr_path.read_text(errors="replace")[-2000:].strip() or "nothing"
        return (
            f"QEMU {self.name} (pid {self.pid}) {state}\nstderr: {stderr}\nserial: {self.serial()[-200:]!r}\n"
            f"command: {' '.join(self.command)}"
        )

    def execute(self, command: str, **arguments: Any) -> Any:
        """A QMP command, as Qmp.execute(); but raises QemuDied where QEMU is gone."""
        try:
            return self.qmp.execute(command, **arguments)
        except QmpClosed as error:
            self._reap_soon()
            raise QemuDied(self.diagnosis()) from error

    # The guest.

    def serial(self) -> str:
        """What the guest printed in this QEMU so far."""
        return self._serial_path.read_text(errors="replace") if self._serial_path.exists() else ""

    def wait_sweeps(self, n: int = 2, timeout: float = 60.0) -> None:
        """Waits for `n` more sweeps that found nothing wrong. Raises GuestHarmed as soon as one did."""
        goal = guest.count_sweeps(self.serial()) + n

        def swept() -> bool:
            if "!" in self.serial():
                guest.assert_unharmed(self.serial())
            return guest.count_sweeps(self.serial()) >= goal

        self.wait_until(swept, f"{n} more sweeps of the guest", timeout)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Waits until `condition` holds. Raises QemuDied, or TimeoutError with `what` and a diagnosis."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.alive:
                raise QemuDied(f"while waiting for {what}: {self.diagnosis()}")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{what}: not within {timeout} s: {self.diagnosis()}")
            time.sleep(_POLL)

    def status(self) -> str:
        """The run state: "running", "paused", "inmigrate", "postmigrate", …"""
        return str(self.execute("query-status")["status"])

    # Migration.

    def set_capabilities(self, capabilities: dict[str, bool]) -> None:
        """Sets migration capabilities, named as in QMP ("postcopy-ram", "return-path", "multifd", …)."""
        states = [{"capability": name, "state": state} for name, state in capabilities.items()]
        self.execute("migrate-set-capabilities", capabilities=states)

    def set_parameters(self, parameters: dict[str, Any]) -> None:
        """Sets migration parameters, named as in QMP ("max-bandwidth", "downtime-limit", …)."""
        self.execute("migrate-set-parameters", **parameters)

    def listen(self, uri: str) -> None:
        """Makes a destination that was started with incoming="defer" listen. Works once."""
        self._remember_socket(uri)
        self.execute("migrate-incoming", uri=uri)

    def migrate(self, uri: str) -> None:
        """Begins a migration to `uri`; doesn't wait for it."""
        self.execute("migrate", uri=uri)

    def recover(self, uri: str) -> None:
        """Makes the destination of a paused post-copy listen again."""
        self._remember_socket(uri)
        self.execute("migrate-recover", uri=uri)

    def resume(self, uri: str, timeout: float = 30.0) -> None:
        """Resumes a paused post-copy from the source; returns once it is connected, and paused no longer.

        Needs the capability "events": query-migrate says "postcopy-paused" for a while yet, which a new pause
        could not be told from.
        """
        self.execute("query-migrate")  # reads all events of before
        self.qmp.drop_events()
        self.execute("migrate", uri=uri, resume=True)
        while self.qmp.wait_event("MIGRATION", timeout)["data"]["status"] != "postcopy-recover":
            pass

    def cancel_migration(self) -> None:
        """Asks for the end of an outgoing migration; doesn't wait for it."""
        self.execute("migrate_cancel")

    def start_postcopy(self) -> None:
        """Asks an active migration to go over to post-copy; doesn't wait for it."""
        self.execute("migrate-start-postcopy")

    def query_migrate(self) -> dict[str, Any]:
        """What query-migrate returns; an empty dict before the first migration."""
        info: dict[str, Any] = self.execute("query-migrate")
        return info

    def wait_migration(self, states: set[str], timeout: float = 60.0) -> dict[str, Any]:
        """Waits until the migration is in one of `states`; returns query_migrate() of then.

        Raises MigrationFailed when it comes to another state that nothing leads out of by itself.
        """
        info: dict[str, Any] = {}

        def reached() -> bool:
            info.clear()
            info.update(self.query_migrate())
            state = info.get("status", "none")
            if state not in states and state in ("completed", "failed", "cancelled", "postcopy-paused"):
                why = f"{state} {info.get('error-desc', '')}".strip()
                raise MigrationFailed(f"migration {why}: {self.diagnosis()}", state)
            return state in states

        self.wait_until(reached, f"migration to be {' or '.join(sorted(states))}", timeout)
        return info

    def _remember_socket(self, uri: str) -> None:
        if uri.startswith("unix:"):
            self._sockets.append(_checked_socket(Path(uri.removeprefix("unix:"))))

    def _unlink_sockets(self) -> None:
        for path in self._sockets:
            path.unlink(missing_ok=True)

    def _reap_soon(self) -> None:
        """After the monitor closed: gives a dying QEMU a moment, so that the diagnosis has its exit status."""
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            pass


def _checked_socket(path: Path) -> Path:
    if len(os.fsencode(path)) > _SUN_PATH_MAX:
        raise ValueError(f"{path} is longer than the {_SUN_PATH_MAX} bytes of a UNIX socket's path")
    return path
