# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of libvirt go from one booted host to the other through vmferry, with all that libvirt's own tunnel refuses."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from vmlib.broker import wait_until
from vmlib.libvirt import Background, Domain, Libvirt, available
from vmlib.nspawn import Host, TwoHosts

pytestmark = pytest.mark.skipif(bool(available()), reason=available() or "-")
VIRSH = ("virsh", "migrate", "web1", "{dest-uri}", "--live", "--migrateuri", "{migrate-uri}")


@pytest.fixture(scope="module")
def both(booted: TwoHosts) -> Iterator[Libvirt]:
    with Libvirt(booted) as libvirt:
        yield libvirt


@pytest.fixture
def libvirt(hosts: TwoHosts, both: Libvirt) -> Iterator[Libvirt]:
    both.order = (hosts.a, hosts.b)
    yield both
    both.clean()


@pytest.fixture
def web1(libvirt: Libvirt) -> Domain:
    domain = libvirt.domain("web1")
    domain.start()
    return domain


@pytest.fixture
def web2(libvirt: Libvirt) -> Domain:
    """With a raw and a qcow2 disk."""
    domain = libvirt.domain("web2", disks=True)
    domain.start()
    return domain


def ctl(host: Host, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return host.run("vmferryctl", *argv, check=check, timeout=120)


def assert_moved(domain: Domain, source: Host, destination: Host, persistent: bool = True) -> None:
    """It runs at the destination alone, defined there where it was here, and was never harmed."""
    assert domain.state(destination).startswith("running"), domain.state(destination)
    assert domain.state(source) in ("", "shut off (migrated)")
    assert domain.is_persistent(destination) == persistent
    assert domain.is_persistent(source) != persistent
    domain.assert_unharmed()


def assert_stayed(domain: Domain, source: Host, destination: Host) -> None:
    assert domain.state(source).startswith("running"), domain.state(source)
    assert domain.state(destination) == ""
    assert domain.is_persistent(source)
    domain.assert_unharmed()


def record(host: Host, vm: str) -> dict[str, Any]:
    """All that the broker there knows of its migration."""
    return cast(dict[str, Any], json.loads(ctl(host, "show", vm, "--json=short").stdout))


def wait_processed(domain: Domain, mib: int, host: Host) -> None:
    """Until so much of its memory has gone."""
    def processed() -> bool:
        text = host.run("virsh", "domjobinfo", domain.name, check=False).stdout
        found = re.search(r"Memory processed: +([\d.]+) (\w+)", text)
        return bool(found) and float(found[1]) * {"B": 0, "KiB": 0, "MiB": 1, "GiB": 1024}[found[2]] >= mib

    wait_until(processed, "memory flows", 60)


# ---- vmferryctl migrate ----


def test_migrate(web1: Domain, hosts: TwoHosts) -> None:
    done = ctl(hosts.a, "migrate", "web1", "host-b")
    assert re.search(r"^web1: done after .* At the destination it runs, and stays defined\.$", done.stderr, re.M)
    assert_moved(web1, hosts.a, hosts.b)
    assert re.search(r"; it stood still for [\d.]+ (ms|s);", done.stderr), done.stderr
    for host in hosts:
        shown = ctl(host, "show", "web1").stdout
        assert "\nResult=done\n" in shown and "\nOutcome=moved\n" in shown
        details = record(host, "web1")["Details"]
        assert details["downtime-usec"] > 0, details
        assert (details["told-by"], details["host"], details["run-state"]) == ("owner", "host-b", "running")


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


@pytest.mark.long
def test_one_disk(web2: Domain, hosts: TwoHosts) -> None:
    ctl(hosts.a, "migrate", "web2", "host-b", "--disks=vda", "--unsafe")
    assert_moved(web2, hosts.a, hosts.b)
    sums = [host.run("sha256sum", "/var/lib/libvirt/images/d1.img").stdout for host in hosts]
    assert sums[0] == sums[1]


def test_ctrl_c_has_libvirt_cancel(web1: Domain, hosts: TwoHosts) -> None:
    moving = Background(hosts.a, "vmferryctl", "migrate", "web1", "host-b", "--bandwidth=2M")
    wait_processed(web1, 2, hosts.a)
    for host in hosts:
        wait_until(lambda: record(host, "web1")["Phase"] == "pre-copy", "its phase is told", 10)
        assert " pre-copy " in ctl(host, "list").stdout
        assert record(host, "web1")["Details"]["memory-total"] > 24 << 20
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
    assert {one[3] for host in hosts for one in host.broker.list()} == {"finished"}


def test_what_cannot_be(libvirt: Libvirt, web1: Domain, hosts: TwoHosts) -> None:
    done = ctl(hosts.a, "migrate", "web7", "host-b", check=False)
    assert done.returncode == 1 and "There is no domain 'web7' at qemu:///system (virsh list --all)" in done.stderr
    done = ctl(hosts.a, "migrate", "web1", "host-b", "--postcopy", "--multifd=2", check=False)
    assert done.returncode == 1 and "loses the guest with QEMU before 10.1" in done.stderr
    done = ctl(hosts.a, "migrate", "web1", "host-b", "--resume", check=False)
    assert done.returncode == 1 and "there is no post-copy to resume" in done.stderr
    with libvirt.postcopy(possible=False):
        done = ctl(hosts.a, "migrate", "web1", "host-b", "--postcopy", check=False)
    assert done.returncode == 1 and "unprivileged_userfaultfd=1" in done.stderr, done.stderr
    assert_stayed(web1, hosts.a, hosts.b)


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


# ---- Losses ----


def resets(host: Host) -> None:
    """All of vmferry's connections break."""
    host.run("ss", "-K", "dport", "=", "16520")


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


# ---- tunnel ----


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
    assert [one[3] for host in hosts for one in host.broker.list()] == ["finished"] * 2


@pytest.mark.long
def test_tunnel_and_disks_for_virsh(web2: Domain, hosts: TwoHosts) -> None:
    ctl(hosts.a, "tunnel", "web2", "host-b", "--disks", "--", "virsh", "migrate", "web2", "{dest-uri}", "--live",
        "--migrateuri", "{migrate-uri}", "--copy-storage-all", "--disks-uri", "{disks-uri}", "--persistent",
        "--undefinesource")
    assert_moved(web2, hosts.a, hosts.b)
    web2.assert_disks_equal()


# ---- receive and send ----


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
    receiving = Background(hosts.b, "vmferryctl", "receive", "web1", "--libvirt")
    wait_until(lambda: hosts.b.broker_pid and hosts.b.broker.list(), "it is prepared", 30)
    hosts.b.run("pkill", "-TERM", "-x", "vmferryctl")
    assert receiving.wait().returncode == 3
    assert [one[3] for one in hosts.b.broker.list()] == ["finished"]
