# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMUs of several versions on one machine: its own, that of the root of Debian 13 which "tools/test trixie" makes, and
those that $VMFERRY_QEMUS names (paths, with colons between them)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from .qemu import qemu_binary

TRIXIE = Path("/var/cache/vmferry-test/trixie")
# With the root's own libraries, but in this machine's files.
_IN_TRIXIE = ["sh", "-c", f"""shift; exec {TRIXIE}/usr/lib64/ld-linux-x86-64.so.2 \
--library-path {TRIXIE}/usr/lib/x86_64-linux-gnu:{TRIXIE}/usr/lib/x86_64-linux-gnu/systemd \
{TRIXIE}/usr/bin/qemu-system-x86_64 -L {TRIXIE}/usr/share/qemu -L {TRIXIE}/usr/share/seabios "$@" """, "sh"]


def qemus() -> dict[str, list[str]]:
    """By their versions, what to put in front of a command line of QEMU's so that this one runs."""
    commands = []
    if binary := qemu_binary():
        commands.append(["sh", "-c", f'shift; exec {binary} "$@"', "sh"])
    if (TRIXIE / "usr/bin/qemu-system-x86_64").exists():
        commands.append(_IN_TRIXIE)
    for path in filter(None, os.environ.get("VMFERRY_QEMUS", "").split(":")):
        commands.append(["sh", "-c", f'shift; exec {path} "$@"', "sh"])
    found = {}
    for command in commands:
        said = subprocess.run([*command, "qemu", "--version"], capture_output=True, text=True, timeout=20).stdout
        if version := re.search(r"version (\d+\.\d+)", said):
            found[version[1]] = command
    return found
