# SPDX-License-Identifier: LGPL-2.1-or-later
"""The walk-through of docs/by-hand.md does what it says, line for line."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from vmlib.broker import ROOT, build_dir

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_walk_through(workdir: Path, needs_qemu: None, needs_postcopy: None, security: str) -> None:
    block = re.search(r"<!-- walk-through.*?-->\n```sh\n(.*?)```", (ROOT / "docs" / "by-hand.md").read_text(), re.S)
    assert block
    script = block.group(1)
    if security == "plain":  # as the page says below it
        script = script.replace("PrepareIncoming 'sa{sv}' web1 0", "PrepareIncoming 'sa{sv}' web1 1 security s plain")
        assert "security s plain" in script
    (workdir / "build").symlink_to(build_dir())
    run = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=workdir, capture_output=True, text=True,
                         env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(workdir), "LC_ALL": "C"},
                         timeout=120)
    # The last lines end what was started; `wait` then tells how the last of them ended.
    assert run.returncode in (0, 128 + signal.SIGTERM), run.stderr
    out = run.stdout
    assert "s done\n" in out, out + run.stderr
    results = re.findall(r"s (\S+)\nt (\d+)\nt (\d+)\n", out)
    assert len(results) == 2, out + run.stderr
    (state_a, sent_a, received_a), (state_b, sent_b, received_b) = results
    assert (state_a, state_b) == ("done", "done")
    assert (sent_a, received_a) == (received_b, sent_b) and int(sent_a) > 1 << 20 and int(received_a) > 0
    assert "Migration status: completed" in out
    # One unbroken row of letters over both serial ports, and no wrong word.
    row = re.search(r">([A-Z]+)\n([A-Z]+)\n", out)
    assert row and "!" not in out, out
    letters = row.group(1) + row.group(2)
    assert all((ord(y) - ord(x)) % 26 == 1 for x, y in zip(letters, letters[1:])), letters
