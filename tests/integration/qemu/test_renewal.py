# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QEMUs through helpers whose keys wear out after 32 MiB: each direction goes on under new ones."""

from pathlib import Path

import pytest

from vmlib.broker import build_dir
from vmlib.hosts import Hosts
from vmlib.migration import Pair

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]


@pytest.mark.parametrize("mode", ["precopy", pytest.param("postcopy", marks=pytest.mark.usefixtures("needs_postcopy"))])
def test_renewal(workdir: Path, mode: str) -> None:
    helper = build_dir() / "tests" / "echo" / "vmferry-renewing"
    with Hosts(workdir, helper=helper) as hosts, Pair(workdir, 128, {"return-path": True}) as pair:
        pair.source.wait_sweeps(1)
        tunnel = hosts.connect()
        getattr(pair, mode)(f"unix:{tunnel.outgoing.socket()}", f"unix:{tunnel.incoming.socket()}")
        sent, _ = tunnel.assert_done()
        pair.assert_unharmed()
        assert sum(broker.log().count("renewed a key") for broker in hosts.brokers) >= sent // (32 << 20) - 1 > 0
