# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network that goes for good in post-copy: both QEMUs are paused, and recover through the same migration."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmlib.broker import Broker
from vmlib.migration import Pair
from vmlib.network import Network

pytestmark = pytest.mark.qemu

SLOW = 24 << 20  # bytes/s of post-copy, so that it lasts over the cuts


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_postcopy_recovers_twice(workdir: Path, needs_qemu: None, needs_postcopy: None, security: str) -> None:
    with (Network() as network,
          Broker(workdir, "a", netns=network.a) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0") as b,
          Pair(workdir, mib=256, parameters={"max-postcopy-bandwidth": SLOW}) as pair):
        resume = {"resume-timeout-usec": ("t", 500_000)}  # short: the cut is for good
        incoming = b.prepare(options={"security": ("s", security), **resume})
        assert incoming.ticket
        outgoing = a.outgoing(incoming.ticket, options=resume)
        source, destination = f"unix:{outgoing.socket()}", f"unix:{incoming.socket()}"
        pair.source.wait_sweeps(1)  # a VM of zeros would be over before the cut
        pair.enable_postcopy()
        pair.listen(destination)
        pair.begin(source)
        pair.begin_postcopy()

        for _ in range(2):
            network.cut()
            for qemu in (pair.source, pair.destination):
                qemu.wait_migration({"postcopy-paused"}, 60)
            for migration in (outgoing, incoming):
                migration.wait_state("interrupted")
                assert migration.get("ErrorName").endswith(".Interrupted") and migration.get("ErrorMessage")
            network.mend()
            pair.recover(source, destination)
            for migration in (outgoing, incoming):
                migration.wait_state("active")
                assert migration.get("ErrorName") == ""

        pair.wait_completed(120)
        assert outgoing.wait() == "done" and incoming.wait() == "done"
        assert outgoing.get("Reconnects") == incoming.get("Reconnects") == 2
        assert [channel[4] for channel in outgoing.get("Channels")] == ["lost", "lost", "closed"]
        pair.assert_unharmed()
