# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QMP client: one monitor connection, used by one thread."""

import array
import collections
import json
import secrets
import socket
import time
from typing import Any

Reply = Any  # what "return" holds: mostly a dict, for some commands a list or a string


class QmpError(Exception):
    """QEMU refused a command. `error_class` is QMP's class, `desc` its text."""

    def __init__(self, command: str, error_class: str, desc: str) -> None:
        super().__init__(f"{command}: {desc} ({error_class})")
        self.command = command
        self.error_class = error_class
        self.desc = desc


class QmpClosed(ConnectionError):
    """The monitor's connection ended: QEMU quit or died."""


class Qmp:
    """A QMP session over a connected UNIX stream socket, which it takes (on success and on failure).

    After the constructor the capabilities are negotiated. Events that arrive meanwhile are kept, in order,
    until wait_event() takes them.
    """

    def __init__(self, sock: socket.socket, timeout: float = 30.0) -> None:
        self._sock = sock
        self._timeout = timeout
        self._received = b""
        self._key = secrets.token_hex(8)  # QEMU can send this client the answer to a command of the one before it
        self._commands = 0
        self._events: collections.deque[dict[str, Any]] = collections.deque()
        try:
            deadline = time.monotonic() + timeout
            greeting = self._read_message(deadline)
            while "return" in greeting or "error" in greeting:
                greeting = self._read_message(deadline)
            if "QMP" not in greeting:
                raise QmpClosed(f"not a QMP greeting: {greeting}")
            self.execute("qmp_capabilities")
        except BaseException:
            sock.close()
            raise

    @classmethod
    def connect(cls, path: str, timeout: float = 30.0) -> "Qmp":
        """Connects to a monitor that listens at `path`; tries again until it does, or `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(str(path))
                return cls(sock, timeout)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                sock.close()
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)
            except BaseException:
                sock.close()
                raise

    def execute(self, command: str, timeout: float | None = None, **arguments: Any) -> Reply:
        """Runs a command; returns what it returned. Arguments are named as in QMP, with `_` for `-`.

        Raises QmpError where QEMU refuses, QmpClosed where it is gone, TimeoutError after `timeout` seconds
        (default: the session's). After a TimeoutError the late reply is dropped, and the session goes on.
        """
        return self._execute(command, arguments, None, timeout)

    def execute_with_fd(self, command: str, fd: int, timeout: float | None = None, **arguments: Any) -> Reply:
        """As execute(), with an FD passed along, as `getfd` and `add-fd` want it. Borrows `fd`."""
        return self._execute(command, arguments, fd, timeout)

    def wait_event(self, name: str, timeout: float | None = None) -> dict[str, Any]:
        """Takes the oldest event `name` that was not taken yet; waits for one. Other events stay."""
        deadline = self._deadline(timeout)
        while True:
            for event in self._events:
                if event["event"] == name:
                    self._events.remove(event)
                    return event
            message = self._read_message(deadline)
            if "event" in message:
                self._events.append(message)

    def drop_events(self) -> None:
        """Forgets the events that arrived so far, as far as they were read."""
        self._events.clear()

    def close(self) -> None:
        """Ends the session. Harmless when done twice."""
        self._sock.close()

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._timeout if timeout is None else timeout)

    def _execute(self, command: str, arguments: dict[str, Any], fd: int | None, timeout: float | None) -> Reply:
        deadline = self._deadline(timeout)
        self._commands += 1
        own = f"{self._key}-{self._commands}"
        request: dict[str, Any] = {"execute": command, "id": own}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._send(json.dumps(request).encode() + b"\n", fd)
        while True:
            message = self._read_message(deadline)
            if "event" in message:
                self._events.append(message)
            elif message.get("id") == own:
                break
        if "error" in message:
            raise QmpError(command, message["error"]["class"], message["error"]["desc"])
        return message["return"]

    def _send(self, data: bytes, fd: int | None) -> None:
        control = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self._sock.settimeout(self._timeout)
        try:
            # The FD travels with the first byte; requests are far smaller than a socket's buffer.
            sent = self._sock.sendmsg([data], control)
            self._sock.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise QmpClosed("the QMP connection ended") from error

    def _read_message(self, deadline: float) -> dict[str, Any]:
        """The next message, one JSON object a line."""
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer from QEMU's monitor in time")
            self._sock.settimeout(left)
            try:
                chunk = self._sock.recv(65536)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise QmpClosed("the QMP connection ended")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
