# SPDX-License-Identifier: LGPL-2.1-or-later
"""check finds what stands in the way of a domain; tunnel, receive and send make its tunnel."""

from __future__ import annotations

import json
import re
import signal

import pytest
from vmlib.broker import wait_until
from vmlib.domains import assert_moved, ctl, needs_libvirt, wait_processed
from vmlib.libvirt import Background, Domain, Libvirt
from vmlib.nspawn import Host, TwoHosts

pytestmark = needs_libvirt
VIRSH = ("virsh", "migrate", "web1", "{dest-uri}", "--live", "--migrateuri", "{migrate-uri}")


def findings(host: Host, *argv: str) -> dict[str, dict[str, str]]:
    """What check has found, by the name of it; of two of one name the last."""
    return {one["Name"]: one for one in json.loads(ctl(host, "check", *argv, "--json=short", check=False).stdout)}


def test_check(libvirt: Libvirt, web2: Domain, hosts: TwoHosts) -> None:
    """What libvirt has here and there, and whether this domain can go; with advice that works under libvirt."""
    with libvirt.postcopy(possible=False):
        found = findings(hosts.a, "host-b", "--domain=web2")
    assert "FAIL" not in {found[name]["Verdict"] for name in ("libvirt", "rights", "domain", "machine", "cpu", "disks")}, found
    assert "name" not in found and "host uuid" not in found
    assert re.fullmatch(r"libvirt \d+\.\d+\.\d+ with QEMU \d+\.\d+\.\d+ answers at host-b\.", found["libvirt"]["Text"])
    assert "below /run/libvirt/vmferry" in found["rights"]["Text"]
    assert found["keepalive"]["Verdict"] == "warn" and "after 30 s" in found["keepalive"]["Text"]
    assert "keepalive_interval = -1" in found["keepalive"]["Remedy"]
    assert found["domain"]["Text"] == "web2 runs here."
    assert (found["machine"]["Verdict"], found["cpu"]["Verdict"]) == ("ok", "ok"), found
    assert found["disks"]["Text"].endswith(": vda, vdb.") and "--disks" in found["disks"]["Remedy"]
    assert found["pool"]["Verdict"] == "warn" and "--target /var/lib/libvirt/images" in found["pool"]["Remedy"]
    assert found["post-copy"]["Verdict"] == "warn"
    assert found["post-copy"]["Remedy"].startswith("As root there: sysctl vm.unprivileged_userfaultfd=1")
    assert "as root does not help" in found["post-copy"]["Remedy"]
    assert [one[3] for host in hosts for one in host.broker.list()] == []  # nothing of it is left


_ODD = """
<domain type='qemu'>
  <name>odd</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact'><model>qemu64</model><feature policy='require' name='amx-tile'/></cpu>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file'><source file='/srv/$(id)/odd.img'/><target dev='vda' bus='virtio'/></disk>
  </devices>
</domain>
"""


@pytest.mark.long
def test_check_finds_what_a_domain_lacks(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    hosts.a.run("virsh", "-q", "define", "/dev/stdin", stdin=_ODD)
    hosts.b.run("virsh", "-q", "pool-create-as", "images", "dir", "--target", "/var/lib/libvirt/images")
    try:
        found = findings(hosts.a, "host-b", "--domain=odd")
        assert found["cpu"]["Verdict"] == "FAIL" and "amx-tile" in found["cpu"]["Text"], found["cpu"]
        assert found["pool"]["Verdict"] == "warn" and found["pool"]["Remedy"].endswith(" --target '/srv/$(id)'"), found["pool"]
        assert found["domain"]["Verdict"] == "warn" and "is shut off" in found["domain"]["Text"]
        assert findings(hosts.a, "host-b", "--domain=none")["domain"]["Verdict"] == "FAIL"
        hosts.b.run("adduser", "-q", "alice", "vmferry")
        done = hosts.b.run("vmferryctl", "check", user="alice", check=False)
        assert re.search(r"^warn +libvirt .*\n +→ Run it as root, or as a member of the group libvirt", done.stdout, re.M)
        hosts.b.systemctl("stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd")
        found = findings(hosts.a, "host-b")
        assert found["libvirt"]["Verdict"] == "warn" and "Install libvirt there" in found["libvirt"]["Remedy"]
    finally:
        hosts.b.run("deluser", "-q", "alice", "vmferry", check=False)
        hosts.b.systemctl("start", "libvirtd.socket", "libvirtd")
        hosts.b.run("virsh", "-q", "pool-destroy", "images")
        hosts.a.run("virsh", "-q", "undefine", "odd")


@pytest.mark.parametrize("how", [["--p2p", "--persistent", "--undefinesource"],
                                 pytest.param(["--parallel", "--parallel-connections", "4", "--persistent",
                                               "--undefinesource"], marks=pytest.mark.long)])
def test_tunnel_for_virsh(web1: Domain, hosts: TwoHosts, how: list[str]) -> None:
    done = ctl(hosts.a, "tunnel", "web1", "host-b", "--libvirt", "--", *VIRSH, *how)
    assert done.returncode == 0
    assert_moved(web1, hosts.a, hosts.b)


def test_tunnel_ends_with_its_command(web1: Domain, hosts: TwoHosts) -> None:
    done = ctl(hosts.a, "tunnel", "web1", "host-b", "--disks", "--", "sh", "-c",
               "echo {migrate-uri} $VMFERRY_DISKS_URI $VMFERRY_DEST_URI; exit 7", check=False)
    assert done.returncode == 7
    assert re.fullmatch(r"unix:///run/libvirt/vmferry/(\w{16})/migrate\.tunnelmigrate\.dest\.web1 "
                        r"unix:///run/libvirt/vmferry/\1/disks\.tunnelmigrate\.dest\.web1 qemu\+ssh://host-b/system\n",
                        done.stdout)
    wait_until(lambda: [one[3] for host in hosts for one in host.broker.list()] == ["finished"] * 2, "it is over at both hosts")


def test_tunnel_is_left_to_a_postcopy(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    """SIGTERM ends its command, but not what libvirt goes on with; once that is over nothing is left."""
    with libvirt.postcopy():
        moving = Background(hosts.a, "vmferryctl", "tunnel", "web1", "host-b", "--libvirt", "--", *VIRSH, "--p2p",
                            "--persistent", "--undefinesource", "--postcopy", "--bandwidth=8", "--postcopy-bandwidth=8")
        wait_processed(web1, 1, hosts.a)
        hosts.a.run("virsh", "-q", "migrate-postcopy", "web1")
        wait_until(lambda: web1.state(hosts.b).startswith("running"), "post-copy runs", 60)
        hosts.a.run("pkill", "-TERM", "-x", "vmferryctl")
        done = moving.wait()
        assert done.returncode == 128 + signal.SIGTERM, done
        assert re.search(r"^Tunnel \w+ is left. VM 'web1' is in post-copy", done.stderr, re.M), done.stderr
        assert_moved(web1, hosts.a, hosts.b)
        wait_until(lambda: [one[3] for host in hosts for one in host.broker.list()] == ["finished"] * 2, "it is over")


@pytest.mark.long
def test_tunnel_and_disks_for_virsh(web2: Domain, hosts: TwoHosts) -> None:
    ctl(hosts.a, "tunnel", "web2", "host-b", "--disks", "--", "virsh", "migrate", "web2", "{dest-uri}", "--live",
        "--migrateuri", "{migrate-uri}", "--copy-storage-all", "--disks-uri", "{disks-uri}", "--persistent",
        "--undefinesource")
    assert_moved(web2, hosts.a, hosts.b)
    web2.assert_disks_equal()


@pytest.mark.parametrize("user", [None, "alice"])
def test_receive_and_send(libvirt: Libvirt, web2: Domain, hosts: TwoHosts, user: str | None) -> None:
    """No ssh: one port, a ticket, each side's own rights with libvirt. Also for a member of the two groups."""
    if user:
        for host in hosts:
            host.run("sh", "-c", "adduser -q alice libvirt; adduser -q alice vmferry; "
                                 "install -d -o alice -m 700 /run/user/4101")
    run = ["env", "XDG_RUNTIME_DIR=/run/user/4101"] if user else ["env"]
    receiving = Background(hosts.b, "sh", "-c", f"exec vmferryctl receive web2 --libvirt > {hosts.shared}/ticket",
                           user=user)
    ticket = hosts.shared / "ticket"
    if user:
        ticket.touch()
        ticket.chmod(0o666)
    wait_until(lambda: ticket.exists() and ticket.read_text().endswith("\n"), "there is a ticket", 30)
    done = hosts.a.run(*run, "vmferryctl", "send", "web2", "--libvirt", "--disks", user=user, stdin=ticket.read_text(),
                       timeout=120, check=False)
    ticket.unlink()
    assert done.returncode == 0, done.stderr
    assert receiving.wait().returncode == 0
    assert_moved(web2, hosts.a, hosts.b)
    web2.assert_disks_equal()


def test_receive_takes_its_ticket_back(libvirt: Libvirt, hosts: TwoHosts) -> None:
    denied = hosts.b.run("vmferryctl", "receive", "web1", "--libvirt", user="bob", check=False)
    assert denied.returncode == 5 and "add you to the groups libvirt and vmferry" in denied.stderr, denied
    receiving = Background(hosts.b, "vmferryctl", "receive", "web1", "--libvirt")
    wait_until(lambda: hosts.b.broker_pid and hosts.b.broker.list(), "it is prepared", 30)
    hosts.b.run("pkill", "-TERM", "-x", "vmferryctl")
    assert receiving.wait().returncode == 3
    wait_until(lambda: [one[3] for one in hosts.b.broker.list()] == ["finished"], "it is over")
