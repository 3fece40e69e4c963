# SPDX-License-Identifier: LGPL-2.1-or-later
"""Breaks the helper, one rule at a time, and sees that the simulation finds it within a minute.

    /usr/bin/python3 tests/sim/mutations.py [--list | --corpus] [NAME…]

--corpus writes the seeds that found them to the corpus: for when the simulation has changed, and a seed means another
schedule.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # in which each must be found, by one process
CORPUS = Path(__file__).resolve().parent / "corpus"
HEAD = """# Seeds whose schedules have found something: in the code, or where a rule of it was broken (mutations.py).
"""
OPTIONS = ("-Dbuildtype=release", "-Dtests=true")  # as many schedules as can be had


@dataclass(frozen=True)
class Mutation:
    what: str  # comes of it
    file: str  # in helper/
    old: str  # which must be there exactly once
    new: str
    mode: str = ""  # "lies": it is found where a peer or a broker lies


MUTATIONS = {
    "frees-early": Mutation(
        "what went out is forgotten before it is acknowledged", "relay/flow.c",
        "    if (flow->kind == FLOW_IN || flow->forgetful)\n", "    if (true)\n"),
    "acks-early": Mutation(
        "what QEMU has not taken is acknowledged", "relay/relay.c",
        "received = relay->in.ring.begin;", "received = relay->in.ring.end;"),
    "ack-unrepeated": Mutation(
        "an acknowledgement that was lost with its connection is not said again", "channel/channel.c",
        "    if (relay_delivered(&channel->relay) != 0)\n", "    if (false)\n"),
    "resumes-wrong": Mutation(
        "a flow goes on from what is acknowledged, not from what was received", "relay/flow.c",
        "ring_rewind(&flow->ring, received);", "ring_rewind(&flow->ring, flow->ring.begin);"),
    "resumes-nowhere": Mutation(
        "a flow goes on from what was sent, not from what was received", "relay/flow.c",
        "    ring_rewind(&flow->ring, received);\n", ""),
    "fin-unrepeated": Mutation(
        "the end of a flow is said once, not once per connection", "relay/flow.c",
        "flow->fin < connection && ring_unsent", "flow->fin == 0 && ring_unsent"),
    "eof-ends": Mutation(
        "the end of a peer connection counts as the end of the flow", "relay/flow.c",
        "    if (flow->kind == FLOW_IN)\n        return FLOW_FROM_LOST;\n", ""),
    "shuts-early": Mutation(
        "QEMU is told the end before it has all", "relay/flow.c",
        " || flow->ring.begin != flow->total)", ")"),
    "one-flow": Mutation(
        "a channel ends when one of its flows has", "relay/relay.c",
        "return flow_ended(&relay->in) && all_is_acknowledged(relay);", "return flow_ended(&relay->in);"),
    "close-unrepeated": Mutation(
        "that a channel has ended is said once, not once per connection", "channel/channel.c",
        "        !channel_is_said(channel, channel->said_close) &&\n", "        channel->said_close == 0 &&\n"),
    "closes-alone": Mutation(
        "the source ends the migration while channels live", "session/complete.c",
        "channels_is_any_living(session->channels) || is_held(session)", "is_held(session)"),
    "overtakes": Mutation(
        "a peer connection that overtakes its OPEN is dropped", "peer/peer.c",
        "        set_stage(peer, PEER_PARKED);\n", "        return -EBADMSG;\n"),
    "dials-twice": Mutation(
        "two connections to one stream's QEMU are asked for at once", "channel/opening.c",
        "    if (!first || requests_has_qemu(channels->options.requests, stream))\n", "    if (!first)\n"),
    "sync-forgets": Mutation(
        "a new broker is not asked again for what the old one owed", "requests.c",
        "        if (request->state == REQUEST_ASKED)\n            ask(requests, request);\n",
        "        if (false)\n            ask(requests, request);\n"),
    "loss-untold": Mutation(
        "a channel that was given up needs nothing in its place", "channel/table.c",
        "        channel->channels->lost_streams |= 1U << channel->stream;\n", "        return channel_close(channel);\n"),
    "speaks-early": Mutation(
        "the destination speaks before its HELLO", "channel/channel.c",
        "    else if (channels->connection != 0) /*", "    else /*"),
    "grace-late": Mutation(
        "a destination asks for QEMU after its result", "channel/opening.c",
        "    if (!channels_halted(channel->channels))\n        channels_dial_stream(channel", "    channels_dial_stream(channel"),
    "worker-deaf": Mutation(
        "a worker does not look for acknowledgements that came while it had its lock", "relay/crew.c",
        "    while (has_acks(crew, worker)) {", "    while (false && has_acks(crew, worker)) {"),
    "farewell-forgotten": Mutation(
        "a source that is cut off ends without a word to its peer", "session/messages.c",
        "    if (session->role != ROLE_OUTGOING || session->state != STATE_INTERRUPTED ||\n"
        "        session->connection == CONNECTION_UP) {\n", "    if (true) {\n"),
    "farewell-unsaid": Mutation(
        "a source that was cut off does not say its farewell when it is connected again", "session/frames.c",
        "    if (session->ending.stage == ENDING_FAREWELL) {\n", "    if (false) {\n"),
    "ack-unchecked": Mutation(
        "a peer can acknowledge more than was sent", "relay/flow.c",
        "    if (delivered > flow->ring.cursor)\n        return \"an ACK of more than was sent\";\n", "", "lies"),
    "spares-much": Mutation(
        "what QEMU left unread is spared however much it is", "channel/break-off.c",
        "#define REST_MAX 1344", "#define REST_MAX 1000000"),
    "window-unbounded": Mutation(
        "more is taken from QEMU than there is room for", "carrier/ring.h",
        "ring->capacity - (size_t)(ring->end - ring->begin)",
        "ring->capacity"),
}


def command(arguments: list[str], limit: float | None = None) -> tuple[int, str]:
    done = subprocess.run(arguments, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=limit)
    return done.returncode, done.stdout


def copy(where: Path) -> Path:
    """The sources, to be broken; returns the build directory."""
    _, listed = command(["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"])
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, where / name)
            shutil.copymode(ROOT / name, where / name)
    status, text = command(["meson", "setup", str(where / "build"), str(where), *OPTIONS])
    if status != 0:
        raise SystemExit(text)
    return where / "build"


def build(directory: Path) -> None:
    status, text = command(["ninja", "-C", str(directory), "tests/sim/vmferry-sim"])
    if status != 0:
        raise SystemExit(text)


def stale() -> list[str]:
    """Those whose rule the code has no more, or not in these words: they would break nothing."""
    return [name for name, mutation in MUTATIONS.items()
            if (ROOT / "helper" / mutation.file).read_text().count(mutation.old) != 1]


def try_one(where: Path, directory: Path, mutation: Mutation) -> str:
    """What the simulation says of it; empty: nothing."""
    file = where / "helper" / mutation.file
    text = file.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file} does not hold this once: {mutation.old}")
    try:
        file.write_text(text.replace(mutation.old, mutation.new))
        build(directory)
        status, said = command([str(directory / "tests/sim/vmferry-sim"), *filter(None, [mutation.mode]), "1", "1000000000",
                                str(SECONDS)], SECONDS + 30)
    except subprocess.TimeoutExpired:
        return ""
    finally:
        file.write_text(text)
    found = [line for line in said.splitlines() if "FAULT" in line]
    return found[-1] if status != 0 and found else ""


def run(names: list[str]) -> tuple[dict[str, int], list[str]]:
    """The seed that found each, and which were not found."""
    found: dict[str, int] = {}
    missed = []
    with tempfile.TemporaryDirectory(prefix="vmf-sim-") as name:
        directory = copy(Path(name))
        for which, mutation in MUTATIONS.items():
            if names and which not in names:
                continue
            began = time.monotonic()
            said = try_one(Path(name), directory, mutation)
            print(f"  {which:20}{time.monotonic() - began:6.1f} s  {said[:110] or 'NOT FOUND'}", flush=True)
            if said:
                found[which] = int(said.split("seed ")[1].split()[0].rstrip(":"))
            else:
                missed.append(which)
    return found, missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="lists them")
    parser.add_argument("--corpus", action="store_true", help="writes what found them to the corpus")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.list:
        for name, mutation in MUTATIONS.items():
            print(f"{name}: {mutation.what} ({mutation.file})")
        return 0
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    found, missed = run(options.names)
    if options.corpus:
        CORPUS.write_text(HEAD + "".join(f"{seed:<8} {name}: {MUTATIONS[name].what}\n" for name, seed in found.items()
                                        if not MUTATIONS[name].mode))
    print(f"{len(found)} found, {len(missed)} not found: {' '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
