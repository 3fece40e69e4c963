# SPDX-License-Identifier: LGPL-2.1-or-later
"""Searches the model of the peer protocol, docs/model/protocol.pml, with spin: as it is, where nothing may be found, and
with each of its rules broken, where something must be.

    /usr/bin/python3 tests/model/run.py [--long] [--list] [--story] [NAME…]

A NAME is that of a configuration or of a broken rule. --story tells what led to what was found.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "docs" / "model" / "protocol.pml"
MEMORY = 6000  # MiB
DEPTH = 10000  # steps; the longest way is shorter, and a search that meets this limit says so

# Small flows are enough for the rules that do not look at bytes.
TWO = "CHANNELS=2 UNITS_S=1 UNITS_D=0"

# What is searched whole, and where nothing may be found.
CONFIGURATIONS = {
    "one channel": "LOSSES=2",
    "window of two": "UNITS_S=3 UNITS_D=0 WINDOW=2 LOSSES=1",
    "restarted brokers": "UNITS_S=1 LOSSES=1 RESTARTS=1 THIEF",
    "give-up": "UNITS_S=1 LOSSES=2 GIVE_UP=3",
    "give-up of two, source": f"{TWO} LOSSES=1 GIVE_UP=1",
    "two streams": f"{TWO} STREAMS=2 LOSSES=1 ZERO",
    "cancel": "UNITS_S=1 LOSSES=1 CANCEL",
    "limit": f"{TWO} LOSSES=1 LIMIT=1",
    "lies": "LOSSES=0 LIES=2",
}
LONG = {
    "one channel, long": "UNITS_S=3 UNITS_D=2 WINDOW=2 LOSSES=2",
    "two channels, long": f"{TWO} LOSSES=1",
    "brokers restarted twice, long": "UNITS_S=1 LOSSES=1 RESTARTS=2 THIEF",
    "give-up of two, both, long": f"{TWO} LOSSES=1 GIVE_UP=3",
    "cancel and give-up, long": "UNITS_S=1 LOSSES=2 GIVE_UP=3 CANCEL",
    "lies, long": "LOSSES=1 LIES=1",
}

# Of which it is searched that each run ends: there is no cycle of states, and the others have seen to it that none stands
# still before its end.
ENDING = ("one channel", "window of two")
ENDING_LONG = ("restarted brokers", "give-up", "cancel", "lies", "two streams", "limit")

# In which configuration a broken rule is found.
BROKEN = {
    "FREES_EARLY": "LOSSES=1",
    "ACKS_EARLY": "LOSSES=1 GIVE_UP=1",
    "RESUMES_WRONG": "LOSSES=1",
    "FORGETS_FIN": "LOSSES=1",
    "FORGETS_CLOSE": "LOSSES=1",
    "FORGETS_ACK": "LOSSES=1",
    "EOF_ENDS": "LOSSES=1",
    "ONE_FLOW": "LOSSES=0",
    "CLOSES_ALONE": "LOSSES=1",
    "OPENS_TWICE": "LOSSES=0 LIES=1",
    "ACK_UNCHECKED": "LOSSES=0 LIES=1",
    "DONE_UNCHECKED": "LOSSES=0 LIES=1",
    "SECRET_TWICE": "LOSSES=0 THIEF",
    "SYNC_FORGETS": "LOSSES=0 RESTARTS=1",
    "TAKES_EARLY": f"{TWO} LOSSES=0 LIMIT=1",
    "LOSS_UNTOLD": f"{TWO} LOSSES=1 GIVE_UP=1",
    "REFUSED_HANGS": f"{TWO} LOSSES=1 LIMIT=1",
    "DONE_TAKES": f"{TWO} LOSSES=1",
    "OLD_REPLACES": f"{TWO} LOSSES=1 GIVE_UP=2",
    "LIMIT_AS_LOSS": f"{TWO} LOSSES=1 LIMIT=1",
    "PROVED_REPLACES": f"{TWO} LOSSES=1 GIVE_UP=3",
}


@dataclass
class Search:
    states: int
    found: str  # what is wrong; empty: nothing
    seconds: float
    story: str = ""


class Failed(Exception):
    """There is no result."""


def command(arguments: list[str], where: Path) -> str:
    done = subprocess.run(arguments, cwd=where, text=True, errors="replace", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Failed(f"{' '.join(arguments)}: {done.stdout.strip()}")
    return done.stdout


def mutations() -> dict[str, tuple[int, str]]:
    """The list in the model: name, number, what it does."""
    found = re.findall(r"^#define (\w+) breaks\((\d+)\) +/\* (.*) \*/$", MODEL.read_text(), re.M)
    return {name: (int(number), text) for name, number, text in found}


def search(settings: str, number: int = 0, story: bool = False, cycles: bool = False) -> Search:
    """The whole of a configuration, or up to the first thing that is wrong; or up to the first cycle of states."""
    began = time.monotonic()
    defines = [f"-D{setting}" for setting in settings.split()] + [f"-DBREAK={number}"]
    with tempfile.TemporaryDirectory(prefix="vmf-model-") as name:
        where = Path(name)
        command(["spin", *defines, "-a", str(MODEL)], where)
        # What is searched whole is worth a compiler's time.
        command(["gcc", "-w", "-O0" if number else "-O1", "-DNP" if cycles else "-DSAFETY", "-DNOREDUCE", "-DCOLLAPSE",
                 f"-DMEMLIM={MEMORY}", "-o", "pan", "pan.c"], where)
        said = command(["./pan", f"-m{2 * DEPTH if cycles else DEPTH}", "-w20", *(["-l"] if cycles else [])], where)
        states = re.search(r"(\d+) states, stored", said)
        errors = re.search(r"errors: (\d+)", said)
        if not states or not errors or "depth too small" in said or ("not completed" in said and errors[1] == "0"):
            raise Failed(said.strip())
        wrong = re.search(r"^pan:1: (.*) \(at depth", said, re.M)
        if (errors[1] != "0") != bool(wrong):
            raise Failed(said.strip())
        found = Search(int(states[1]), wrong[1] if wrong else "", time.monotonic() - began)
        if wrong and story:
            trail = next(where.glob("*.trail"))
            told = command(["spin", *defines, "-k", str(trail), "-t", str(MODEL)], where)
            found.story = "\n".join(line for line in (line.strip() for line in told.splitlines())
                                    if re.match(r"(Source|Destination|The|A) ", line))
        return found


def run(names: list[str], long: bool, story: bool) -> tuple[int, list[str]]:
    """How many passed, and what did not."""
    passed, bad, total = 0, [], 0
    listed = mutations()
    if set(listed) != set(BROKEN):
        bad.append(f"model: the broken rules here and there differ: {set(listed) ^ set(BROKEN)}")
    every = [(name, settings, 0, False) for name, settings in
             {**CONFIGURATIONS, **(LONG if long or names else {})}.items()]
    every += [(f"{name}, each run ends", CONFIGURATIONS[name], 0, True)
              for name in (*ENDING, *(ENDING_LONG if long or names else ()))]
    every += [(name, settings, listed[name][0], False) for name, settings in BROKEN.items() if name in listed]
    every = [one for one in every if not names or one[0] in names]

    def look(one: tuple[str, str, int, bool]) -> Search | Failed:
        try:
            return search(*one[1:3], story, one[3])
        except Failed as error:
            return error

    # The larger ones take all memory that there is to have.
    with ThreadPoolExecutor(1 if long else os.cpu_count()) as pool:
        for (name, settings, number, _), one in zip(every, pool.map(look, every)):
            if isinstance(one, Failed):
                print(f"  {name}: no result: {one}", flush=True)
                bad.append(f"model: {name}: no result")
                continue
            total += one.states
            well = bool(one.found) == bool(number)
            what = f"found: {one.found[:60]}" if one.found else "nothing found"
            print(f"  {name:36}{one.states:>10,} states {one.seconds:6.1f} s  {what}", flush=True)
            if one.story:
                print(one.story)
            if well:
                passed += 1
            else:
                bad.append(f"model: {name} ({settings}): {what}")
    print(f"  {total:,} states searched", flush=True)
    return passed, bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the larger configurations, too")
    parser.add_argument("--list", action="store_true", help="lists the names")
    parser.add_argument("--story", action="store_true", help="tells what led to what was found")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.list:
        for name, settings in {**CONFIGURATIONS, **LONG}.items():
            print(f"{name}: {settings}")
        for name, (_, text) in mutations().items():
            print(f"{name}: {text} ({BROKEN[name]})")
        return 0
    passed, bad = run(options.names, options.long, options.story)
    for what in bad:
        print(f"FAILED: {what}")
    print(f"{passed} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
