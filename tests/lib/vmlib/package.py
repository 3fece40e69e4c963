# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package of this tree, and another version of it to upgrade to."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
from pathlib import Path

from .broker import ROOT, build_dir

LIMIT = 900  # seconds


@functools.cache
def package() -> Path:
    """The package, built by tools/build-deb unless one that is newer than all sources is there. One process builds it."""
    directory = build_dir() / "deb"
    with (build_dir() / "deb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                                capture_output=True, text=True, check=True).stdout.splitlines()
        newest = max(path.lstat().st_mtime for path in map(ROOT.joinpath, listed) if path.is_symlink() or path.exists())
        there = [path for path in directory.glob("vmferry_*.deb") if path.stat().st_mtime > newest]
        if not there:
            build(directory)
            there = list(directory.glob("vmferry_*.deb"))
    (found,) = there
    return found


def build(directory: Path) -> None:
    """Puts the package into a directory; the unit tests run elsewhere."""
    done = subprocess.run([ROOT / "tools" / "build-deb", directory], capture_output=True, text=True, timeout=LIMIT,
                          env=os.environ | {"DEB_BUILD_OPTIONS": "nocheck"})
    assert done.returncode == 0, done.stdout + done.stderr


def next_version(deb: Path, directory: Path) -> Path:
    """The same package with a higher version."""
    tree, newer = directory / "tree", directory / "newer.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = (tree / "DEBIAN" / "control").read_text()
    (version,) = [line.partition(" ")[2] for line in control.splitlines() if line.startswith("Version: ")]
    (tree / "DEBIAN" / "control").write_text(control.replace(f"Version: {version}\n", f"Version: {version}+newer\n"))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, newer], check=True, stdout=subprocess.DEVNULL)
    return newer
