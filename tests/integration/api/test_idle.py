# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker with nothing to do goes by itself: what its service manager and its bus see of that, step by step.

On a real systemd, with calls at any moment: tests/system/test_idle.py.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from jeepney.bus_messages import message_bus
from vmlib.broker import BROKER, NAME, PATH, Broker, Migration, variants, wait_until
from vmlib.calls import answer, gone, post
from vmlib.managed import ManagedBroker
from vmlib.polkit import Polkit, SystemBroker, available
from vmlib.restarts import assert_empty
from vmlib.users import NOBODY, User

IDLE = 75  # the exit status after which systemd starts no other by itself
SOON = ("--idle-timeout=2",)


def has_name(broker: Broker) -> bool:
    return bool(broker.client.connection.send_and_get_reply(message_bus.NameHasOwner(NAME)).body[0])


class Slowly(ManagedBroker):
    """Its service manager has not said that it has heard what it is told, not before release_barriers()."""

    def _spawn(self, command: list[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        self.store.hold_barriers = not self.store.stopping
        return super()._spawn(command, log)


def wait_for_stop(broker: Slowly) -> None:
    """It has told its service manager that it stops, which has not said yet that it has heard that."""
    wait_until(lambda: broker.store.stopping, "it stops")
    assert has_name(broker), "nobody may be told that it has gone before its service manager knows"


def ended(broker: ManagedBroker, status: int) -> None:
    assert broker.process.wait(20) == status, broker.log()
    assert not has_name(broker)
    broker.client.close()


@pytest.fixture
def broker(workdir: Path) -> Iterator[Slowly]:
    with Slowly(workdir, "d", args=SOON) as broker:
        broker.good_ends += (IDLE,)
        yield broker
        broker.start()  # as the next call does
        assert_empty(broker)


def test_steps(broker: Slowly) -> None:
    """First the service manager knows, then the name is given back, then it ends."""
    wait_for_stop(broker)
    broker.store.release_barriers()
    ended(broker, IDLE)


def test_call_without_consequence(broker: Slowly) -> None:
    """While it goes it answers, and goes."""
    wait_for_stop(broker)
    serial = post(broker.client, PATH, BROKER, "ListMigrations")
    broker.store.release_barriers()
    assert answer(broker.client, serial) == ("", "")
    ended(broker, IDLE)


def test_migration(broker: Slowly) -> None:
    """One that is made while it goes is for the next one, which the service manager starts by itself."""
    wait_for_stop(broker)
    serial = post(broker.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "web1", variants(None))
    broker.store.release_barriers()
    assert answer(broker.client, serial) == ("", "")
    ended(broker, 0)
    broker.start()
    (entry,) = broker.list()
    assert entry[1] == "web1" and entry[3] == "waiting"
    gone(Migration(broker, entry[5]))
    ended(broker, IDLE)


class SlowlySystemBroker(Slowly, SystemBroker):
    """One that asks polkit."""


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.skipif(not available(), reason="needs root, polkitd and unshare")
def test_call_that_waits_for_polkit(workdir: Path, answers: bool) -> None:
    """It stays until the call has its answer: polkit's, or that polkit gave none."""
    with SlowlySystemBroker(workdir, "d", args=SOON) as broker:
        broker.good_ends += (IDLE,)
        with Polkit(workdir, broker.bus) as polkit, User(broker, NOBODY) as nobody:
            broker.get("Version")
            polkit.pause()
            wait_for_stop(broker)
            serial = post(nobody.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "own", variants(None))
            broker.store.release_barriers()
            wait_until(lambda: not has_name(broker), "the name is given back")
            assert broker.process.poll() is None
            if answers:
                polkit.go_on()
            name, text = answer(nobody.client, serial)
            assert name == "" if answers else "polkit did not answer" in text
            ended(broker, 0 if answers else IDLE)
            polkit.go_on()
            broker.start()
            assert [entry[1] for entry in broker.list()] == ["own"] * answers
            gone(*(Migration(broker, entry[5]) for entry in broker.list()))


def test_without_service_manager(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would start it again: it stays."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with Broker(workdir, "d", args=("--idle-timeout=1",)) as broker:
        time.sleep(2.5)  # more than two of its time-outs
        assert broker.process.poll() is None and has_name(broker)
        assert broker.get("ActiveMigrations") == 0
