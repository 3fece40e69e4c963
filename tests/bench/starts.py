# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry alone: how soon a migration's first byte is through, and how much memory its helpers have."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from lab import GIB, pss_mib, spread, wait_until
from run import Run
from vmferry import Brokers
from vmlib.broker import Migration

STREAMED_MIB = 256


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


def start_once(brokers: Brokers, security: str, at: socket.socket) -> float:
    """From the call of StartOutgoing until the destination has the first byte, in ms; then the migration's end."""
    incoming = brokers.prepare(security, at.getsockname())
    assert incoming.ticket
    began = time.perf_counter()
    outgoing = brokers.a.outgoing(incoming.ticket)
    with connect(outgoing.socket()) as source:
        source.sendall(b"12345678")
        with at.accept()[0] as destination:
            destination.settimeout(30)
            assert destination.recv(8), "no byte came"
            took = (time.perf_counter() - began) * 1e3
    finish(outgoing, incoming)
    return took


def finish(*migrations: Migration) -> None:
    for migration in migrations:
        found = migration.wait_finished()
        assert found["Result"] == "done", found
        migration.call("Forget")


def measure(run: Run) -> list[dict[str, Any]]:
    """The first migration of a broker pair, which opens its port, and those that follow."""
    rows = []
    for security in run.ours():
        directory = run.lab.directory()
        try:
            with contextlib.closing(Brokers(run.lab, directory)) as brokers, listener(f"{directory}/dst") as at:
                first = start_once(brokers, security, at)
                warm = []
                for _ in range(3 if run.quick else 30):
                    time.sleep(0.1)  # a broker that keeps a helper in readiness gets the next one now
                    warm.append(start_once(brokers, security, at))
        except Exception as error:
            run.fail("start", security, error)
            continue
        rows.append({"security": security, "first_ms": first, "warm_ms": spread(warm)})
        run.say(f"start {security}: first {first:.1f} ms, then {rows[-1]['warm_ms']['median']:.1f} ms")
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
