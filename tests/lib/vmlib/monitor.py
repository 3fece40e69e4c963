# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for a QEMU with its monitor: it answers as it is told, or not until it is told.

    with Monitor(path, {"query-status": {"status": "running"}}) as monitor:
        monitor.hold("query-migrate")   # asked for, but not answered, until release()

Told 'migrate' it connects to the socket, told 'migrate-incoming' it listens there; when query-migrate says
"completed" the source ends its connection, and the destination does as soon as it has ended. With moves=False it only
notes what it is told.
"""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any


def _greeting(major: int, minor: int) -> dict[str, Any]:
    return {"QMP": {"version": {"qemu": {"micro": 0, "minor": minor, "major": major}}, "capabilities": []}}


def _path(arguments: dict[str, Any]) -> str:
    """The socket that it was told to use, as a URI or, from QEMU 8.2 on, as the one channel."""
    if "uri" in arguments:
        return str(arguments["uri"]).removeprefix("unix:")
    (channel,) = arguments["channels"]
    assert channel["channel-type"] == "main" and channel["addr"]["transport"] == "socket", channel
    return str(channel["addr"]["path"])


_ANSWERS: dict[str, Any] = {"query-migrate": {}, "query-status": {"status": "running"},
                            "query-migrate-capabilities": [], "query-migrate-parameters": {}}


class Monitor:
    """Serves one client after the other at `path`. `told` has the commands that came, with their arguments."""

    def __init__(self, path: Path, answers: dict[str, Any] | None = None, moves: bool = True,
                 version: tuple[int, int] = (7, 2)) -> None:
        self.path = path
        self.version = version  # of QEMU; the next client is greeted with it
        self.moves = moves
        self.answers: dict[str, Any] = {**_ANSWERS, **(answers or {})}
        self.told: list[tuple[str, Any]] = []
        self.served = 0
        self._held: set[str] = set()
        self._changed = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._client: socket.socket | None = None
        self._connected = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.told]

    def event(self, name: str, **data: Any) -> None:
        """Tells its client so."""
        with self._changed:
            assert self._client
            self._client.sendall(json.dumps({"event": name, "data": data}).encode() + b"\r\n")

    def sockets(self) -> list[str]:
        """The URIs that it was told to use."""
        return [arguments["uri"] for _, arguments in self.told if arguments and "uri" in arguments]

    def hold(self, command: str) -> None:
        with self._changed:
            self._held.add(command)

    def release(self) -> None:
        with self._changed:
            self._held.clear()
            self._changed.notify_all()

    def wait_asked(self, command: str, times: int = 1, timeout: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.asked.count(command) >= times, timeout), (command, self.asked)

    def wait_connected(self, timeout: float = 60) -> None:
        """The source's stream has come to where it listens."""
        assert self._connected.wait(timeout)

    def wait_served(self, clients: int, timeout: float = 60) -> None:
        """So many have gone."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.served >= clients, timeout), self.served

    def _serve(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            with client, client.makefile("r", encoding="utf-8") as lines:
                self._sockets.append(client)
                self._client = client
                try:
                    self._converse(client, lines)
                except OSError:
                    pass
            with self._changed:
                self.served += 1
                self._changed.notify_all()

    def _converse(self, client: socket.socket, lines: Any) -> None:
        decoder, text = json.JSONDecoder(), ""
        client.sendall(json.dumps(_greeting(*self.version)).encode() + b"\r\n")
        while data := client.recv(65536):
            text += data.decode()
            while text:
                command, end = decoder.raw_decode(text)  # vmferryctl writes a command at once
                text = text[end:].lstrip()
                reply = {"return": self._answer(command), "id": command["id"]}
                with self._changed:
                    client.sendall(json.dumps(reply).encode() + b"\r\n")

    def _answer(self, command: dict[str, Any]) -> Any:
        name = command["execute"]
        with self._changed:
            self.told.append((name, command.get("arguments")))
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: name not in self._held, 60)
            if self.moves and name in ("migrate", "migrate-incoming"):
                self.begin(name, _path(command["arguments"]))
            if name == "cont":
                self.answers["query-status"] = {"status": "running"}
            if name == "migrate_cancel":
                self.answers["query-migrate"] = {"status": "cancelled"}
            answer = self.answers.get(name, {})
            if name == "query-migrate" and answer.get("status") in ("completed", "cancelled"):
                self.end_stream()
            return answer

    def begin(self, name: str, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX)
        self._sockets.append(sock)
        if name == "migrate":
            sock.connect(path)
            sock.sendall(b"guest" * 1000)
            self._stream: socket.socket | None = sock
        else:
            sock.bind(path)
            sock.listen()
            thread = threading.Thread(target=self._receive, args=(sock,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _receive(self, listener: socket.socket) -> None:
        try:
            stream = listener.accept()[0]
            self._sockets.append(stream)
            self._connected.set()
            with stream:
                while stream.recv(65536):
                    pass
        except OSError:
            pass

    def end_stream(self) -> None:
        stream, self._stream = getattr(self, "_stream", None), None
        if stream:
            stream.close()

    def close(self) -> None:
        self.release()
        for sock in (self._listener, *self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self.path.unlink()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
