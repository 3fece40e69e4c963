# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package: what is in it, what its scripts do, and that migrations go on while it is up- and downgraded.

VMFERRY_LONG=1 builds it a second time, which must give the same bytes.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmlib.broker import BROKER, MIGRATION, PATH, ROOT, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.migration import CONVERGE, NEVER_CONVERGE, Pair
from vmlib.nspawn import Host, TwoHosts
from vmlib.package import build, next_version, package

UNIT = "vmferryd.service"
FILES = """
/etc/ufw/applications.d/vmferry
/etc/vmferry/vmferryd.conf
/lib/systemd/system/vmferry-giver.socket
/lib/systemd/system/vmferry-giver@.service
/lib/systemd/system/vmferry-helper.socket
/lib/systemd/system/vmferry-helper@.service
/lib/systemd/system/vmferry.slice
/lib/systemd/system/vmferryd.service
/usr/bin/vmferryctl
/usr/lib/firewalld/services/vmferry.xml
/usr/lib/systemd/catalog/vmferry.catalog
/usr/lib/systemd/user/vmferry-helper.socket
/usr/lib/systemd/user/vmferry-helper@.service
/usr/lib/systemd/user/vmferry-notify.service
/usr/lib/systemd/user/vmferry.slice
/usr/lib/systemd/user/vmferryd.service
/usr/lib/sysusers.d/vmferry.conf
/usr/lib/tmpfiles.d/vmferry.conf
/usr/libexec/vmferry/vmferry-giver
/usr/libexec/vmferry/vmferry-helper
/usr/libexec/vmferry/vmferryd
/usr/share/bash-completion/completions/vmferryctl
/usr/share/dbus-1/interfaces/org.vmferry.Broker1.xml
/usr/share/dbus-1/interfaces/org.vmferry.Migration1.xml
/usr/share/dbus-1/services/org.vmferry.Broker1.service
/usr/share/dbus-1/system-services/org.vmferry.Broker1.service
/usr/share/dbus-1/system.d/org.vmferry.Broker1.conf
/usr/share/lintian/overrides/vmferry
/usr/share/man/man1/vmferryctl.1.gz
/usr/share/man/man5/org.vmferry.Broker1.5.gz
/usr/share/man/man5/vmferryd.conf.5.gz
/usr/share/man/man7/vmferry-protocol.7.gz
/usr/share/man/man8/vmferry-giver.8.gz
/usr/share/man/man8/vmferry-helper.8.gz
/usr/share/man/man8/vmferryd.8.gz
/usr/share/pkgconfig/vmferry.pc
/usr/share/polkit-1/actions/org.vmferry.Broker1.policy
/usr/share/polkit-1/rules.d/60-vmferry.rules
/usr/share/zsh/vendor-completions/_vmferryctl
""".split()


def source_of(deb: Path) -> Path:
    """The description of its source package."""
    return deb.with_name(f"{deb.name.rpartition('_')[0]}.dsc")


# What is in it.


def test_lintian(tmp_path: Path) -> None:
    """What Debian expects of packages, down to what is a matter of taste; exceptions have their reasons beside them.

    A later lintian than Debian 12's knows a later policy, and has dropped a tag that is excepted.
    """
    changes = package().with_suffix(".changes")
    done = subprocess.run(["lintian", "--display-info", "--pedantic", "--no-cfg", "--allow-root", changes],
                          capture_output=True, text=True, timeout=600,
                          env=os.environ | {"TMPDIR": str(tmp_path)})  # where it leaves files
    later = re.compile("I: vmferry source: out-of-date-standards-version 4.6.2 |E: vmferry: alien-tag package-supports-alternative-init")
    said = done.stdout.splitlines()
    assert ([line for line in said if not later.match(line)], done.stderr) == ([], "")
    assert done.returncode == 0 or said


def test_files() -> None:
    """Neither more nor less than these, and documents."""
    listed = subprocess.run(["dpkg-deb", "--contents", package()], capture_output=True, text=True, check=True).stdout
    found = []
    for line in listed.splitlines():
        mode, owner, *_, name = line.split()
        assert owner == "root/root" and mode[1:] in ("rwxr-xr-x", "rw-r--r--"), line
        if mode[0] == "-" and not name.startswith("./usr/share/doc/vmferry/"):
            found.append(re.sub("^/usr(?=/lib/systemd/system/)", "", name[1:]))  # which it is, depends on debhelper
    assert sorted(found) == FILES


def test_files_for_cockpit() -> None:
    (deb,) = package().parent.glob("vmferry-cockpit_*_all.deb")
    listed = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    found = [line.split()[-1] for line in listed.splitlines() if line[0] == "-" and "/doc/" not in line]
    page = ("dialogs.js", "index.html", "manifest.json", "vmferry.css", "vmferry.js")
    assert sorted(found) == [*(f"./usr/share/cockpit/vmferry/{name}" for name in page),
                             "./usr/share/lintian/overrides/vmferry-cockpit"]


def test_documents(hosts: TwoHosts) -> None:
    there = hosts.a.run("dpkg", "--listfiles", "vmferry").stdout
    for name in ("README.Debian", "README.md.gz", "changelog.gz", "copyright", "threat-model.md.gz", "performance/qemu.png",
                 "examples/fd_client.py", "examples/vmferry-metrics.timer"):
        assert f"/usr/share/doc/vmferry/{name}\n" in there


def test_one_version() -> None:
    """NEWS, the program and the package agree; so does the date that pages of the manual have."""
    field = subprocess.run(["dpkg-deb", "--field", package(), "Version"], capture_output=True, text=True, check=True).stdout
    ((news, day),) = re.findall(r"\Avmferry (\S+) \((\S+)\)", (ROOT / "NEWS").read_text())
    assert field.strip().rpartition("-")[0] == news
    when = subprocess.run(["dpkg-parsechangelog", "--format=dpkg", "--show-field=Date"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout
    stamp = subprocess.run(["date", "--utc", "+%F", f"--date={when}"], capture_output=True, text=True, check=True).stdout
    assert stamp.strip() == day


@pytest.mark.long
def test_reproducible(tmp_path: Path) -> None:
    """Another build elsewhere gives the same bytes, of the source package, too."""
    build(tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix not in (".buildinfo", ".changes"):
            assert path.read_bytes() == (package().parent / path.name).read_bytes(), path.name


@pytest.mark.long
def test_rpm(tmp_path: Path) -> None:
    """rpmbuild makes an RPM, here, with the same files. No host has it installed."""
    subprocess.run([ROOT / "tools" / "build-rpm", tmp_path], check=True, capture_output=True, timeout=300)
    (rpm,) = tmp_path.glob("vmferry-*.x86_64.rpm")
    listed = subprocess.run(["rpm", "-qlp", rpm], check=True, capture_output=True, text=True).stdout.splitlines()
    there = {re.sub(r"^/usr(?=/lib/systemd/system/)", "", name) for name in listed}
    wanted = {name.removesuffix(".gz") for name in FILES if "lintian" not in name}
    assert not wanted - there, wanted - there


# What its scripts do.


def version_of(host: Host) -> str:
    return host.run("dpkg-query", "--show", "--showformat=${Version}", "vmferry").stdout


def listing(host: Host, paths: list[str]) -> set[str]:
    """What is at these paths and in these directories, and all that is below /etc and /var/lib, with modes and owners."""
    what = ("-printf", "%M %u:%g %p\n")
    found = host.run("find", *paths, "-maxdepth", "1", *what, check=False).stdout  # of those that are there
    found += host.run("find", "/etc", "/var/lib", "-xdev", *what).stdout
    others = re.compile(rf" /(var/lib/dpkg/|var/lib/systemd/catalog/|proc|sys|tmp|run|\.{re.escape(str(ROOT))}$)")
    return {line for line in found.splitlines() if not others.search(line)}


def test_purge(hosts: TwoHosts) -> None:
    """Of an installed package that was used nothing is left behind but its user; installed again it works at once."""
    host = hosts.b
    paths = host.run("dpkg", "--listfiles", "vmferry").stdout.splitlines()
    host.run("mkdir", "-p", "/etc/vmferry/vmferryd.conf.d")
    host.purge()
    try:
        before = listing(host, paths)
        assert not [line for line in before if "vmferry" in line], "files of vmferry"
        host.run("userdel", "vmferry")
        before_users = host.run("getent", "passwd").stdout
    finally:
        host.install()
    assert host.run("getent", "passwd").stdout != before_users
    host.get(PATH, BROKER, "Version")
    used = host.broker.prepare()
    used.cancel()
    used.wait_finished()
    assert "A live migration of VM" in host.run("journalctl", "--list-catalog").stdout
    host.purge()
    try:
        assert listing(host, paths) == before
        assert host.run("test", "-e", "/run/vmferry", check=False).returncode != 0
        assert not host.units("vmferry[d-]*")
        assert "A live migration of VM" not in host.run("journalctl", "--list-catalog").stdout
        assert host.failed_units() == []
    finally:
        host.reset()
        host.install()
    host.get(PATH, BROKER, "Version")


def test_nothing_is_started(hosts: TwoHosts) -> None:
    """Not by an installation, and not by an upgrade where no broker runs."""
    host = hosts.a
    host.systemctl("stop", UNIT)
    host.install()
    assert not host.broker_pid
    assert not host.run("find", "/etc/systemd", "-name", "*vmferry*").stdout


def test_upgrade(needs_postcopy: None, hosts: TwoHosts) -> None:
    """To another version and back, on both hosts, while eight migrations run, one of them a guest in post-copy."""
    size, n = 2 << 20, 7
    workdir = hosts.shared / "upgrade"
    workdir.mkdir()
    old, new = package(), next_version(package(), workdir)
    with Pair(workdir, 64, {"return-path": True}, prefixes=(hosts.a.enter_light, hosts.b.enter_light)) as pair, \
            ExitStack() as stack:
        pair.source.wait_sweeps(1)
        tunnels = []
        for i in range(n):
            incoming = hosts.b.broker.prepare(f"vm{i}", {"security": ("s", "tls" if i % 2 else "plain")})
            outgoing = hosts.a.broker.outgoing(incoming.ticket or "", f"vm{i}", {"bandwidth-limit": ("t", size // 20)})
            listener = stack.enter_context(FakeQemu.listen(incoming.socket(), timeout=120))
            source = stack.enter_context(FakeQemu.connect(outgoing.socket(), timeout=120))
            there = source.send_pattern(i, size, shut=True)
            destination = stack.enter_context(listener.accept())
            tunnels.append((incoming, outgoing, source, destination, there))
        incoming = hosts.b.broker.prepare()
        outgoing = hosts.a.broker.outgoing(incoming.ticket or "")
        pair.enable_postcopy()
        pair.source.set_parameters({**NEVER_CONVERGE, "max-bandwidth": 8 << 20, "max-postcopy-bandwidth": 1 << 20})
        pair.listen(f"unix:{incoming.get('Sockets')['migrate']}")
        pair.begin(f"unix:{outgoing.get('Sockets')['migrate']}")
        pair.wait_transferred(1 << 20)
        upgrade(hosts, new)
        assert pair.source.query_migrate()["status"] == "active"
        pair.begin_postcopy()
        upgrade(hosts, old)
        assert pair.source.query_migrate()["status"] == "postcopy-active"
        pair.source.set_parameters({**CONVERGE, "max-postcopy-bandwidth": 0})
        pair.wait_completed(120)
        pair.assert_unharmed()
        for i, (_, near, source, destination, there) in enumerate(tunnels):
            assert near.get("State") == "active", "it lasted until now"
            near.set_limit(0)
            assert destination.recv_pattern_until_eof(i) == size
            destination.shut_wr()
            assert source.recv_until_eof() == b""
            there.result(60)
        for end in (outgoing, incoming, *(end for pairs in tunnels for end in pairs[:2])):
            wait_until(lambda: end.get("State") == "finished", "it is finished")
            assert (end.get("Result"), end.get("Reconnects")) == ("done", 0)


def upgrade(hosts: TwoHosts, deb: Path) -> None:
    """On both hosts: another broker, the same helpers, and sockets that were there all the time."""
    for host in hosts:
        pid, version, helpers = host.broker_pid, version_of(host), helpers_of(host)
        socket = host.run("stat", "--format=%i", "/run/vmferry/helper.sock").stdout
        host.install(deb)
        assert version_of(host) != version
        assert host.broker_pid not in (0, pid), "it was started anew"
        assert host.run("stat", "--format=%i", "/run/vmferry/helper.sock").stdout == socket
        assert helpers_of(host) == helpers, "none was started anew"


def test_upgrade_of_users_brokers(hosts: TwoHosts) -> None:
    """A user's own broker is restarted, too, where it runs, and is not started where it does not."""
    host, directory = hosts.a, hosts.shared / "user"
    directory.mkdir()

    def run(*words: str) -> str:
        return host.run("systemctl", "--user", "--machine=alice@", *words).stdout.strip()

    host.systemctl("start", "user@4101.service")
    try:
        host.install(next_version(package(), directory))
        assert run("show", "--property=MainPID", "--value", UNIT) == "0"
        run("start", UNIT)
        pid = run("show", "--property=MainPID", "--value", UNIT)
        host.install()
        wait_until(lambda: run("show", "--property=MainPID", "--value", UNIT) not in ("0", pid), "another broker of alice's")
        run("stop", UNIT)
    finally:
        host.systemctl("stop", "user@4101.service")


def helpers_of(host: Host) -> dict[str, str]:
    """By migration: its helper's unit, by name and process."""
    units = {path: host.get(path, MIGRATION, "HelperUnit") for *_, path in host.broker.list()}
    return {path: f"{unit} {host.show(unit, 'MainPID')}" for path, unit in units.items()}


# Its own tests, which autopkgtest runs.


@pytest.mark.parametrize("name", ["demo", "service"])
def test_autopkgtest(needs_qemu: None, hosts: TwoHosts, name: str) -> None:
    tree = hosts.shared / f"source-{name}"
    subprocess.run(["dpkg-source", "--extract", source_of(package()), tree], check=True, capture_output=True)
    hosts.a.run("sh", "-c", f"cd {tree} && debian/tests/{name}", timeout=180)
