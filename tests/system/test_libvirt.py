# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of libvirt go from one booted host to the other through vmferry, with all that libvirt's own tunnel refuses."""

from __future__ import annotations

import re

import pytest
from vmlib.broker import wait_until
from vmlib.domains import assert_moved, ctl, needs_libvirt, record, wait_processed
from vmlib.libvirt import Background, Domain, Libvirt
from vmlib.nspawn import TwoHosts

pytestmark = needs_libvirt


def test_migrate(web1: Domain, hosts: TwoHosts) -> None:
    hosts.a.run("virsh", "-q", "autostart", "web1")
    done = ctl(hosts.a, "migrate", "web1", "host-b")
    assert re.search(r"Autostart: +enable", hosts.b.run("virsh", "dominfo", "web1").stdout)
    assert re.search(r"^web1: done after .* At the destination it runs, and stays defined\.$", done.stderr, re.M)
    assert_moved(web1, hosts.a, hosts.b)
    assert re.search(r"; it stood still for [\d.]+ (ms|s);", done.stderr), done.stderr
    for host in hosts:
        shown = ctl(host, "show", "web1").stdout
        assert "\nResult=done\n" in shown and "\nOutcome=moved\n" in shown
        details = record(host, "web1")["Details"]
        assert details["downtime-usec"] > 0, details
        assert (details["told-by"], details["host"], details["run-state"]) == ("owner", "host-b", "running")


def test_name_that_no_uri_has(libvirt: Libvirt, hosts: TwoHosts) -> None:
    domain = libvirt.domain("a wéb%41")
    domain.start()
    ctl(hosts.a, "migrate", domain.name, "host-b")
    assert_moved(domain, hosts.a, hosts.b)


def test_all_in_one(web2: Domain, hosts: TwoHosts) -> None:
    """Disks, several connections and libvirt's own calls, through one port."""
    moving = Background(hosts.a, "vmferryctl", "migrate", "web2", "host-b", "--disks", "--multifd=3", "--bandwidth=16M")
    for host in hosts:
        wait_until(lambda: any(one[1] == "web2" for one in host.broker.list()) and
                   record(host, "web2")["Details"].get("disk-total", 0) >= 40 << 20, "its disks are told", 30)
    wait_processed(web2, 1, hosts.a)
    web2.hurry(hosts.a)
    done = moving.wait()
    assert done.returncode == 0, done.stderr
    assert_moved(web2, hosts.a, hosts.b)
    web2.assert_disks_equal()
    channels = hosts.a.get(hosts.a.broker.list()[-1][5], "org.vmferry.Migration1", "Channels")
    assert {channel[0] for channel in channels} == {"migrate", "disks", "libvirt"}, done.stderr


@pytest.mark.parametrize("when", ["", pytest.param("=auto", marks=pytest.mark.long),
                                  pytest.param("=after 2", marks=pytest.mark.long)])
def test_postcopy(libvirt: Libvirt, web1: Domain, hosts: TwoHosts, when: str) -> None:
    with libvirt.postcopy():
        # So slow that pre-copy does not come to its end, and post-copy takes its time.
        done = ctl(hosts.a, "migrate", "web1", "host-b", f"--postcopy{when}", "--bandwidth=8M")
        assert re.search(r"^web1  post-copy", done.stderr, re.M), done.stderr
        assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_postcopy_and_disks(libvirt: Libvirt, web2: Domain, hosts: TwoHosts) -> None:
    with libvirt.postcopy():
        ctl(hosts.a, "migrate", "web2", "host-b", "--postcopy", "--disks", "--bandwidth=16M")
        assert_moved(web2, hosts.a, hosts.b)
        web2.assert_disks_equal()


@pytest.mark.long
@pytest.mark.parametrize("how", [[], ["--postcopy", "--bandwidth=8M"]])
def test_calls_by_ssh(libvirt: Libvirt, web1: Domain, hosts: TwoHosts, how: list[str]) -> None:
    """vmferryctl speaks to both libvirtds, not the one to the other."""
    with libvirt.postcopy():
        ctl(hosts.a, "migrate", "web1", "host-b", "--rpc=ssh", *how)
        assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_one_disk(web2: Domain, hosts: TwoHosts) -> None:
    ctl(hosts.a, "migrate", "web2", "host-b", "--disks=vda", "--unsafe")
    assert_moved(web2, hosts.a, hosts.b)
    sums = [host.run("sha256sum", "/var/lib/libvirt/images/d1.img").stdout for host in hosts]
    assert sums[0] == sums[1]


@pytest.mark.long
def test_there_and_back(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    for source, destination in ((hosts.a, hosts.b), (hosts.b, hosts.a)) * 2:
        ctl(source, "migrate", "web1", f"host-{destination.name}")
        assert web1.state(destination).startswith("running") and not web1.state(source).startswith("running")
    assert web1.is_persistent(hosts.a)


@pytest.mark.long
def test_another_name_and_no_definition(web1: Domain, hosts: TwoHosts) -> None:
    ctl(hosts.a, "migrate", "web1", "host-b", "--name=web9", "--temporary")
    assert hosts.b.run("virsh", "domstate", "web9").stdout.strip() == "running"
    assert web1.is_persistent(hosts.a) and web1.state(hosts.a) == "shut off (migrated)"
    hosts.b.run("virsh", "destroy", "web9")


@pytest.mark.long
def test_paused(web1: Domain, hosts: TwoHosts) -> None:
    ctl(hosts.a, "migrate", "web1", "host-b", "--paused")
    assert web1.state(hosts.b).startswith("paused")
    hosts.b.run("virsh", "resume", "web1")
    assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_from_a_third_place(web1: Domain, hosts: TwoHosts) -> None:
    """Host b sends what runs on a to itself: by ssh to both."""
    hosts.b.run("vmferryctl", "-H", "host-a", "migrate", "web1", "host-b", timeout=120)
    assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_own_domains_of_a_user(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    """qemu:///session, by the user's brokers; and the system's domain as a member of the two groups, by the user's ssh."""
    alice = ["env", "HOME=/home/alice", "XDG_RUNTIME_DIR=/run/user/4101"]
    virsh = [*alice, "virsh", "-q", "-c", "qemu:///session"]
    for host in hosts:
        host.run("sh", "-ec", f"""
            usermod -d /home/alice -s /bin/bash -p '*' alice; adduser -q alice libvirt; adduser -q alice vmferry
            install -d -o alice -m 700 /home/alice /home/alice/.ssh; chmod 711 /var/lib/libvirt/images
            install -o alice -m 600 {hosts.shared}/libvirt-key /home/alice/.ssh/id_ed25519
            install -o alice -m 600 {hosts.shared}/libvirt-key.pub /home/alice/.ssh/authorized_keys
            install -o alice -m 600 /root/.ssh/config /home/alice/.ssh/config
            loginctl enable-linger alice""")
        wait_until(lambda: host.run("test", "-S", "/run/user/4101/bus", check=False).returncode == 0, "alice has a bus", 30)
        host.run(*virsh, "list", user="alice")  # starts her libvirtd
    xml = hosts.a.run("virsh", "dumpxml", "--inactive", "web1").stdout.replace("/var/log/libvirt/web1.ser", "/home/alice/s.ser")
    (hosts.shared / "own.xml").write_text(xml)
    hosts.a.run(*virsh, "create", str(hosts.shared / "own.xml"), user="alice")
    try:
        hosts.a.run(*alice, "vmferryctl", "--user", "migrate", "web1", "host-b", user="alice", timeout=120)
        assert hosts.b.run(*virsh, "domstate", "web1", user="alice").stdout.strip() == "running"
        assert hosts.a.run(*virsh, "list", "--all", user="alice").stdout.strip() == ""
        hosts.a.run(*alice, "vmferryctl", "migrate", "web1", "host-b", user="alice", timeout=120)
        assert_moved(web1, hosts.a, hosts.b)
    finally:
        for host in hosts:
            host.run(*virsh, "destroy", "web1", user="alice", check=False)
            host.run("sh", "-c", "loginctl disable-linger alice; loginctl terminate-user alice; "
                                 "deluser -q alice libvirt; deluser -q alice vmferry; rm -rf /home/alice")
