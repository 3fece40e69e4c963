# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the simulation (README.md): the corpus of seeds that once found something, and new seeds.

    /usr/bin/python3 tests/sim/run.py PROGRAM [--count N] [--seconds N] [--first SEED]

One seed's schedule is told by the program itself: vmferry-sim SEED.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"
FAULTS_MAX = 5  # of one process, before it is left at that


@dataclass
class Tally:
    schedules: int = 0
    steps: int = 0
    faults: list[str] = field(default_factory=list)


def corpus() -> list[list[str]]:
    """The arguments of vmferry-sim: a seed a line, or "allocation" or "call" and a seed; and what it found."""
    found = (re.match(r"((?:allocation|call) )?(\d+)", line) for line in CORPUS.read_text().splitlines())
    return [one[0].split() for one in found if one]


def start(program: str, first: int, count: int, seconds: int, mode: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen([program, *mode, str(first), str(count), str(max(1, seconds))], text=True, errors="replace",
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def take(said: str, status: int, tally: Tally) -> int | None:
    """Counts what a process did; the seed at which it stopped, if it did not come to its end."""
    done = re.search(r"^(?:\d+ failed once each; )?(\d+) schedules from seed \d+ on, (\d+) steps", said, re.M)
    if status == 0 and done:
        tally.schedules += int(done[1])
        tally.steps += int(done[2])
        return None
    fault = re.findall(r"FAULT seed (\d+).*", said)
    lines = [line for line in said.splitlines() if "FAULT" in line or "ERROR" in line or "runtime error" in line]
    tally.faults.append("; ".join(lines) or said[-500:] or f"exit status {status}")
    return int(fault[-1]) if fault else None


def run(program: str, first: int, count: int, seconds: int, processes: int) -> Tally:
    """So many seeds from the first on, or as many as fit into the time."""
    tally, share = Tally(), -(-count // processes)
    until = time.monotonic() + seconds
    ranges = [(first + i * share, share) for i in range(processes)]
    running = {i: (start(program, *one, seconds), *one) for i, one in enumerate(ranges)}
    while running:
        i, (process, begin, left) = next(iter(running.items()))
        said, _ = process.communicate()
        del running[i]
        stopped = take(said, process.returncode, tally)
        if stopped is None or len(tally.faults) >= FAULTS_MAX:
            continue
        tally.schedules += stopped - begin
        left -= stopped - begin + 1
        if left > 0 and time.monotonic() < until:
            running[i] = (start(program, stopped + 1, left, int(until - time.monotonic())), stopped + 1, left)
    return tally


def run_corpus(program: str) -> Tally:
    tally = Tally()
    for *mode, seed in corpus():
        process = start(program, int(seed), 1, 60, tuple(mode))
        said, _ = process.communicate()
        take(said, process.returncode, tally)
    return tally


def run_lies(program: str, first: int, seconds: int) -> tuple[int, list[str]]:
    """Schedules in which a peer or a broker says what is not true."""
    tally = Tally()
    process = start(program, first, 1000000, seconds, ("lies",))
    said, _ = process.communicate()
    take(said, process.returncode, tally)
    print(f"  {tally.schedules:,} schedules with lies", flush=True)
    return tally.schedules, [f"lies: {fault}" for fault in tally.faults]


def fail_each(program: str, what: str, first: int, count: int, seconds: int) -> tuple[int, list[str]]:
    """Each allocation (or call) of these schedules fails once: how many there were."""
    done = subprocess.run([program, what, str(first), str(count), str(seconds)], text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    failed = re.search(r"^(\d+) failed once each; (\d+) schedules", done.stdout, re.M)
    if done.returncode == 0 and failed:
        print(f"  {int(failed[1]):,} {what}s of {failed[2]} schedules failed, one at a time", flush=True)
        return int(failed[1]), []
    return 0, [f"{what}: {done.stdout[-400:].strip()}"]


def simulate(program: str, count: int, seconds: int, first: int | None = None, processes: int | None = None,
             failing: tuple[int, int] = (1000, 8)) -> tuple[int, list[str]]:
    """Schedules that were as they must be, and what was not. failing: of so many each allocation and call fails once,
    or of as many as fit into so many seconds; for as long there are lies."""
    first = first if first is not None else int(time.time()) * 1000000
    old = run_corpus(program)
    began = time.monotonic()
    processes = processes or os.cpu_count() or 1
    new = run(program, first, count, seconds, processes)
    took = max(time.monotonic() - began, 0.001)
    print(f"  {old.schedules} schedules of the corpus")
    print(f"  {new.schedules:,} new schedules, seeds from {first} on, {new.steps:,} steps, in {took:.0f} s: "
          f"{new.schedules / took:.0f} a second", flush=True)
    passed, faults = old.schedules + new.schedules, old.faults + new.faults
    with ThreadPoolExecutor(processes) as pool:
        for found in [pool.submit(run_lies, program, first, failing[1]),
                      *(pool.submit(fail_each, program, what, first, *failing) for what in ("allocation", "call"))]:
            more, bad = found.result()
            passed += more
            faults += bad
    return passed, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="vmferry-sim")
    parser.add_argument("--count", type=int, default=10000, help="new seeds")
    parser.add_argument("--seconds", type=int, default=60, help="for these")
    parser.add_argument("--first", type=int, help="the first of these")
    options = parser.parse_args()
    passed, faults = simulate(options.program, options.count, options.seconds, options.first)
    for fault in faults:
        print(f"FAILED: {fault}")
    print(f"{passed} passed, {len(faults)} failed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
