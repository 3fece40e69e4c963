# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM moves with its disk: QEMU's own mirror job over the stream `disks` while the memory goes through `migrate`."""

from __future__ import annotations

import os
import subprocess

import pytest
from vmlib.disks import SIZE, STREAMS, add_disk, export, make_disk, mirror, write
from vmlib.hosts import Hosts, Tunnel
from vmlib.migration import CONVERGE, NEVER_CONVERGE, Pair

pytestmark = pytest.mark.qemu

MIB = 32

@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.parametrize("multifd", [False, True], ids=["one", "multifd"])
def test_disk_and_memory(hosts: Hosts, needs_qemu: None, security: str, multifd: bool) -> None:
    incoming = hosts.prepare(security=security, streams=STREAMS)
    tunnel = Tunnel(hosts.start(incoming, streams=STREAMS), incoming)
    images = [hosts.workdir / "source.raw", hosts.workdir / "destination.raw"]
    for image in images:
        make_disk(image, filled=image == images[0])

    capabilities = {"pause-before-switchover": True, "multifd": multifd}
    with Pair(hosts.workdir, MIB, capabilities, {"multifd-channels": 2}) as pair:
        source, destination = pair.source, pair.destination
        version = source.execute("query-version")["qemu"]["major"]
        add_disk(source, images[0])
        add_disk(destination, images[1])
        source.wait_sweeps()

        # The disk begins, and the memory beside it; the disk is written to all the while.
        export(destination, incoming.socket("disks"))
        mirror(source, tunnel.outgoing.socket("disks"))
        source.set_parameters(NEVER_CONVERGE)
        pair.listen(f"unix:{incoming.socket()}")
        pair.begin(f"unix:{tunnel.outgoing.socket()}")
        # qemu-io holds the source's main loop until a write is mirrored; and QEMU 7.2's destination waits in its main
        # loop, where it serves NBD as well, for a multifd channel's first packet: each would wait for the other.
        pair.wait_transferred(1 << 20)
        for n in range(20):
            write(source, n * 50_000_000 & ~0xFFF, 1 << 20, n + 1)
        source.qmp.wait_event("BLOCK_JOB_READY", 120)
        write(source, 123 << 20, 1 << 20, 0x55)

        # The guest stands still: the mirror is brought up to date and ends, then the rest of the memory goes.
        source.set_parameters(CONVERGE)
        source.wait_migration({"pre-switchover"}, 60)
        source.execute("block-job-cancel", device="mirror")
        assert source.qmp.wait_event("BLOCK_JOB_COMPLETED", 60)["data"].get("error") is None
        source.execute("blockdev-del", node_name="target")
        source.execute("migrate-continue", state="pre-switchover")
        pair.wait_completed()
        destination.execute("nbd-server-stop")
        pair.assert_unharmed()

    tunnel.assert_done()
    streams = [channel[0] for channel in tunnel.outgoing.get("Channels")]
    assert streams.count("disks") == 1 and streams.count("migrate") == (3 if multifd else 1)
    (disk,) = [channel for channel in tunnel.outgoing.get("Channels") if channel[0] == "disks"]
    assert disk[2] > 90 << 20
    if version < 10:
        assert images[1].stat().st_blocks * 512 < SIZE // 2  # it has stayed sparse
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", *map(str, images)], check=True, timeout=60,
                   env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, stdout=subprocess.DEVNULL)
