# SPDX-License-Identifier: LGPL-2.1-or-later
"""Roots of Debian that debootstrap makes, for tools/test. They stay in /var/cache/vmferry-test, for the next time."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

CACHE = Path("/var/cache/vmferry-test")
# What a process in the root needs of the kernel. It is a mount namespace: all is gone with it. The directory becomes its root by
# pivot_root, not by chroot: tests make mount and user namespaces, which the kernel refuses to a process in a chroot. The shell stays
# as the first process, since that one has to wait for those that daemons leave behind.
ENTER_ROOT = """
set -e
mount --bind . . && cd "$(pwd -P)"
mount --bind /dev dev && mount --bind /dev/pts dev/pts && mount -t tmpfs tmpfs dev/shm
mount -t proc proc proc && mount -t sysfs sysfs sys && mount -t cgroup2 cgroup2 sys/fs/cgroup && mount -t tmpfs tmpfs run && mkdir run/lock
mount -t tmpfs tmpfs tmp && cp /etc/resolv.conf etc/resolv.conf
pivot_root . . && umount -l . && cd "$1" && shift
"$@" || exit $?
exit 0
"""
# What is built there stays; nothing else does, such as a test that this tree has no more.
COPY = """
set -e
mkdir -p "$1" && find "$1" -mindepth 1 -maxdepth 1 ! -name 'build-*' -exec rm -r {} +
git -c safe.directory='*' ls-files -z -co --exclude-standard | xargs -0 tar -c --ignore-failed-read | tar -x -C "$1"
cp -rT .git "$1/.git"
"""


def in_root(root: Path, directory: str, *command: str, show: bool = False) -> tuple[int, str]:
    """The command's exit status, and what it said, which is shown meanwhile if so wanted."""
    return _run(["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER_ROOT, "sh",
                 directory, *command], root, show)


def make_root(release: str, root: Path) -> tuple[int, str]:
    """By debootstrap, unless it is there."""
    if root.exists():
        return 0, ""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        status, text = _run(["debootstrap", "--variant=minbase", "--include=ca-certificates", release, f"{temporary}/root"],
                            root.parent)
        if status == 0:
            Path(temporary, "root").rename(root)
    return status, text


def copy_tree(tree: Path, root: Path) -> tuple[int, str]:
    """Puts the files of the tree into /vmferry of the root."""
    return _run(["sh", "-c", COPY, "sh", str(root / "vmferry")], tree)


def _run(command: list[str], directory: Path, show: bool = False) -> tuple[int, str]:
    said = []
    with subprocess.Popen(command, cwd=directory, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8"}) as process:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if show:
                print(line, end="", flush=True)
    return process.returncode, "".join(said)
