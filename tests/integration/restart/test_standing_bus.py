# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus that does not read any more when the broker ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jeepney import DBusAddress, new_method_call
from vmlib.broker import NAME, PATH, Broker, settled, wait_until

INTROSPECT = DBusAddress("/", bus_name=NAME, interface="org.freedesktop.DBus.Introspectable")
MANAGED = DBusAddress(PATH, bus_name=NAME, interface="org.freedesktop.DBus.ObjectManager")
STREAMS = [f"s{i}" + "x" * 28 for i in range(16)]
SOCKETS = {stream: "/run/" + "p" * 100 for stream in STREAMS}


def unsent(broker: Broker) -> None:
    """More replies than the socket takes, to a bus that stands still."""
    for i in range(60):
        broker.prepare(f"{i:04}" + "w" * 251, {"streams": ("as", STREAMS), "sockets": ("a{ss}", SOCKETS)})
    connection = broker.bus.connect()
    connection.send_and_get_reply(new_method_call(INTROSPECT, "Introspect"))
    os.kill(broker.pid, signal.SIGSTOP)
    for _ in range(120):
        connection.send(new_method_call(MANAGED, "GetManagedObjects"))
    bus = broker.bus.process.pid
    settled(lambda: Path(f"/proc/{bus}/stat").read_text().split()[13:15], 0.5)  # it has passed them on
    os.kill(bus, signal.SIGSTOP)
    connection.close()
    os.kill(broker.pid, signal.SIGCONT)


def test_the_end(workdir: Path) -> None:
    broker = Broker(workdir, "h", args=("--max-migrations=2000", "--max-migrations-per-user=2000"))
    try:
        unsent(broker)
        wait_until(lambda: settled(lambda: Path(f"/proc/{broker.pid}/wchan").read_text(), 0.5) == "do_epoll_wait",
                   "it has done all that it can")
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(30) == 0
        assert "The bus has taken nothing for 2 s" in broker.log()
    finally:
        os.kill(broker.bus.process.pid, signal.SIGCONT)
        broker.process.kill()
        broker.process.wait()
        broker.client.close()
        broker.bus.close()
