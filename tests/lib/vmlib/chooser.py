# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stand-ins for helpers: tests/rogue. Brokers start their helpers through a script that lets another program be one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .broker import ROOT, build_dir

ROGUE = ROOT / "tests" / "rogue"
sys.path.insert(0, str(ROGUE))
from liar import LIES  # noqa: E402

__all__ = ["LIES", "Chooser"]


class Chooser:
    """What stands beside the script that starts helpers."""

    def __init__(self, workdir: Path) -> None:
        self.dir = workdir / "choose"
        self.dir.mkdir()
        self.script = self.dir / "choose"
        self.script.write_bytes((ROGUE / "choose").read_bytes())
        self.script.chmod(0o755)
        (self.dir / "helper").symlink_to(build_dir() / "helper" / "vmferry-helper")
        os.mkfifo(self.dir / "fifo")
        self.fifo = os.open(self.dir / "fifo", os.O_RDWR)

    def next_is(self, program: Path, deed: str) -> None:
        """The helper that is started next is this one."""
        assert program.exists(), f"{program} is not built"
        whole = self.dir / "whole"
        whole.write_text(f"{program}\n{deed}\n")
        whole.rename(self.dir / "next")

    def rogue(self, deed: str) -> None:
        self.next_is(build_dir() / "tests" / "rogue" / "vmferry-rogue", deed)

    def liar(self, deed: str) -> None:
        self.next_is(ROGUE / "liar.py", deed)

    def act(self) -> None:
        """Now. What is written waits in the FIFO where its reader has yet to come."""
        os.write(self.fifo, b"!")

    def close(self) -> None:
        os.close(self.fifo)
