# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls, refusals and messages without end: what they are for others, above all for root, is bounded."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, MessageFlag, MessageType, new_method_call
from vmlib import polkit as harness
from vmlib.broker import BROKER, NAME, PATH, Broker, BusError, Client, wait_until
from vmlib.users import DAEMON, NOBODY, OpenBus, User

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root")

MANAGED = DBusAddress(PATH, bus_name=NAME, interface="org.freedesktop.DBus.ObjectManager")
READ = DBusAddress(PATH, bus_name=NAME, interface=BROKER)


@contextmanager
def open_broker(workdir: Path) -> Iterator[Broker]:
    """On a bus that lets every user in."""
    broker = Broker(workdir, "a", bus_type=OpenBus)
    try:
        yield broker
    finally:
        broker.close()


def latencies(client: Client, seconds: float) -> list[float]:
    """Of small calls, one after the other, in ms; sorted."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        client.get(PATH, BROKER, "Version")
        found.append((time.monotonic() - begin) * 1000)
        time.sleep(0.005)
    return sorted(found)


def cpu(broker: Broker) -> float:
    """Seconds that the broker has worked."""
    fields = Path(f"/proc/{broker.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.load_sensitive(reason="measures for how long the broker works")
@pytest.mark.parametrize("reply", [True, False])
def test_root_is_served_while_a_user_reads_without_end(workdir: Path, reply: bool) -> None:
    with open_broker(workdir) as broker:
        for number in range(60):
            broker.prepare(f"{number:04}" + "w" * 240).cancel()
        wait_until(lambda: all(entry[3] == "finished" for entry in broker.list()), "they are finished", 60)
        users = [User(broker, NOBODY) for _ in range(3)]

        def flood(user: User) -> None:
            for number in range(2000):
                call = (MANAGED, "GetManagedObjects") if number % 2 else (READ, "ListMigrations")
                message = new_method_call(*call)
                if not reply:
                    message.header.flags |= MessageFlag.no_reply_expected
                user.client.connection.send(message)

        def drain(user: User) -> None:
            try:
                while user.client.connection.sock.recv(1 << 20):
                    pass
            except OSError:
                pass

        root = Client(broker.bus)
        before = cpu(broker)
        threads = [threading.Thread(target=flood, args=(user,)) for user in users]
        drains = [threading.Thread(target=drain, args=(user,)) for user in users]
        for thread in threads + drains:
            thread.start()
        taken = latencies(root, 3)
        for thread in threads:
            thread.join()
        for user in users:
            user.client.connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in drains:
            thread.join()
        for user in users:
            user.close()
        print(f"the broker worked for {cpu(broker) - before:.1f} s; root's calls, ms: n {len(taken)}, "
              f"median {taken[len(taken) // 2]:.1f}, p99 {taken[len(taken) * 99 // 100]:.1f}, max {taken[-1]:.1f}")
        root.close()
        # On a machine of one's own p99 is some ms, and seconds without the limit. The work says it on any.
        assert cpu(broker) - before < 4, taken[-5:]


@pytest.mark.load_sensitive(reason="more calls than a user has in a second")
def test_a_user_that_reads_too_much_is_told_so(workdir: Path) -> None:
    with open_broker(workdir) as broker, User(broker, NOBODY) as nobody:
        nobody.client.get(PATH, BROKER, "Version")
        for number in range(40):
            broker.prepare(f"{number:04}").cancel()
        errors = [name for name in answers(nobody.client, 1) if name]
        assert len(errors) > 10 and set(errors) == {"org.vmferry.Error.LimitExceeded"}
        wait_until(lambda: not refused(nobody), "it is served again")
        assert set(answers(broker.client, 3)) == {""}, "root is refused nothing"


def answers(client: Client, rounds: int) -> list[str]:
    """To a hundred calls at once, and again; the bus lets no more wait. What is refused comes as its error's name."""
    found = []
    for _ in range(rounds):
        for _ in range(100):
            client.connection.send(new_method_call(MANAGED, "GetManagedObjects"))
        for _ in range(100):
            reply = client.connection.receive(timeout=20)
            error = reply.header.message_type == MessageType.error
            found.append(str(reply.header.fields[HeaderFields.error_name]) if error else "")
    return found


def refused(user: User) -> bool:
    try:
        user.list()
    except BusError as error:
        assert error.short == "LimitExceeded"
        return True
    return False


def test_refusals_of_one_user_do_not_hide_those_of_another(workdir: Path) -> None:
    with open_broker(workdir) as broker, User(broker, NOBODY) as noise, User(broker, DAEMON) as other:
        begun = time.monotonic()
        for number in range(400):
            with pytest.raises(BusError):
                noise.prepare(f"x{number}")
        for _ in range(40):
            with pytest.raises(BusError):
                other.prepare("the-real-attack")
        lines = [line for line in broker.log().splitlines() if "Denied" in line]
        intervals = 1 + int((time.monotonic() - begun) / 30)  # LOG_SAMPLE_INTERVAL; each has 16 lines of a user
        assert 16 <= sum(f"uid {NOBODY}" in line for line in lines) <= 16 * intervals
        assert sum("the-real-attack" in line for line in lines) >= 16
