# SPDX-License-Identifier: LGPL-2.1-or-later
"""The round trip of a page request, as post-copy makes it: 8 bytes from the destination, a header and a page back.

First on an idle tunnel, then beside a channel that a stream saturates, from the source as well. Idle, each host has cores
of its own: on shared ones a proxy that polls without end (Go's runtime) is the faster, for it keeps a core from going idle.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

from lab import BenchError, end_process, spread
from run import Run
from streams import pumped, start_pump
from tunnels import Spec, Tunnel

FIGURES = ("idle_p50_us", "idle_p99_us", "busy_p50_us", "busy_p99_us")


class Lines:
    """What a pump says, line by line as it comes."""

    def __init__(self, pump: subprocess.Popen[bytes]) -> None:
        assert pump.stdout
        self._pump, self._out, self._held = pump, pump.stdout, b""

    def next(self, kind: str, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            line, newline, rest = self._held.partition(b"\n")
            if newline:
                self._held = rest
                found = json.loads(line)
                if found["kind"] == "error":
                    raise BenchError(f"the pump failed: {found['text']}")
                if found["kind"] == kind:
                    return dict(found)
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise BenchError(f"the pump said nothing of {kind} within {timeout:.0f} s")
            chunk = self._out.read1(65536)  # type: ignore[attr-defined]
            if not chunk:
                raise BenchError(f"the pump ended and said nothing of {kind}")
            self._held += chunk


def ask(run: Run, make: Callable[[], Tunnel]) -> dict[str, Any]:
    """Idle, then busy, with a tunnel each. An idle page is at one host at a time, so each host has its own cores."""
    with run.lab.apart():
        result = one(run, make(), "idle")
    return result | one(run, make(), "busy")


def one(run: Run, tunnel: Tunnel, state: str) -> dict[str, Any]:
    """For so many requests or so long, whatever is over first. The pump asks idle first."""
    requests, seconds = (100, 0.3) if run.quick else (3000, 1.2)
    serve = ("--connections", "2", "--requests", str(requests), "--seconds", str(seconds))
    with contextlib.ExitStack() as stack:
        address, sink = stack.enter_context(pumped(run.lab, tunnel, *serve))
        lines = Lines(sink)

        def source(*args: str) -> None:
            with run.lab.inside("a"):
                stack.callback(end_process, start_pump(run.lab, *args))

        source("pages", address)
        found = lines.next("idle", 30 + seconds)
        if state == "busy":
            source("stream", address, "--mib", str(1 << 20))  # it does not come to its end
            found = lines.next("busy", 60 + seconds)
        return figures(state, found)


def figures(state: str, found: dict[str, Any]) -> dict[str, Any]:
    return {f"{state}_{key}": found[key] for key in ("p50_us", "p99_us", "count")}


def measure(run: Run) -> list[dict[str, Any]]:
    specs = run.specs("pages")

    def once(spec: Spec, _: int) -> dict[str, Any]:
        return ask(run, lambda: spec.make(run.lab))

    found = run.interleave("pages", specs, run.fewer_rounds, once, tell)
    return [{"name": spec.name, "kind": spec.kind, "peer": spec.peer,
             **{key: spread([one[key] for one in found[spec.name]]) for key in FIGURES},
             "busy_count": sum(one["busy_count"] for one in found[spec.name])}
            for spec in specs if found[spec.name]]


def tell(result: dict[str, Any]) -> str:
    return "idle {idle_p50_us:6.0f} / {idle_p99_us:6.0f} µs, busy {busy_p50_us:7.0f} / {busy_p99_us:7.0f} µs".format(
        **result)
