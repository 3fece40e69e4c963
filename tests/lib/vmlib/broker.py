# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private bus and a vmferryd on it, and its migrations as Python objects.

The programs are those of $VMFERRY_BUILD (a meson build directory; default: build/ of this tree).
Everything that is started here is ended here, by its own pid.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Sequence

from jeepney import DBusAddress, HeaderFields, MessageFlag, MessageType, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

NAME = "org.vmferry.Broker1"
PATH = "/org/vmferry/Broker1"
BROKER = "org.vmferry.Broker1"
MIGRATION = "org.vmferry.Migration1"
PROPERTIES = "org.freedesktop.DBus.Properties"
ERROR = "org.vmferry.Error."
ROOT = Path(__file__).resolve().parents[3]


def build_dir() -> Path:
    """Where the programs under test are."""
    return Path(os.environ.get("VMFERRY_BUILD", ROOT / "build")).resolve()


def hasty_helper() -> Path:
    """A helper whose deadlines, ticks and pauses take a quarter of their time: tests/hasty."""
    return build_dir() / "tests" / "hasty" / "vmferry-helper-hasty"


class BusError(Exception):
    """A D-Bus error: its name and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text

    @property
    def short(self) -> str:
        """The name without our prefix ("VmBusy"); other errors whole."""
        return self.name.removeprefix(ERROR)


class Bus:
    """A dbus-daemon of its own, with its socket in workdir."""

    def __init__(self, workdir: Path, name: str = "bus") -> None:
        self.socket = workdir / name
        self.address = f"unix:path={self.socket}"
        self._log = open(workdir / f"{name}.log", "wb")
        self.process = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={self.address}"],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until(self._listens, "the bus's socket", 30)

    def _listens(self) -> bool:
        """Between bind(2) and listen(2) its socket is there and refuses all the same."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def connect(self) -> DBusConnection:
        """A connection to it; the caller closes it."""
        return open_dbus_connection(self.address, enable_fds=True, auth_timeout=20)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.socket.unlink(missing_ok=True)  # dbus-daemon leaves it
        self._log.close()

    def __enter__(self) -> "Bus":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 20) -> Any:
    """Polls until condition() is true and returns that; AssertionError names what otherwise."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"timed out after {timeout} s: {what}"
        time.sleep(0.01)


def settled(look: Callable[[], Any], quiet: float) -> Any:
    """What look() shows once it has shown the same for so many seconds: nothing is on its way any more."""
    seen, since = look(), time.monotonic()
    end = since + 20
    while time.monotonic() < since + quiet:
        time.sleep(0.01)
        now = look()
        if now != seen:
            seen, since = now, time.monotonic()
        assert time.monotonic() < end, f"it does not settle: {seen}"
    return seen


def variants(options: dict[str, tuple[str, Any]] | None) -> dict[str, tuple[str, Any]]:
    """Options are given as {key: (signature, value)}, as jeepney wants them."""
    return options or {}


class Client:
    """A connection to a broker's bus, with calls that raise BusError."""

    def __init__(self, bus: Bus) -> None:
        self.connection = bus.connect()

    def call(self, path: str, interface: str, member: str, signature: str = "", *args: Any,
             timeout: float = 60, interactive: bool = False) -> tuple[Any, ...]:
        """`interactive`: the user may be asked for a password, if need be."""
        address = DBusAddress(path, bus_name=NAME, interface=interface)
        message = new_method_call(address, member, signature or None, args)
        if interactive:
            message.header.flags |= MessageFlag.allow_interactive_authorization
        reply = self.connection.send_and_get_reply(message, timeout=timeout)
        if reply.header.message_type == MessageType.error:
            raise BusError(reply.header.fields[HeaderFields.error_name], str(reply.body[0]) if reply.body else "")
        return reply.body

    def get(self, path: str, interface: str, name: str) -> Any:
        return self.call(path, PROPERTIES, "Get", "ss", interface, name)[0][1]

    def get_all(self, path: str, interface: str) -> dict[str, Any]:
        return {k: v[1] for k, v in self.call(path, PROPERTIES, "GetAll", "s", interface)[0].items()}

    def close(self) -> None:
        self.connection.close()


class Migration:
    """One migration on one broker."""

    def __init__(self, broker: "Broker", path: str, ticket: str | None = None) -> None:
        self.broker = broker
        self.path = path
        self.ticket = ticket
        self.id = path.rsplit("/", 1)[1]

    def get(self, name: str) -> Any:
        return self.broker.client.get(self.path, MIGRATION, name)

    def get_all(self) -> dict[str, Any]:
        return self.broker.client.get_all(self.path, MIGRATION)

    def call(self, member: str, signature: str = "", *args: Any, timeout: float = 60) -> tuple[Any, ...]:
        return self.broker.client.call(self.path, MIGRATION, member, signature, *args, timeout=timeout)

    def socket(self, stream: str = "migrate") -> str:
        return self.get("Sockets")[stream]

    def cancel(self) -> None:
        self.call("Cancel")

    def wait(self, timeout: float = 60) -> str:
        """Wait() on a connection of its own: "done", or BusError with the migration's error."""
        client = Client(self.broker.bus)
        try:
            return client.call(self.path, MIGRATION, "Wait", timeout=timeout)[0]
        finally:
            client.close()

    def wait_state(self, state: str, timeout: float = 20) -> None:
        wait_until(lambda: self.get("State") == state, f"{self.path} is {state}", timeout)

    def wait_finished(self, timeout: float = 30) -> dict[str, Any]:
        """All properties, once it is finished."""
        self.wait_state("finished", timeout)
        return self.get_all()

    def set_limit(self, limit: int) -> None:
        self.broker.client.call(self.path, PROPERTIES, "Set", "ssv", MIGRATION, "BandwidthLimit", ("t", limit))


@contextmanager
def running(words: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read as text, and that ends with a test that fails."""
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          **options) as process:
        try:
            yield process
        finally:
            process.kill()


class Broker:
    """A vmferryd on a bus of its own; its sockets are below workdir."""

    good_ends: tuple[int, ...] = (0, -9)  # with what exit status it may have ended when it is closed

    def __init__(self, workdir: Path, name: str, listen: str | None = "tcp:127.0.0.1:0", helper: Path | None = None,
                 args: tuple[str, ...] = (), wrapper: tuple[str, ...] = (), netns: str | None = None,
                 bus_type: type[Bus] | None = None, build: Path | None = None) -> None:
        self.name = name
        self.build = build or build_dir()
        self.workdir = workdir
        self.bus = (bus_type or Bus)(workdir, f"bus-{name}")
        self.runtime_dir = workdir / name
        self.helper = helper
        self.log_path = workdir / f"{name}.log"
        self.listen = listen
        self.args = args
        self.prefix = (("ip", "netns", "exec", netns) if netns else ()) + wrapper
        self.client: Client = None  # type: ignore[assignment]
        self.process: subprocess.Popen[bytes] = None  # type: ignore[assignment]
        try:
            self.start()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """After a start that failed: nothing of it stays."""
        if self.client:
            self.client.close()
        if self.process:
            self.process.kill()
            self.process.wait(20)
        self.bus.close()

    def bus_options(self) -> list[str]:
        """The options that lead it to its bus."""
        return [f"--address={self.bus.address}"]

    def environment(self) -> dict[str, str]:
        """What it needs there besides what we have."""
        return {}

    def start(self) -> None:
        """(Again) after stop() or kill()."""
        helper = self.helper or self.build / "helper" / "vmferry-helper"
        command = [*self.prefix, str(self.build / "broker" / "vmferryd"), *self.bus_options(),
                   f"--helper={helper}", f"--runtime-dir={self.runtime_dir}", "--verbose", *self.args]
        if self.listen:
            command.append(f"--listen={self.listen}")
        with open(self.log_path, "ab") as log:
            self.process = self._spawn(command, log)
        self.client = Client(self.bus)
        wait_until(self._ready, f"vmferryd {self.name} is ready\n{self.log()}", 60)

    def _spawn(self, command: list[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                env={**os.environ, **self.environment()})

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"vmferryd {self.name} ended: {self.log()}"
        try:
            return bool(self.client.get(PATH, BROKER, "Version"))
        except BusError:
            return False

    @property
    def pid(self) -> int:
        return self.process.pid

    def helpers(self) -> list[int]:
        """The pids of its helpers, the gate among them, the newest last (pids begin anew at 300 after the highest)."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def helper_of(self, migration: Migration) -> int:
        """The pid of this migration's helper, which is the newest: call right after making it."""
        return self.helpers()[-1]

    def prepare(self, vm: str = "web1", options: dict[str, tuple[str, Any]] | None = None) -> Migration:
        path, ticket = self.client.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", vm, variants(options))
        return Migration(self, path, ticket)

    def outgoing(self, ticket: str, vm: str = "web1", options: dict[str, tuple[str, Any]] | None = None) -> Migration:
        (path,) = self.client.call(PATH, BROKER, "StartOutgoing", "ssa{sv}", vm, ticket, variants(options))
        return Migration(self, path)

    def list(self) -> list[tuple[Any, ...]]:
        return self.client.call(PATH, BROKER, "ListMigrations")[0]

    def get(self, name: str) -> Any:
        return self.client.get(PATH, BROKER, name)

    def peer_port(self) -> int:
        """Where its gate listens; it does while it waits for a source."""
        return int(self.get("Endpoints")[0].rpartition(":")[2])

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def fds(self) -> list[str]:
        """What each of the broker's descriptors is."""
        found = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(os.readlink(entry))
            except FileNotFoundError:
                pass
        return found

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.client.close()
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(20)

    def close(self) -> None:
        """Ends it, and says so where it had crashed."""
        status = self.process.poll()
        if status is None:
            status = self.stop()
        self.bus.close()
        assert status in self.good_ends, f"vmferryd {self.name} ended with {status}: {self.log()}"
        assert not re.search("ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error:", self.log()), self.log()

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
