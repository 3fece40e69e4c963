# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cut after cut during one migration of a busy guest: QEMU sees nothing, the guest is unharmed, the ledgers agree.

VMFERRY_LONG=1 makes it a hundred cuts each instead of a few.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmlib.broker import Broker, Migration, wait_until
from vmlib.faulty import FaultyProxy
from vmlib.migration import CONVERGE, NEVER_CONVERGE, Pair
from vmlib.network import Network

pytestmark = pytest.mark.qemu

LONG = bool(os.environ.get("VMFERRY_LONG"))
CUTS = 100 if LONG else 3
ANSWER = 90  # seconds that the next connection may take on a loaded machine

SLOW = 400 << 10 if LONG else 4 << 20  # bytes/s of a post-copy, so that it outlasts the cuts

Migrate = Callable[[Pair, Migration, Migration, Callable[[], None]], None]


class Way:
    """Two hosts' network, with a proxy between them or without, and all the ways in which it fails."""

    def __init__(self, network: Network, proxy: FaultyProxy | None, rng: random.Random) -> None:
        self.network, self.proxy, self.rng = network, proxy, rng
        self.kinds = ["link", "kill"] + (["reset", "silence", "one-way-there", "one-way-back"] if proxy else [])

    def _duration(self) -> float:
        """Seconds: the short ones are no loss to TCP, the long ones are one to the helpers."""
        long = self.rng.random() < 0.25
        return self.rng.uniform(4, 10) if long else self.rng.uniform(0.1, 2)

    def cut(self) -> bool:
        """Whether the connections are certainly lost."""
        kind = self.rng.choice(self.kinds)
        if kind == "link":
            self.network.cut()
            time.sleep(self._duration())
            self.network.mend()
            return False
        if kind == "kill":
            self.network.kill_connections()
            return True
        assert self.proxy
        if kind == "reset":
            self.proxy.reset()
            return True
        self.proxy.silence(towards_target=kind != "one-way-back", back=kind != "one-way-there")
        time.sleep(self._duration())
        self.proxy.mend()
        return True


@contextlib.contextmanager
def way_to(network: Network, endpoint: str, proxied: bool, rng: random.Random) -> Iterator[Way]:
    if not proxied:
        yield Way(network, None, rng)
        return
    host, port = endpoint.removeprefix("tcp:").rsplit(":", 1)
    with FaultyProxy((host, int(port)), netns=network.a) as proxy:
        yield Way(network, proxy, rng)


def run(workdir: Path, security: str, channels: int, proxied: bool, migrate: Migrate) -> None:
    rng = random.Random(f"{security} {channels} {proxied}")
    capabilities = {"multifd": True} if channels > 1 else {}
    parameters = {"multifd-channels": channels} if channels > 1 else {}
    with (Network() as network,
          Broker(workdir, "a", netns=network.a) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0") as b,
          Pair(workdir, mib=128, capabilities=capabilities, parameters=parameters) as pair):
        incoming = b.prepare(options={"security": ("s", security)})
        assert incoming.ticket
        with way_to(network, b.get("Endpoints")[0], proxied, rng) as way:
            dial = {"endpoint": ("s", way.proxy.endpoint)} if way.proxy else {}
            outgoing = a.outgoing(incoming.ticket, options=dial)
            outgoing.wait_state("connected")
            pair.source.wait_sweeps(1)

            def cuts() -> None:
                done = 0
                while done < CUTS:
                    outgoing.wait_state("active", ANSWER)
                    time.sleep(rng.uniform(0.05, 0.4))
                    before = outgoing.get("Reconnects")
                    if way.cut():
                        wait_until(lambda: outgoing.get("Reconnects") > before, "the next connection", ANSWER)
                    done += 1
                outgoing.wait_state("active", ANSWER)

            migrate(pair, outgoing, incoming, cuts)
            assert outgoing.wait() == "done" and incoming.wait() == "done"
        assert outgoing.get("Reconnects") > 0
        assert (outgoing.get("BytesSent"), outgoing.get("BytesReceived")) == (
            incoming.get("BytesReceived"), incoming.get("BytesSent"))
        pair.assert_unharmed()


def precopy(pair: Pair, outgoing: Migration, incoming: Migration, cuts: Callable[[], None]) -> None:
    pair.listen(f"unix:{incoming.socket()}")
    pair.source.set_parameters(NEVER_CONVERGE)
    pair.begin(f"unix:{outgoing.socket()}")
    cuts()
    pair.source.set_parameters(CONVERGE)
    pair.wait_completed(120)


def postcopy(pair: Pair, outgoing: Migration, incoming: Migration, cuts: Callable[[], None]) -> None:
    """QEMU asks for pages all the while, since the guest runs on over there; its own limit is not for those."""
    pair.enable_postcopy()
    pair.listen(f"unix:{incoming.socket()}")
    pair.begin(f"unix:{outgoing.socket()}")
    pair.begin_postcopy()
    outgoing.set_limit(SLOW)
    cuts()
    outgoing.set_limit(0)
    pair.wait_completed(120)


@pytest.mark.parametrize("proxied", [False, True], ids=["veth", "proxy"])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("security", ["tls", "plain"])
def test_precopy(workdir: Path, needs_qemu: None, security: str, channels: int, proxied: bool) -> None:
    run(workdir, security, channels, proxied, precopy)


@pytest.mark.parametrize("proxied", [False, True], ids=["veth", "proxy"])
@pytest.mark.parametrize("security", ["tls", "plain"])
def test_postcopy(workdir: Path, needs_qemu: None, needs_postcopy: None, security: str, proxied: bool) -> None:
    run(workdir, security, 1, proxied, postcopy)
