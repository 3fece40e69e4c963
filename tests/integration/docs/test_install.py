# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is installed, and what "meson install" does afterwards."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from vmlib.broker import ROOT, build_dir

AFTER = ROOT / "tools" / "after-install"
STEPS = ["systemd-sysusers vmferry.conf", "systemd-tmpfiles --create vmferry.conf", "journalctl --update-catalog",
         "systemctl daemon-reload", "systemctl reload dbus.service"]
PAGES = sorted(path.name.removesuffix(".rst") for path in (ROOT / "docs").glob("*.rst"))


def version() -> str:
    found = re.search(r"^  version: '([\d.]+)'", (ROOT / "meson.build").read_text(), re.M)
    assert found
    return found[1]


def release() -> tuple[str, str]:
    """The newest release's version and day, as NEWS has them."""
    found = re.match(r"vmferry (\S+) \((\d{4}-\d\d-\d\d)\)\n", (ROOT / "NEWS").read_text())
    assert found
    return found[1], found[2]


def test_one_version() -> None:
    assert release()[0] == version()
    assert f'"{version()}"' in (build_dir() / "version.h").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str) -> None:
    """It has its date and version, and is shown without a warning: no table is damaged."""
    page = build_dir() / "docs" / name
    number, day = release()
    assert re.search(rf'^\.TH "\S+" "?\d"? "{day}" "vmferry {re.escape(number)}" "vmferry"$', page.read_text(), re.M)
    done = subprocess.run(["man", "--warnings=w", "--local-file", page], capture_output=True, text=True, timeout=60,
                          env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"vmferry {number}" in done.stdout and day in done.stdout


def after(tmp_path: Path, prefix: str = "/usr", missing: str = "", failing: str = "") -> tuple[int, list[str], str]:
    """Runs tools/after-install with stand-ins for all commands: its exit status, what it ran, and what it said."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in {step.split()[0] for step in STEPS} - {missing}:
        (bin_ / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/ran\n[ "$1" != "{failing or "-"}" ]\n')
        (bin_ / name).chmod(0o755)
    (bin_ / "id").symlink_to(shutil.which("id") or "")
    script = AFTER.read_text().replace("/run/systemd/system", str(tmp_path))
    done = subprocess.run(["/bin/sh", "-s"], input=script, capture_output=True, text=True, timeout=20,
                          env={"PATH": str(bin_), "MESON_INSTALL_PREFIX": prefix})
    ran = (tmp_path / "ran").read_text().splitlines() if (tmp_path / "ran").exists() else []
    return done.returncode, ran, done.stdout + done.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_after_install(tmp_path: Path) -> None:
    """The user first: the policy of the bus names it."""
    assert after(tmp_path) == (0, STEPS, "")


@needs_root
def test_part_is_missing(tmp_path: Path) -> None:
    status, ran, said = after(tmp_path, missing="systemd-tmpfiles")
    assert (status, ran) == (0, STEPS[:1] + STEPS[2:])
    assert said == "vmferry: there is no systemd-tmpfiles: the directory /run/vmferry, which vmferry owns, must be made by hand.\n"


@needs_root
def test_part_fails(tmp_path: Path) -> None:
    """The others are done all the same."""
    status, ran, said = after(tmp_path, failing="reload")
    assert (status, ran) == (1, STEPS)
    assert said.startswith("vmferry: 'systemctl reload dbus.service' failed: vmferryd cannot have its name")


def test_other_prefix(tmp_path: Path) -> None:
    status, ran, said = after(tmp_path, prefix="/opt/vmferry")
    assert (status, ran) == (0, []) and "not in /opt/vmferry: the service is not set up" in said
