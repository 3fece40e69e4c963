# SPDX-License-Identifier: LGPL-2.1-or-later
"""tools/bench with real QEMUs: through every tunnel, with QEMU's own TLS, and without any."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmlib.bench import TUNNELS, measure, names, needs_root


@needs_root
@pytest.mark.long
def test_guests(workdir: Path, needs_postcopy: None) -> None:
    (rows,) = measure(workdir, "qemu").values()
    for mode in ("precopy", "postcopy"):
        some = [row for row in rows if row["mode"] == mode]
        assert names(some) == sorted((*TUNNELS, "qemu-tls"))
        for row in some:
            assert row["total_ms"]["median"] > 0 and row["mib"]["median"] > 16
    # The guest runs into pages that are not there yet; through some tunnel at least.
    assert any(row.get("faults", 0) > 0 for row in rows)
