# SPDX-License-Identifier: LGPL-2.1-or-later
"""A migration of a domain is cancelled, what carries it is killed, or the network goes away: it runs on one host."""

from __future__ import annotations

import re
import time

import pytest
from vmlib.broker import wait_until
from vmlib.domains import assert_moved, assert_stayed, ctl, needs_libvirt, record, wait_processed
from vmlib.libvirt import Background, Domain, Libvirt
from vmlib.nspawn import TwoHosts

pytestmark = needs_libvirt


def test_ctrl_c_has_libvirt_cancel(web1: Domain, hosts: TwoHosts) -> None:
    moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=2M")
    wait_processed(web1, 2, hosts.a)
    for host in hosts:
        wait_until(lambda: record(host, "web1")["Phase"] == "pre-copy", "its phase is told", 10)
        assert " pre-copy " in ctl(host, "list").stdout
        wait_until(lambda: record(host, "web1")["Details"].get("memory-total", 0) > 24 << 20, "so is its memory", 10)
    hosts.a.run("pkill", "-TERM", "-x", "vmferryctl")
    done = moving.wait()
    assert done.returncode == 3 and "canceled by client" in done.stderr, done
    assert_stayed(web1, hosts.a, hosts.b)
    for host in hosts:
        found = record(host, "web1")
        assert (found["Result"], found["Outcome"]) == ("cancelled", "not-moved"), found
        assert "canceled by client" in found["Details"]["reason"]
    assert [one[3] for host in hosts for one in host.broker.list()] == ["finished"] * 2
    ctl(hosts.a, "migrate", "web1", "host-b")  # nothing is in the way of the next try
    assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_cancel(web1: Domain, hosts: TwoHosts) -> None:
    moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=2M")
    wait_processed(web1, 2, hosts.a)
    ctl(hosts.a, "cancel", "web1")
    assert moving.wait().returncode == 3
    assert_stayed(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_nothing_cancels_a_postcopy(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    """'cancel' refuses, Ctrl-C leaves it to itself, and it comes to its end."""
    with libvirt.postcopy():
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--postcopy", "--bandwidth=3M")
        wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        refused = ctl(hosts.a, "cancel", "web1", check=False)
        assert refused.returncode == 1 and "is in post-copy: cancelling" in refused.stderr, refused.stderr
        hosts.a.run("pkill", "-INT", "-x", "vmferryctl")
        done = moving.wait()
        assert done.returncode == 1 and "it goes on by itself. See how it goes: vmferryctl watch" in done.stderr, done.stderr
        wait_until(lambda: web1.state(hosts.a) == "", "the source has let go of it", 60)
        assert_moved(web1, hosts.a, hosts.b)
        for host in hosts:
            wait_until(lambda host=host: host.broker.list()[-1][3] == "finished", "the tunnel is over", 30)  # type: ignore[misc]
            host.run("sh", "-c", "rm -rf /run/vmferryctl-*")


def test_cancel_at_the_destination(web1: Domain, hosts: TwoHosts) -> None:
    """It says what to type at the source, and that ends it; --force ends the tunnel, and the VM runs on at the source."""
    for way in ("at the source", "--force"):
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=2M")
        wait_processed(web1, 2, hosts.a)
        refused = ctl(hosts.b, "cancel", "web1", check=False)
        assert refused.returncode == 1 and "Nothing is cancelled. At the source (tcp:10.78.0.1:" in refused.stderr, refused
        wait_until(lambda: hosts.b.broker.list()[-1][3] == "active", "it goes on")
        if way == "--force":
            ctl(hosts.b, "cancel", "web1", "--force")
        else:
            found = re.search(r"At the source \S+: (vmferryctl cancel \w+), or virsh domjobabort web1\. ", refused.stderr)
            assert found, refused.stderr
            hosts.a.run(*found[1].split())
        done = moving.wait()
        assert done.returncode == 3 and "It runs on at the source" in done.stderr, done
        assert_stayed(web1, hosts.a, hosts.b)
        wait_until(lambda: {one[3] for host in hosts for one in host.broker.list()} == {"finished"}, "no tunnel is left")


@pytest.mark.long
def test_cancel_at_the_destination_in_postcopy(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    """It refuses, as at the source, and so it does once the VM has moved; meanwhile both hosts tell how far it is."""
    with libvirt.postcopy():
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--postcopy", "--bandwidth=3M")
        wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        for host in hosts:
            refused = ctl(host, "cancel", "web1", check=False)
            assert refused.returncode == 1 and "is in post-copy: cancelling" in refused.stderr, refused
            wait_until(lambda host=host: " post-copy " in ctl(host, "list").stdout, "it is told", 10)  # type: ignore[misc]
        watched = ctl(hosts.b, "watch", "web1")
        assert moving.wait().returncode == 0
        assert "web1: moved after" in watched.stderr, watched
        assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
@pytest.mark.parametrize("way", ["tunnel", "ssh"])
def test_vmferryctl_is_killed(web1: Domain, hosts: TwoHosts, way: str) -> None:
    """Peer to peer the migration goes on by itself; where vmferryctl speaks to both libvirt ends it."""
    moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=8M", f"--rpc={way}")
    wait_processed(web1, 2, hosts.a)
    hosts.a.run("pkill", "-KILL", "-x", "vmferryctl")
    assert moving.wait().returncode in (137, -9)
    if way == "tunnel":
        web1.hurry(hosts.a)
        wait_until(lambda: web1.state(hosts.b).startswith("running") and
                   not web1.state(hosts.a).startswith("running"), "it has moved", 60)
        assert_moved(web1, hosts.a, hosts.b)
    else:
        wait_until(lambda: web1.state(hosts.b) == "", "it is cancelled", 60)
        assert_stayed(web1, hosts.a, hosts.b)
    for host in hosts:
        host.run("vmferryctl", "cancel", "--force", "web1", check=False)
        host.run("sh", "-c", "rm -rf /run/vmferryctl-*")


def test_brokers_are_killed(web1: Domain, hosts: TwoHosts) -> None:
    """No migration notices."""
    moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=8M")
    wait_processed(web1, 2, hosts.a)
    for host in hosts:
        host.systemctl("kill", "--signal=KILL", "vmferryd.service")
    web1.hurry(hosts.a)
    assert moving.wait().returncode == 0
    assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.parametrize("postcopy", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_source_libvirtd_is_killed(libvirt: Libvirt, web1: Domain, hosts: TwoHosts, postcopy: bool) -> None:
    """vmferryctl connects to the next one, and has no tunnel end of which a post-copy goes on."""
    with libvirt.postcopy():
        how = ["--postcopy"] if postcopy else []
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=8M", *how)
        if postcopy:
            wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        else:
            wait_processed(web1, 2, hosts.a)
        hosts.a.systemctl("kill", "--kill-who=main", "--signal=KILL", "libvirtd.service")
        done = moving.wait()
        assert done.returncode == (0 if postcopy else 1), done.stderr
        if postcopy:
            assert_moved(web1, hosts.a, hosts.b)
        else:
            assert "It runs on at the source" in done.stderr, done.stderr
            assert_stayed(web1, hosts.a, hosts.b)


def test_no_disks_there(web2: Domain, hosts: TwoHosts) -> None:
    """Each failure says where the VM is, what libvirt says, and what to do; and no tunnel is left."""
    done = ctl(hosts.a, "migrate", "web2", "host-b", check=False)
    assert done.returncode == 1
    assert "It runs on at the source. libvirt says: Unsafe migration" in done.stderr and "Give --disks" in done.stderr
    hosts.b.run("sh", "-c", "rm /var/lib/libvirt/images/d*")
    done = ctl(hosts.a, "migrate", "web2", "host-b", "--disks", check=False)
    assert done.returncode == 1 and "no storage pool with matching target path" in done.stderr, done.stderr
    assert "Make images of the same names" in done.stderr
    assert_stayed(web2, hosts.a, hosts.b)
    wait_until(lambda: {one[3] for host in hosts for one in host.broker.list()} == {"finished"}, "no tunnel is left")


_OTHER = """
<domain type='qemu'>
  <name>other</name><memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
</domain>
"""


def test_what_cannot_be(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    done = ctl(hosts.a, "migrate", "web7", "host-b", check=False)
    assert done.returncode == 1 and "There is no domain 'web7' at qemu:///system (virsh list --all)" in done.stderr
    hosts.b.run("virsh", "-q", "create", "/dev/stdin", stdin=_OTHER)
    done = ctl(hosts.a, "migrate", "web1", "host-b", "--name=other", check=False)
    hosts.b.run("virsh", "-q", "destroy", "other")
    assert done.returncode == 1 and "It runs on at the source" in done.stderr and "give --name=" in done.stderr, done
    done = ctl(hosts.a, "migrate", "web1", "host-b", "--postcopy", "--multifd=2", check=False)
    assert done.returncode == 1 and "loses the guest with QEMU before 10.1" in done.stderr
    done = ctl(hosts.a, "migrate", "web1", "host-b", "--resume", check=False)
    assert done.returncode == 1 and "there is no post-copy to resume" in done.stderr
    with libvirt.postcopy(possible=False):
        done = ctl(hosts.a, "migrate", "web1", "host-b", "--postcopy", check=False)
    assert done.returncode == 1 and "unprivileged_userfaultfd=1" in done.stderr, done.stderr
    assert_stayed(web1, hosts.a, hosts.b)


@pytest.mark.long
@pytest.mark.parametrize("postcopy", [False, True])
def test_network_is_away(libvirt: Libvirt, web1: Domain, hosts: TwoHosts, postcopy: bool) -> None:
    with libvirt.postcopy():
        how = ["--postcopy"] if postcopy else []
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=4M", *how)
        if postcopy:
            wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        else:
            wait_processed(web1, 2, hosts.a)
        hosts.cut()
        time.sleep(12)  # what is said of 12 s holds
        hosts.mend()
        if not postcopy:
            web1.hurry(hosts.a)
        done = moving.wait()
        assert done.returncode == 0, done.stderr
        assert "interrupted" in done.stderr
        assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_network_is_away_for_longer_than_libvirt_waits(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    """libvirt gives up, the QEMUs do not: vmferryctl waits, and undefines what libvirt has forgotten."""
    with libvirt.postcopy():
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=4M", "--postcopy",
                            timeout=200)
        wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        web1.wait_sweeps(0)
        hosts.cut()
        time.sleep(45)
        hosts.mend()
        done = moving.wait(180)
        assert done.returncode == 0, done.stderr
        assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_paused_postcopy_is_resumed(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    with libvirt.postcopy():
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=4M", "--postcopy",
                            "--resume-timeout=4", timeout=200)
        wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        hosts.cut()
        wait_until(lambda: "post-copy failed" in web1.state(hosts.a), "QEMU has lost its connection", 60)
        hosts.mend()
        done = moving.wait(120)
        assert done.returncode == 1 and "--resume" in done.stderr, done.stderr
        ctl(hosts.a, "migrate", "web1", "host-b", "--resume")
        assert_moved(web1, hosts.a, hosts.b)


@pytest.mark.long
def test_helper_is_killed_in_postcopy(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    """No network brings the destination's half back: vmferryctl does not wait for it, and says what recovers the VM."""
    with libvirt.postcopy():
        moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=4M", "--postcopy", timeout=150)
        wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        hosts.b.systemctl("kill", "--signal=KILL", "vmferry-helper@*")
        done = moving.wait(120)
        assert "its half at the destination has ended" in done.stderr, done.stderr
        assert done.returncode == 1 and "migrate web1 --resume host-b" in done.stderr, done.stderr
        ctl(hosts.a, "migrate", "web1", "host-b", "--resume")
        assert_moved(web1, hosts.a, hosts.b)
