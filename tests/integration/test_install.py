# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from vmlib.broker import ROOT, build_dir

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


