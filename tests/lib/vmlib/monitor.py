# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QMP monitor without a QEMU behind it: says what it is told to say, and notes what it is told to do."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}\r\n'


class Monitor:
    """Serves one client after the other. status: what query-migrate says; run_state: what query-status says."""

    def __init__(self, path: Path, status: str = "none", run_state: str = "running") -> None:
        self.path = path
        self.answers: dict[str, Any] = {
            "query-migrate": {"status": status}, "query-status": {"status": run_state, "running": True},
            "query-migrate-capabilities": [], "query-migrate-parameters": {}}
        self.told: list[tuple[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ends:
            client, _ = self._listener.accept()
            with client:
                client.settimeout(30)
                try:
                    client.sendall(GREETING)
                    self._talk(client)
                except OSError:  # it has hung up
                    pass

    def _talk(self, client: socket.socket) -> None:
        """Commands come without the end of a line."""
        decoder, text = json.JSONDecoder(), ""
        while data := client.recv(65536):
            text += data.decode()
            while text:
                try:
                    command, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                client.sendall(self._answer(command))

    def _answer(self, command: dict[str, Any]) -> bytes:
        name = command["execute"]
        self.told.append((name, command.get("arguments")))
        return json.dumps({"return": self.answers.get(name, {}), "id": command["id"]}).encode() + b"\r\n"

    def sockets(self) -> list[str]:
        """The URIs that it was told to use."""
        return [arguments["uri"] for _, arguments in self.told if arguments and "uri" in arguments]

    def close(self) -> None:
        self._ends = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join(20)
        self._listener.close()
        self.path.unlink()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
