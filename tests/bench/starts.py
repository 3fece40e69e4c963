# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry alone: how soon a migration's first byte is through, and how much memory its helpers have.

For the former helpers are started as systemd does it, for each connection to a socket, by systemd-socket-activate(1); so
the brokers keep some ready. What systemd itself needs to start a unit is missing.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab import GIB, Lab, descendants, end_process, pss_mib, spread, wait_until
from run import Run
from vmferry import Brokers
from vmlib.broker import Migration, build_dir, settled

STREAMED_MIB = 256
AT_ONCE = 20


@contextlib.contextmanager
def listener(path: str, backlog: int = 64) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(backlog)
        sock.settimeout(30)
        yield sock


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(path)
    return sock


@contextlib.contextmanager
def activated(lab: Lab, directory: Path) -> Iterator[tuple[Brokers, subprocess.Popen[bytes]]]:
    """Brokers whose helpers are started when they connect to a socket, and the process below which those are."""
    path = directory / "helpers"
    with open(directory / "helpers.log", "wb") as log:
        starter = subprocess.Popen(["systemd-socket-activate", "--seqpacket", "--accept", f"--listen={path}",
                                    str(build_dir() / "helper" / "vmferry-helper")], stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log)
    try:
        wait_until(path.exists, "the helpers' socket")
        with contextlib.closing(Brokers(lab, directory, f"--helper-socket={path}")) as brokers:
            yield brokers, starter
    finally:
        end_process(starter)


def first_byte(path: str, at: socket.socket) -> float:
    """When the destination has it, by the clock of perf_counter()."""
    with connect(path) as source:
        source.sendall(b"12345678")
        with at.accept()[0] as destination:
            destination.settimeout(30)
            assert destination.recv(8), "no byte came"
            return time.perf_counter()


def start_many(brokers: Brokers, security: str, at: socket.socket, number: int) -> list[float]:
    """Of each of so many, from the call of StartOutgoing until the destination has the first byte of one of them, in ms; then
    the migrations' end. The calls are made one after the other, and none waits for what came of the one before."""
    incoming = [brokers.prepare(security, at.getsockname(), f"vm{i}") for i in range(number)]
    began, outgoing = [], []
    with ThreadPoolExecutor(number) as pool:
        ends = []
        for i, one in enumerate(incoming):
            began.append(time.perf_counter())
            outgoing.append(brokers.a.outgoing(one.ticket or "", f"vm{i}"))
            ends.append(pool.submit(first_byte, outgoing[-1].socket(), at))
        took = [(end - begin) * 1e3 for begin, end in zip(began, sorted(end.result(60) for end in ends))]
    finish(*outgoing, *incoming)
    return took


def finish(*migrations: Migration) -> None:
    for migration in migrations:
        found = migration.wait_finished()
        assert found["Result"] == "done", found
        migration.call("Forget")


def start_rounds(run: Run, security: str) -> dict[str, Any]:
    """The first migration of a broker pair, which opens its port, and those that follow; then some at once, of which the
    first ones find one helper ready, and those that follow all that they need."""
    directory = run.lab.directory()
    rounds = {1: 3 if run.quick else 15, AT_ONCE: 1 if run.quick else 4}
    found: dict[int, list[list[float]]] = {}
    with activated(run.lab, directory) as (brokers, starter), listener(f"{directory}/dst") as at:
        for number in (1, AT_ONCE):
            for _ in range(rounds[number] + 1):
                found.setdefault(number, []).append(start_many(brokers, security, at, number))
                settled(lambda: sorted(descendants([starter.pid])), 0.4)  # no helper is started or ends any more
    return {"security": security, "first_ms": found[1][0][0], "warm_ms": spread([one[0] for one in found[1][1:]]),
            "at_once_cold_ms": spread(found[AT_ONCE][0]),
            "at_once_ms": spread([value for one in found[AT_ONCE][1:] for value in one])}


def measure(run: Run) -> list[dict[str, Any]]:
    rows = []
    for security in run.ours():
        try:
            rows.append(start_rounds(run, security))
        except Exception as error:
            run.fail("start", security, error)
            continue
        run.say(f"start {security}: first {{first_ms:.1f}} ms, then {{warm_ms[median]:.1f}} ms; {AT_ONCE} at once: first "
                "{at_once_cold_ms[median]:.1f} ms, then {at_once_ms[median]:.1f} ms".format(**rows[-1]))
    return rows


# --- memory ---


def largest(brokers: Brokers) -> float:
    """PSS of the largest helper of both hosts, in MiB: the gates and any spare are smaller."""
    return max(pss_mib(pid) for pid in brokers.helpers())


def drain(sock: socket.socket, size: int) -> threading.Thread:
    def body() -> None:
        left = size
        while left > 0 and (chunk := sock.recv(1 << 20)):
            left -= len(chunk)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def memory_of(run: Run, security: str) -> dict[str, Any]:
    directory = run.lab.directory()
    mib = 8 if run.quick else STREAMED_MIB
    block = bytes(1 << 20)
    with contextlib.closing(Brokers(run.lab, directory)) as brokers, listener(f"{directory}/dst") as at:
        incoming = brokers.prepare(security, at.getsockname())
        assert incoming.ticket
        outgoing = brokers.a.outgoing(incoming.ticket)
        with connect(outgoing.socket()) as source:
            source.sendall(b"12345678")
            with at.accept()[0] as destination:
                destination.settimeout(60)
                destination.recv(8)
                row: dict[str, Any] = {"security": security, "idle_mib": largest(brokers)}
                thread = drain(destination, mib << 20)
                for _ in range(mib):
                    source.sendall(block)
                thread.join(60)
                wait_until(lambda: incoming.get("BytesReceived") == outgoing.get("BytesSent"), "the ledgers to agree")
                row["after_mib"] = largest(brokers)
                # Nobody reads any more: all that may be held is held.
                source.settimeout(1)
                stuffed = 0
                with contextlib.suppress(TimeoutError):
                    while stuffed < GIB:
                        stuffed += source.send(block)
                row["full_mib"] = largest(brokers)
                source.settimeout(30)
                thread = drain(destination, stuffed)
                thread.join(60)
        finish(outgoing, incoming)
    return row


def measure_memory(run: Run) -> list[dict[str, Any]]:
    rows = []
    for security in run.ours():
        try:
            rows.append(memory_of(run, security))
        except Exception as error:
            run.fail("memory", security, error)
            continue
        run.say("memory {security}: idle {idle_mib:.2f} MiB, after a stream {after_mib:.2f}, full {full_mib:.2f}".format(
            **rows[-1]))
    return rows
