# SPDX-License-Identifier: LGPL-2.1-or-later
"""'migrate --background' is a service of the host's systemd; stopped, it leaves a migration that --attach takes over."""

import re

from vmlib.broker import wait_until
from vmlib.migration import CONVERGE, Pair
from vmlib.nspawn import TwoHosts

BUS = "unix:path=/run/dbus/system_bus_socket"


def test_stopped_and_taken_over(needs_qemu: None, hosts: TwoHosts) -> None:
    host = hosts.a
    workdir = hosts.shared / "background"
    workdir.mkdir()
    with Pair(workdir, 64, prefixes=(host.enter_light, host.enter_light)) as pair:
        pair.source.wait_sweeps(1)
        begun = host.run("vmferryctl", "migrate", "web1", BUS, f"--qmp={pair.source.qmp_path}",
                         f"--dst-qmp={pair.destination.qmp_path}", "--bandwidth=8M", "--downtime-limit=1ms", "--backgr")
        found = re.search(r"moves in the background \((vmferry-migrate-[0-9a-f]{16}\.service)\)", begun.stderr)
        assert found, begun
        pair.wait_transferred(4 << 20)
        assert "active" in host.run("vmferryctl", "list").stdout
        host.systemctl("stop", found[1])
        assert pair.source.query_migrate()["status"] == "active"
        pair.source.set_parameters(CONVERGE)
        taken = host.run("vmferryctl", "migrate", "--att", "web1")
        assert "At the destination it is running" in taken.stderr, taken
        wait_until(lambda: pair.destination.status() == "running", "the guest to run there")
        pair.assert_unharmed()
    host.run("vmferryctl", "forget", "web1", check=False)
