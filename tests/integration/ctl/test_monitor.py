# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl and monitors that are none: absent, taken, silent, or hostile."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from vmlib.ctl import CANCELLED, FAILED, USAGE, ctl
from vmlib.hosts import Hosts


OWN = b"@own@"


def serve(path: Path, *answers: bytes, keep: bool = False) -> threading.Thread:
    """A UNIX socket that says this to the one client that connects; keep: and then stays silent.

    OWN in an answer is the id of the command before it.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(20)
                asked = b""
                try:
                    for answer in answers:
                        own = json.dumps(json.loads(asked)["id"]).encode() if asked else b"null"
                        peer.sendall(answer.replace(OWN, own))
                        if answer.endswith(b"\n"):
                            asked = peer.recv(65536)
                    while keep and peer.recv(65536):
                        pass
                except OSError:
                    pass
        path.unlink()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}\r\n'
OK = b'{"return": {}, "id": @own@}\r\n'


@pytest.mark.parametrize(("answers", "word"), [
    ([b"SSH-2.0-OpenSSH_9.2\r\n"], "no QMP: 'SSH-2.0"),
    ([b"\x1b[2J\x00\xff"], "no QMP: '?[2J"),
    ([b"[1, 2]"], "no QMP"),
    ([b'{"QMP": 3}\r\n'], "no QMP"),
    ([b'{"hello": {}}\n'], "no QMP"),
    ([b'{"a":' * 100], "no QMP"),
    ([b'{"a": "' + b"x" * 400_000], "too long"),
    ([b'{"a": [' + (b'"' + b"x" * 97 + b'",') * 4_000], "too long"),
    ([b" " * 100], "closed the connection"),
    ([GREETING], "closed the connection"),
    ([GREETING, b'{"return": {}, "id": 77}\n' * 70], "not asked"),
    ([GREETING, b'{"error": 5, "id": @own@}\n'], "refuses 'qmp_capabilities': it gives no reason"),
    ([GREETING, b'{"id": @own@}\n'], "no QMP"),
    ([GREETING, OK, b'{"return": "what", "id": @own@}\n', b'{"return": 12, "id": @own@}\n'], "closed the connection"),
    ([GREETING, OK, b'{"return": {"status": "inmigrate"}, "id": @own@}\n', b'{"return": {"status": "\\u001b[31mno"}, "id": @own@}\n'],
     "waits for a VM"),
    ([GREETING, b'{"event": "MIGRATION"}\n' * 3 + b'{"error": {"class": "X", "desc": "not \\u001b[31mtoday"}, "id": @own@}\n'],
     "refuses 'qmp_capabilities': not ?[31mtoday"),
    ([GREETING, OK, b'{"return": {"status": "running"}, "id": @own@}\n',
      b'{"return": {"status": {"x": [1e999, -99999999999999999999999, null]}, "ram": [], "total-time": "x"}, "id": @own@}\n',
      b'{"return": [3, {"capability": 7, "state": "maybe"}], "id": @own@}\n', b'{"return": {}, "id": @own@}\n'], "closed"),
])
def test_hostile_monitor(hosts: Hosts, workdir: Path, answers: list[bytes], word: str) -> None:
    ticket = ctl(hosts.destination, "receive", "web1").out
    thread = serve(workdir / "qmp", *answers)
    result = ctl(hosts.source, "send", "web1", f"--qmp={workdir}/qmp", stdin=ticket)
    thread.join()
    result.fails(FAILED, word, f"{workdir}/qmp")
    assert "\x1b" not in result.err
    assert hosts.source.list() == [], "nothing was begun"
    ctl(hosts.destination, "cancel", "web1").succeeds()
    ctl(hosts.destination, "wait", "-q", "web1").fails(CANCELLED)


def test_monitor_that_is_not_there(hosts: Hosts, workdir: Path) -> None:
    ctl(hosts.destination, "receive", "web1", f"--qmp={workdir}/none").fails(FAILED, f"{workdir}/none", "-qmp unix:PATH")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(f"{workdir}/dead")
    dead.close()
    ctl(hosts.destination, "receive", "web1", f"--qmp={workdir}/dead").fails(FAILED, f"{workdir}/dead", "Has QEMU ended")
    (workdir / "dead").unlink()
    ctl(hosts.destination, "receive", "web1", f"--qmp=/{'x' * 200}").fails(USAGE, "longer than 107 bytes")
    assert hosts.destination.list() == []


def test_monitor_that_is_silent(hosts: Hosts, workdir: Path) -> None:
    """As one that another client has."""
    thread = serve(workdir / "qmp", keep=True)
    ctl(hosts.destination, "receive", "web1", f"--qmp={workdir}/qmp").fails(FAILED, f"{workdir}/qmp", "another client")
    thread.join()
    assert hosts.destination.list() == []
