# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs tests/bench for a test: quickly, and for what it says; its figures are worth nothing then."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .broker import ROOT, build_dir

DIRECT = ("direct-unix", "direct-tcp")
PLAIN = ("socat", "socat-256k", "socket-proxyd", "haproxy", "go", "vmferry-plain")
TLS = ("ssh", "ssh-aes128-gcm", "stunnel", "haproxy-tls", "socat-openssl-256k", "go-mtls", "vmferry-tls")
TUNNELS = (*DIRECT, *PLAIN, *TLS)
SECTIONS = ("stream", "pages", "qemu", "start", "memory", "many", "scaling", "system", "distance")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")


def bench(*args: str, timeout: float = 600) -> tuple[int, str, str]:
    """Its exit status, and what it said on stdout and stderr. No network of its is left."""
    process = subprocess.Popen([sys.executable, "-B", str(ROOT / "tests" / "bench" / "bench.py"), *args],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"VMFERRY_BUILD": str(build_dir())})
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.send_signal(signal.SIGTERM)  # it ends what it has started
        process.communicate(timeout=30)
        raise
    spaces = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert f"vf{process.pid}-" not in spaces
    return process.returncode, out, err


def measure(workdir: Path, *only: str) -> dict[str, Any]:
    """The sections of a quick run, all of whose measurements have worked and whose files are there."""
    directory = workdir / "out"
    status, _, err = bench("--quick", f"--only={','.join(only)}", f"--output={directory}")
    assert status == 0, err
    data = json.loads((directory / "bench.json").read_text())
    assert data["failures"] == []
    assert data["conditions"]["congestion"] == "reno"
    text = (directory / "bench.md").read_text()
    for name, rows in data["sections"].items():
        assert rows, f"{name} is empty"
        for row in rows:
            assert row.get("name", row.get("security", "")) in text
            check_figures(row)
    for plot in directory.glob("*.png"):
        assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and plot.stat().st_size > 1000
    found: dict[str, Any] = data["sections"]
    return found


def check_figures(value: Any) -> None:
    """All numbers are numbers, and none is negative."""
    if isinstance(value, dict):
        for one in value.values():
            check_figures(one)
    elif isinstance(value, list):
        for one in value:
            check_figures(one)
    elif isinstance(value, (int, float)):
        assert math.isfinite(value) and value >= 0


def names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["name"] for row in rows})
