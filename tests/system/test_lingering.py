# SPDX-License-Identifier: LGPL-2.1-or-later
"""Callers' sockets whose close(2) waits without end, through every end of a migration and of the broker: the service
manager, which closes what is removed from the FD store, is never the process that waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vmlib.broker import MIGRATION, BusError, Client, wait_until
from vmlib.lingering import Lingering
from vmlib.nspawn import Host, HostMigration, TwoHosts

UNIT = "vmferryd.service"
NO_PATH = ("a{ss}", {"migrate": ""})
NO_PORT = ("as", [])
SECONDS = 3  # that PID 1 is looked at, after each


@contextmanager
def pid_1_never_waits(host: Host) -> Iterator[None]:
    """For a socket, that is: /proc/1/stack is looked at all the time."""
    found: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            stack = Path(f"/proc/{host.leader}/stack").read_text()
            if "sk_stream_wait_close" in stack or "tcp_close" in stack:
                found.append(stack)

    looks = threading.Thread(target=look)
    looks.start()
    try:
        yield
        begun = time.monotonic()
        while time.monotonic() - begun < SECONDS:
            asked = time.monotonic()
            host.run("systemctl", "is-active", UNIT, check=False, timeout=20)
            assert time.monotonic() - asked < 5
    finally:
        over.set()
        looks.join()
    assert not found, found[0]


def bring(host: Host, lingering: Lingering, migration: HostMigration, member: str, *args: str) -> None:
    """Another process of root's brings one, and ends. UNIX sockets have the lingering one in their queue."""
    def use(sock: socket.socket) -> None:
        client = Client(host.broker.bus)
        if member == "AddStream":
            ours, theirs = socket.socketpair()
            socket.send_fds(ours, [b"x"], [sock.fileno()])
            client.call(migration.path, MIGRATION, member, "sh", *args, theirs)
        else:
            client.call(migration.path, MIGRATION, member, "h", sock)

    lingering.pass_on(use)


def cancel(host: Host, migrations: list[HostMigration]) -> None:
    for migration in migrations:
        migration.cancel()
        migration.wait_finished()


def kill(host: Host, migrations: list[HostMigration]) -> None:
    pid = host.broker_pid
    host.systemctl("kill", "--kill-who=main", "--signal=KILL", UNIT)
    wait_until(lambda: host.broker_pid not in (0, pid) and host.show(UNIT, "ActiveState") == "active", "another vmferryd")
    cancel(host, migrations)


def restart(host: Host, migrations: list[HostMigration]) -> None:
    host.systemctl("restart", UNIT)
    cancel(host, migrations)


def stop(host: Host, migrations: list[HostMigration]) -> None:
    host.systemctl("stop", UNIT)


def kill_helpers(host: Host, migrations: list[HostMigration]) -> None:
    for migration in migrations:
        host.systemctl("kill", "--signal=KILL", migration.unit())
    for migration in migrations:
        assert migration.wait_finished()["Result"] == "failed"


@pytest.mark.load_sensitive(reason="systemctl is answered within 5 s")
@pytest.mark.parametrize("end", [cancel, kill, restart, stop, kill_helpers], ids=lambda end: end.__name__)
def test_end(hosts: TwoHosts, end: Callable[[Host, list[HostMigration]], None]) -> None:
    host = hosts.a
    options = {"sockets": NO_PATH, "endpoints": NO_PORT}
    incoming = hosts.a.broker.prepare("web1", options)
    ticket = hosts.b.broker.prepare("web2", options)
    outgoing = host.broker.outgoing(ticket.ticket or "", "web2", {"sockets": NO_PATH})
    before = host.show(UNIT, "NFileDescriptorStore")
    with Lingering() as lingering:
        for _ in range(3):
            bring(host, lingering, outgoing, "AddPeerConnection")
            bring(host, lingering, outgoing, "AddStream", "migrate")
            bring(host, lingering, incoming, "AddPeerConnection")
            bring(host, lingering, incoming, "AddStream", "migrate")
        assert int(host.show(UNIT, "NFileDescriptorStore")) <= int(before)
        with pid_1_never_waits(host):
            end(host, [incoming, outgoing])
        if end is cancel:  # the helpers were the last to hold them, and hang where they may
            assert len(host.helpers()) > 1
    ticket.cancel()
    ticket.wait_finished()
    wait_until(lambda: len(host.helpers()) <= 1, "no helper is left")
    for migration in (incoming, outgoing):
        try:
            if end is stop:  # with systemd 254 and later they go on
                migration.cancel()
                migration.wait_finished()
            migration.call("Forget")
        except BusError:
            assert end is stop
