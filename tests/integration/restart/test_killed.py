# SPDX-License-Identifier: LGPL-2.1-or-later
"""Brokers that die at any instant, under managers that call again. $VMFERRY_LONG adds 64 migrations at once."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vmlib.broker import Client
from vmlib.lives import Life, Own
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers, close

PATH, INTERFACE = "/org/vmferry/Broker1", "org.vmferry.Broker1"


def assert_added_once(broker: ManagedBroker, role: str, n: int) -> None:
    """Half of them had their outcome told; the others are added when they are forgotten."""
    client = Client(broker.bus)
    try:
        assert outcomes(client, role) == {"moved": (n + 1) // 2}
        for one in client.call(PATH, INTERFACE, "List", "a{sv}", {})[0]:
            client.call(one["Path"][1], "org.vmferry.Migration1", "Forget")
        assert outcomes(client, role) == {key: value for key, value in
                                          {"moved": (n + 1) // 2, "carried": n // 2}.items() if value}
        sums = client.get(PATH, INTERFACE, "Totals")
        assert sums["sent-bytes"][1] == sums["received-bytes"][1] == n * (256 << 10)
    finally:
        client.close()


def outcomes(client: Client, role: str) -> dict[str, int]:
    lines = client.get(PATH, INTERFACE, "Totals")["migrations"][1]
    return {word: n for whose, word, n in lines if whose == role and n}


ROUNDS = [(1, 30), (50, 6)] + ([(64, 30)] if os.environ.get("VMFERRY_LONG") else [])


@pytest.mark.parametrize("n, rounds", ROUNDS)
def test_killed_at_any_instant(workdir: Path, n: int, rounds: int) -> None:
    """Both brokers die at random instants of the lives of migrations, from the first call to the last result."""
    rng = random.Random(int(os.environ.get("VMFERRY_SEED", "1")))
    limits = ("--max-migrations-per-user=200",)
    pair = Own(workdir, broker=ManagedBroker, args=limits)
    try:
        with ThreadPoolExecutor(n) as pool:
            deaths, number = 0, 0
            while deaths < rounds:
                lives = [pool.submit(Life(pair, number + i, 256 << 10)) for i in range(n)]
                number += n
                while not all(life.done() for life in lives):
                    time.sleep(rng.uniform(0, 0.25 if n == 1 else 1))
                    broker = rng.choice(brokers(pair))
                    (broker.restart if rng.random() < 0.2 else broker.crash)()
                    deaths += 1
                for life in lives:
                    life.result()
            print(f"{number} migrations, {n} at once: {deaths} deaths of brokers")
            for broker, role in zip(brokers(pair), ("outgoing", "incoming")):
                broker.restart()
                assert_added_once(broker, role, number)
    except BaseException:
        close(pair, True)
        raise
    close(pair, False)
