#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures vmferry beside what people use instead. Run by tools/bench, which installs and builds what this needs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import distance  # noqa: E402
import guests  # noqa: E402
import many  # noqa: E402
import pages  # noqa: E402
import peers  # noqa: E402, F401  (they register themselves)
import plots  # noqa: E402
import report  # noqa: E402
import starts  # noqa: E402
import streams  # noqa: E402
import targets  # noqa: E402
import tunnels  # noqa: E402
import vmferry  # noqa: E402, F401
from lab import BenchError, Lab, read  # noqa: E402
from run import Run  # noqa: E402
from vmlib.broker import build_dir  # noqa: E402
from vmlib.qemu import qemu_binary  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "performance.md"

SECTIONS: dict[str, Callable[[Run], list[dict[str, Any]]]] = {
    "stream": streams.measure,
    "pages": pages.measure,
    "qemu": guests.measure,
    "start": starts.measure,
    "memory": starts.measure_memory,
    "many": many.measure,
    "scaling": streams.measure_scaling,
    "system": streams.measure_system,
    "distance": distance.measure,
}

USAGE = """Usage: tools/bench [OPTION…]

Measures vmferry beside what people use instead, all in one run and interleaved, and writes tables (Markdown, JSON) and
plots (PNG). Takes some 15 minutes on two cores, which should have nothing else to do.

  --only=NAME,…        these sections, or these tunnels, or both. Sections: stream, pages, qemu, start, memory, many,
                       scaling, system, distance. Tunnels: direct-unix, direct-tcp; socat, socat-256k, socket-proxyd, haproxy,
                       go; ssh, ssh-aes128-gcm, stunnel, haproxy-tls, socat-openssl-256k, go-mtls, qemu-tls;
                       io-floor, gnutls-floor; vmferry-plain, vmferry-tls, and both with -no-resume
  --rounds=N           that count (default 5; pre-copy: half as many again; some others: half as many)
  --gib=N              of a stream (default 1)
  --quick              tiny volumes, one round: does everything work? The figures are worth nothing
  --congestion=NAME    TCP's congestion control, or "system" for the machine's own (default reno)
  --output=DIR         where to write bench.json, bench.md and *.png (default build/bench)
  --from=DIR           measure nothing: take the figures that a run has written there
  --update-docs[=FILE] fill the tables of docs/performance.md, or of FILE, and put the plots beside it
  --check              say of every target whether it was met, and fail where one was not
  -h, --help           show this text

The exit status is 1 where something could not be measured, or with --check where a target was missed.
To measure two builds of vmferry against each other: tests/bench/compare.py --help.
"""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"tools/bench: {message}. See --help.\n")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="tools/bench", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--gib", type=float)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--congestion", default="reno")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--update-docs", nargs="?", type=Path, const=DOCUMENT)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.help:
        print(USAGE, end="")
        sys.exit(0)
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else 5
    options.gib = options.gib if options.gib is not None else 1 / 64 if options.quick else 1.0
    if not 1 <= options.rounds <= 1000:
        parser.error("--rounds is a number from 1 to 1000")
    if not 1 / 1024 <= options.gib <= 1024:
        parser.error("--gib is a number from 1/1024 to 1024")
    names = [name for name in options.only.split(",") if name]
    unknown = [name for name in names if name not in SECTIONS and name not in tunnels.REGISTRY]
    if unknown:
        parser.error(f"there is no section and no tunnel {', '.join(unknown)}")
    options.sections = [name for name in SECTIONS if name in names] or list(SECTIONS)
    options.tunnels = frozenset(name for name in names if name in tunnels.REGISTRY)
    if options.update_docs == DOCUMENT and options.quick:
        parser.error("--quick measures nothing worth writing down, so not with --update-docs")
    return options


def cpu_model() -> str:
    lines = [line for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else os.uname().machine


def conditions(run: Run, seconds: float) -> dict[str, Any]:
    def first_line(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]

    qemu = qemu_binary()
    return {
        "rounds": run.rounds, "gib": run.gib, "quick": run.quick, "congestion": run.lab.congestion,
        "system_congestion": run.lab.system_congestion, "cpu": cpu_model(), "cpus": len(os.sched_getaffinity(0)),
        "kernel": os.uname().release, "qemu": first_line(qemu, "--version").split()[3] if qemu else "none",
        "version": first_line(str(build_dir() / "broker" / "vmferryd"), "--version").split()[-1], "seconds": seconds,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    if os.geteuid() != 0:
        raise BenchError("only root can make network namespaces: run it with sudo")
    sections: dict[str, Any] = {}
    # A short path: sockets are below it.
    with tempfile.TemporaryDirectory(prefix="vmfb", dir="/tmp") as directory, \
            Lab(Path(directory), options.congestion) as lab:
        run = Run(lab, options.rounds, options.gib, options.quick, options.tunnels)
        began = time.monotonic()
        for name in options.sections:
            sections[name] = SECTIONS[name](run)
        return {"conditions": conditions(run, time.monotonic() - began), "sections": sections,
                "failures": run.failures}


def hand_over(directory: Path) -> None:
    """What root has written into the tree is its owner's."""
    if directory.resolve().is_relative_to(ROOT):
        owner = ROOT.stat()
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)


def write(data: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (directory / "bench.md").write_text(report.whole(data), encoding="utf-8")
    plots.draw(data["sections"], directory)
    hand_over(directory)


def update_docs(data: dict[str, Any], document: Path, directory: Path) -> None:
    report.update(document, data)
    beside = document.with_suffix("")
    beside.mkdir(exist_ok=True)
    for name in plots.PLOTS:
        if data["sections"].get(name):
            shutil.copyfile(directory / f"{name}.png", beside / f"{name}.png")
    hand_over(beside)


def check(data: dict[str, Any]) -> bool:
    """Says of each target of the sections that were to be measured whether it was met."""
    found = targets.check(data["sections"])
    for verdict in found:
        print(f"{verdict.word:12} {verdict.name:28} {verdict.text}")
    return all(verdict.met for verdict in found)


def main() -> int:
    options = arguments()

    def ended(number: int, _: Any) -> None:
        sys.exit(128 + number)  # an exception, so that all is stopped and removed on the way out

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    try:
        if options.source:
            data = json.loads((options.source / "bench.json").read_text(encoding="utf-8"))
        else:
            data = measure(options)
        write(data, options.output)
        if options.update_docs:
            update_docs(data, options.update_docs, options.output)
    except (BenchError, OSError, subprocess.CalledProcessError) as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        return 1
    met = True
    if options.check:
        met = check(data)
    else:
        with contextlib.suppress(BrokenPipeError):
            print(report.whole(data))
    for one in data["failures"]:
        print(f"tools/bench: {one['section']}, {one['tunnel']}: {one['error']}", file=sys.stderr)
    print(f"Written to {options.output}", file=sys.stderr)
    return 1 if data["failures"] or not met else 0


if __name__ == "__main__":
    sys.exit(main())
