# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts whose brokers can be restarted, or killed."""

from __future__ import annotations

from .broker import wait_until
from .fake_qemu import FakeQemu
from .hosts import Hosts
from .managed import ManagedBroker


def assert_empty(broker: ManagedBroker) -> None:
    """Nothing of any migration is left in the store."""
    wait_until(lambda: not broker.store.entries(), f"an empty store: {broker.store.names()}", 10)
    assert broker.store.refused == []


def close(pair: Hosts, failed: bool) -> None:
    """At the end nothing may be left, in the store neither."""
    try:
        if not failed:
            pair.assert_nothing_left()
            for broker in brokers(pair):
                assert_empty(broker)
    except BaseException:
        failed = True
        raise
    finally:
        for broker in brokers(pair):
            if failed:
                print(f"---- vmferryd {broker.name}\n{broker.log()}")
            broker.close()


def brokers(pair: Hosts) -> tuple[ManagedBroker, ManagedBroker]:
    source, destination = pair.brokers
    assert isinstance(source, ManagedBroker) and isinstance(destination, ManagedBroker)
    return source, destination


def carry(source: FakeQemu, destination: FakeQemu, size: int = 1 << 20) -> None:
    """Both ways, to the end."""
    there = source.send_pattern(1, size, shut=True)
    back = destination.send_pattern(2, size, shut=True)
    assert destination.recv_pattern_until_eof(1) == size
    assert source.recv_pattern_until_eof(2) == size
    there.result(20), back.result(20)
