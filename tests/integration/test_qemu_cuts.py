# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cut after cut during one migration of a busy guest: QEMU sees nothing, the guest is unharmed, the ledgers agree.

VMFERRY_LONG=1 makes it a hundred cuts each instead of a few.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from vmlib.broker import Broker, wait_until
from vmlib.faulty import FaultyProxy
from vmlib.migration import CONVERGE, NEVER_CONVERGE, Pair

pytestmark = pytest.mark.qemu

CUTS = int(os.environ.get("VMFERRY_CUTS", "100" if os.environ.get("VMFERRY_LONG") else "3"))


def cut(proxy: FaultyProxy, rng: random.Random) -> None:
    """One of the ways in which a network fails, and back."""
    way = rng.choice(["reset", "silence", "one-way-there", "one-way-back"])
    if way == "reset":
        proxy.reset()
        return
    proxy.silence(towards_target=way != "one-way-back", back=way != "one-way-there")
    time.sleep(rng.choice([rng.uniform(0.1, 1), rng.uniform(0.1, 1), rng.uniform(4, 10)]) if CUTS > 3 else
               rng.uniform(0.1, 5))
    proxy.mend()


def run(workdir: Path, security: str, channels: int, seed: int,
        migrate: Callable[[Pair, str, str, Callable[[], None]], None]) -> None:
    rng = random.Random(seed)
    capabilities = {"multifd": True} if channels > 1 else {}
    parameters = {"multifd-channels": channels} if channels > 1 else {}
    with (Broker(workdir, "a") as a, Broker(workdir, "b") as b,
          Pair(workdir, mib=128, capabilities=capabilities, parameters=parameters) as pair):
        incoming = b.prepare(options={"security": ("s", security)})
        assert incoming.ticket
        with FaultyProxy(int(b.get("Endpoints")[0].rsplit(":", 1)[1])) as proxy:
            outgoing = a.outgoing(incoming.ticket, options={"endpoint": ("s", proxy.endpoint)})
            outgoing.wait_state("connected")
            pair.source.wait_sweeps(1)

            def cuts() -> None:
                for _ in range(CUTS):
                    outgoing.wait_state("active", 60)
                    time.sleep(rng.uniform(0.05, 0.4))
                    before = outgoing.get("Reconnects")
                    cut(proxy, rng)
                    wait_until(lambda: outgoing.get("Reconnects") > before, "the next connection", 60)

            migrate(pair, f"unix:{outgoing.socket()}", f"unix:{incoming.socket()}", cuts)
            assert outgoing.wait() == "done" and incoming.wait() == "done"
        assert outgoing.get("Reconnects") >= CUTS
        assert (outgoing.get("BytesSent"), outgoing.get("BytesReceived")) == (
            incoming.get("BytesReceived"), incoming.get("BytesSent"))
        pair.assert_unharmed()


def precopy(pair: Pair, source: str, destination: str, cuts: Callable[[], None]) -> None:
    pair.listen(destination)
    pair.source.set_parameters(NEVER_CONVERGE)
    pair.begin(source)
    cuts()
    pair.source.set_parameters(CONVERGE)
    pair.wait_completed(120)


def postcopy(pair: Pair, source: str, destination: str, cuts: Callable[[], None]) -> None:
    pair.enable_postcopy()
    # Slow enough to outlast the cuts; QEMU asks for pages all the while, since the guest runs on over there.
    pair.source.set_parameters({"max-postcopy-bandwidth": 2 << 20})
    pair.listen(destination)
    pair.begin(source)
    pair.begin_postcopy()
    cuts()
    pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    pair.wait_completed(120)


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("security", ["tls", "plain"])
def test_precopy(workdir: Path, needs_qemu: None, security: str, channels: int) -> None:
    run(workdir, security, channels, 1, precopy)


@pytest.mark.long
@pytest.mark.parametrize("security", ["tls", "plain"])
def test_postcopy(workdir: Path, needs_qemu: None, needs_postcopy: None, security: str) -> None:
    run(workdir, security, 1, 2, postcopy)
