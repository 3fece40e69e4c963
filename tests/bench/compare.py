#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures two builds of vmferry against each other, interleaved in one run: what does a change cost?

    sudo tests/bench/compare.py BUILD-A BUILD-B [--rounds=12] [--gib=1] [--security=plain,tls] [--channels=1,4]
                                [--congestion=reno,system] [--sections=stream,pages,start]

BUILD-A and BUILD-B are build directories (meson setup -Dbuildtype=release). Prints the median and the quartiles of each
build, and those of the ratio B/A, taken round by round. Trust only the ratio: machines are noisy. Needs root, and what
tools/bench installs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pages  # noqa: E402
import starts  # noqa: E402
import streams  # noqa: E402
from lab import Lab, spread  # noqa: E402
from run import Run  # noqa: E402
from tunnels import Spec, Tunnel  # noqa: E402
from vmferry import Vmferry  # noqa: E402

FIGURES = {"stream": ("cpu_s_per_gib", "gib_per_s"), "pages": pages.FIGURES,
           "start": ("warm_ms", "at_once_cold_ms", "at_once_ms")}


class Build(Vmferry):
    """vmferry from a build directory of its own."""

    def __init__(self, lab: Lab, security: str, directory: Path) -> None:
        super().__init__(lab, security)
        self.build = directory

    def start(self, destination: str) -> str:
        os.environ["VMFERRY_BUILD"] = str(self.build)
        return super().start(destination)


def start(run: Run, tunnel: Tunnel, security: str) -> dict[str, Any]:
    """With brokers of its own, of the tunnel's build."""
    assert isinstance(tunnel, Build)
    os.environ["VMFERRY_BUILD"] = str(tunnel.build)
    row = starts.start_rounds(run, security)
    return {key: row[key]["median"] for key in FIGURES["start"]}


def ratios(a: list[float], b: list[float]) -> dict[str, Any]:
    """Of the rounds, pair by pair."""
    return spread([y / x for x, y in zip(a, b) if x])


def table(found: dict[str, list[dict[str, Any]]], keys: tuple[str, ...]) -> None:
    for key in keys:
        values = {name: [one[key] for one in results] for name, results in found.items()}
        parts = [f"{name} {s['median']:8.3f} ({s['q1']:.3f}–{s['q3']:.3f})"
                 for name, s in ((name, spread(v)) for name, v in values.items())]
        ratio = ratios(values["A"], values["B"])
        print(f"  {key:15} {'   '.join(parts)}   B/A {ratio['median']:.3f} ({ratio['q1']:.3f}–{ratio['q3']:.3f})",
              flush=True)


def compare(run: Run, builds: dict[str, Path], security: str, title: str, section: str, rounds: int,
            once: Callable[[Callable[[], Tunnel]], dict[str, Any]], tell: Callable[[dict[str, Any]], str]) -> None:
    specs = [Spec(name, security, lambda lab, path=path: Build(lab, security, path), peer=False)
             for name, path in builds.items()]
    found = run.interleave(title, specs, rounds, lambda spec, _: once(lambda: spec.make(run.lab)), tell)
    if len({len(results) for results in found.values()}) == 1 and all(found.values()):
        print(f"{title}, {rounds} rounds", flush=True)
        table(found, FIGURES[section])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs=2, type=Path, metavar="BUILD")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--gib", type=float, default=1.0)
    for name, default in (("security", "plain,tls"), ("channels", "1,4"), ("congestion", "reno,system"),
                          ("sections", "stream,pages")):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=default.split(","))
    options = parser.parse_args()
    builds = {name: path.resolve() for name, path in zip("AB", options.builds)}
    os.environ["VMFERRY_BUILD"] = str(builds["A"])
    with tempfile.TemporaryDirectory(prefix="vmfb", dir="/tmp") as directory, \
            Lab(Path(directory), options.congestion[0]) as lab:
        run = Run(lab, options.rounds, options.gib, False, frozenset())
        for congestion in options.congestion:
            lab.set_congestion(congestion)
            for security in options.security:
                for n in map(int, options.channels) if "stream" in options.sections else ():
                    compare(run, builds, security, f"{security}, {n} channels, {congestion}", "stream", run.rounds,
                            lambda make, n=n: streams.transfer(lab, make(), run.mib, channels=n), streams.tell)
                if "pages" in options.sections:
                    compare(run, builds, security, f"{security}, pages, {congestion}", "pages", run.rounds,
                            lambda make: pages.ask(run, make), lambda r: f"{r['idle_p50_us']:.0f} µs idle")
                if "start" in options.sections:
                    compare(run, builds, security, f"{security}, start, {congestion}", "start", run.rounds,
                            lambda make, security=security: start(run, make(), security),
                            lambda r: f"{r['warm_ms']:.1f} ms; 20 at once: {r['at_once_ms']:.1f} ms")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
