# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pump of tests/bench: writes and reads a stream as QEMU does, as fast as it goes, and hashes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "bench" / "pump.c"


def build_pump(workdir: Path) -> Path:
    pump = workdir / "pump"
    subprocess.run(["cc", "-std=c17", "-D_GNU_SOURCE", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", str(pump),
                    str(SOURCE)], check=True)
    return pump


class Pump:
    """One end: `serve ADDRESS`, the destination, or `stream ADDRESS`, the source. result() is what it says of the stream."""

    def __init__(self, pump: Path, what: str, address: str, *args: str) -> None:
        self._socket = Path(address) if what == "serve" and address.startswith("/") else None
        self.process = subprocess.Popen([str(pump), what, address, *args], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def result(self, timeout: float) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"the pump ended with status {self.process.returncode}"
        (result,) = (line for line in map(json.loads, out.splitlines()) if line["kind"] == "stream")
        assert isinstance(result, dict)
        return result

    def close(self) -> None:
        if self.running:
            self.process.kill()
        self.process.communicate()
        if self._socket:
            self._socket.unlink(missing_ok=True)

    def __enter__(self) -> "Pump":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
