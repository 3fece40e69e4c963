# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains go from Debian 12 (libvirt 9.0, QEMU 7.2) to Debian 13 (libvirt 11.3, QEMU 10.0), and back.

The second host is an overlay of the root of Debian 13 that "tools/test trixie" makes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vmlib.domains import assert_moved, assert_stayed, ctl, needs_libvirt, wait_processed
from vmlib.libvirt import Background, Domain, Libvirt
from vmlib.nspawn import Host, TwoHosts, available
from vmlib.versions import TRIXIE

pytestmark = [
    needs_libvirt,
    pytest.mark.long,
    pytest.mark.skipif(not (TRIXIE / "usr/sbin/libvirtd").exists(), reason='no Debian 13: "tools/test trixie" makes one'),
]


@pytest.fixture(scope="module")
def both() -> Iterator[Libvirt]:
    if why := available():
        pytest.skip(why)
    with TwoHosts(("/", str(TRIXIE)), install=True) as hosts, Libvirt(hosts) as libvirt:
        versions = [host.run("virsh", "version", "--daemon").stdout for host in hosts]
        assert "against daemon: 9." in versions[0] and "against daemon: 11." in versions[1], versions
        yield libvirt


@pytest.fixture
def hosts(both: Libvirt) -> Iterator[TwoHosts]:
    """As conftest's."""
    yield both.hosts
    for host in both.hosts:
        host.clean()


def there_and_back(domain: Domain, hosts: TwoHosts, *how: str) -> None:
    for source, destination in ((hosts.a, hosts.b), (hosts.b, hosts.a)):
        domain.libvirt.order = (source, destination)
        done = ctl(source, "migrate", domain.name, f"host-{destination.name}", *how)
        assert domain.state(destination).startswith("running"), done.stderr
        assert domain.state(source) == ""
        if domain.disks:
            domain.assert_disks_equal()
        wait_sweeps_of(domain, destination)


def wait_sweeps_of(domain: Domain, host: Host) -> None:
    """Its whole memory was right once more since it is there."""
    before = domain.sweeps()
    domain.wait_sweeps(1)
    assert domain.sweeps() > before and domain.state(host).startswith("running")


def test_precopy(web1: Domain, hosts: TwoHosts) -> None:
    there_and_back(web1, hosts)


def test_several_connections(web1: Domain, hosts: TwoHosts) -> None:
    there_and_back(web1, hosts, "--multifd=3")


def test_postcopy(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    with libvirt.postcopy():
        there_and_back(web1, hosts, "--postcopy", "--bandwidth=8M")


def test_disks(web2: Domain, hosts: TwoHosts) -> None:
    there_and_back(web2, hosts, "--disks")


def test_disks_and_postcopy(libvirt: Libvirt, web2: Domain, hosts: TwoHosts) -> None:
    with libvirt.postcopy():
        there_and_back(web2, hosts, "--disks", "--postcopy", "--bandwidth=16M")


def test_cancel(web1: Domain, hosts: TwoHosts) -> None:
    """From the destination, with the other release's libvirt, only what is to be typed; and from the source."""
    moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=2M")
    wait_processed(web1, 2, hosts.a)
    refused = ctl(hosts.b, "cancel", "web1", check=False)
    assert refused.returncode == 1 and "Nothing is cancelled. At the source" in refused.stderr, refused
    ctl(hosts.a, "cancel", "web1")
    assert moving.wait().returncode == 3
    assert_stayed(web1, hosts.a, hosts.b)
    ctl(hosts.a, "migrate", "web1", "host-b")
    assert_moved(web1, hosts.a, hosts.b)
