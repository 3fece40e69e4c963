# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network that comes back in time: QEMU notices nothing."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest
from vmlib.broker import Broker
from vmlib.fake_qemu import FakeQemu
from vmlib.network import Network

SIZE = 64 << 20


@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.parametrize("limit", [0, 16 << 20])
def test_cut_and_mended(workdir: Path, security: str, limit: int) -> None:
    rounds = int(os.environ.get("VMFERRY_ROUNDS", "2"))
    rng = random.Random(7)
    with (Network() as network,
          Broker(workdir, "a", netns=network.a) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0") as b):
        incoming = b.prepare(options={"security": ("s", security)})
        assert incoming.ticket
        outgoing = a.outgoing(incoming.ticket, options={"bandwidth-limit": ("t", limit)})
        with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(outgoing.socket()) as source:
            source.send_pattern(1, 1)
            with listener.accept() as destination:
                sent = source.send_pattern(1, SIZE - 1, offset=1, shut=True)
                back = destination.send_pattern(2, SIZE // 16, shut=True)
                got: list[int] = []
                readers = [threading.Thread(target=lambda: got.append(destination.recv_pattern_until_eof(1))),
                           threading.Thread(target=lambda: got.append(source.recv_pattern_until_eof(2)))]
                for reader in readers:
                    reader.start()
                for i in range(rounds):
                    time.sleep(rng.uniform(0.05, 0.3))
                    network.cut()
                    time.sleep(6 if i == 0 else rng.uniform(0.1, 6))  # TCP gets over the short ones by itself
                    network.mend()
                for reader in readers:
                    reader.join(120)
                sent.result(10), back.result(10)
                assert sorted(got) == [SIZE // 16, SIZE]
        assert outgoing.wait() == "done" and incoming.wait() == "done"
        if limit:  # else it may have been over before the first cut
            assert outgoing.get("Reconnects") >= 1 and incoming.get("Reconnects") >= 1
        assert outgoing.get("BytesSent") == incoming.get("BytesReceived") == SIZE
