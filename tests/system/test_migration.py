# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live guests go from one booted host to the other, by busctl calls alone: the bus starts the brokers."""

import re
from pathlib import Path

import pytest

from vmlib.broker import BROKER, MIGRATION, PATH, wait_until
from vmlib.migration import Pair
from vmlib.nspawn import Host, TwoHosts


def prepare(host: Host, vm: str = "web1") -> tuple[str, str]:
    """PrepareIncoming: the path and the ticket."""
    found = re.fullmatch(r'os "(\S+)" "(\S+)"\n', host.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", vm, "0"))
    assert found
    return found[1], found[2]


def start(host: Host, ticket: str, vm: str = "web1") -> str:
    """StartOutgoing: the path."""
    found = re.fullmatch(r'o "(\S+)"\n', host.call(PATH, BROKER, "StartOutgoing", "ssa{sv}", vm, ticket, "0"))
    assert found
    return found[1]


def stop_brokers(hosts: TwoHosts) -> None:
    for host in hosts:
        host.systemctl("stop", "vmferryd.service")
        assert not host.broker_pid


@pytest.mark.parametrize("mode", ["precopy", "postcopy"])
def test_by_busctl(needs_postcopy: None, hosts: TwoHosts, mode: str, tmp_path: Path) -> None:
    stop_brokers(hosts)
    begins = [(host, host.journal_cursor()) for host in hosts]
    workdir = hosts.shared / mode
    workdir.mkdir()
    with Pair(workdir, 64, {"return-path": True},
              prefixes=(hosts.a.enter_light, hosts.b.enter_light)) as pair:
        pair.source.wait_sweeps(1)
        incoming, ticket = prepare(hosts.b)
        outgoing = start(hosts.a, ticket)
        here, there = (f"unix:{host.get(path, MIGRATION, 'Sockets')['migrate']}"
                       for host, path in ((hosts.a, outgoing), (hosts.b, incoming)))
        getattr(pair, mode)(here, there)
        pair.assert_unharmed()
        for host, path in ((hosts.a, outgoing), (hosts.b, incoming)):
            assert host.call(path, MIGRATION, "Wait") == 's "done"\n'
            assert host.get(path, MIGRATION, "HelperUnit").startswith("vmferry-helper@")
            wait_until(lambda: "1 finished" in host.show("vmferryd", "StatusText"), "the status says so")
        assert hosts.a.get(outgoing, MIGRATION, "BytesSent") == hosts.b.get(incoming, MIGRATION, "BytesReceived")
    for host, cursor in begins:
        for entry in host.journal(f"--after-cursor={cursor}"):
            # Of our units and of what systemd says of them nothing asks for attention.
            assert int(entry["PRIORITY"]) > 4 or "vmferry" not in str(entry), entry
