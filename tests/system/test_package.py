# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package: what is in it.

VMFERRY_LONG=1 builds it a second time, which must give the same bytes.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from vmlib.broker import ROOT
from vmlib.package import build, package

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
/usr/lib/modules-load.d/vmferry.conf
/usr/lib/systemd/catalog/vmferry.catalog
/usr/lib/systemd/user/vmferry-helper.socket
/usr/lib/systemd/user/vmferry-helper@.service
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


def test_lintian() -> None:
    """What Debian expects of packages, down to what is a matter of taste; exceptions have their reasons beside them."""
    changes = package().with_suffix(".changes")
    done = subprocess.run(["lintian", "--display-info", "--pedantic", "--no-cfg", "--allow-root", changes],
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_files() -> None:
    """Neither more nor less than these, and documents."""
    listed = subprocess.run(["dpkg-deb", "--contents", package()], capture_output=True, text=True, check=True).stdout
    found = []
    for line in listed.splitlines():
        mode, owner, *_, name = line.split()
        assert owner == "root/root" and mode[1:] in ("rwxr-xr-x", "rw-r--r--"), line
        if mode[0] == "-" and not name.startswith("./usr/share/doc/vmferry/"):
            found.append(name[1:])
    assert sorted(found) == FILES


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
