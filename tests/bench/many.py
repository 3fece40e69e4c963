# SPDX-License-Identifier: LGPL-2.1-or-later
"""Very many migrations at once on one pair of brokers: how long until all are connected, what they need, and how fast
the brokers answer meanwhile. Both brokers and all helpers are on this one machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import resource
import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from lab import percentile, pss_mib
from run import Run
from starts import connect, listener
from vmferry import Brokers
from vmlib.broker import BROKER, MIGRATION, PATH, Bus, BusError, Client, Migration

TRICKLE_S = 6.0
TRICKLE_INTERVAL = 0.0005  # seconds from one page to the next, whosever it is: with 1,000, each sends two a second


def poll(bus: Bus, out: Connection) -> None:
    """In a process of its own: asks for a property, or for all, of migrations at random, until it is told to stop; then
    tells how long each call took."""
    client = Client(bus)
    took: dict[str, list[float]] = {"Get": [], "GetAll": []}
    paths: list[str] = []
    refreshed = 0.0
    while not out.poll():
        if time.monotonic() - refreshed > 1 or not paths:
            paths = [row[-1] for row in client.call(PATH, BROKER, "ListMigrations")[0]]
            refreshed = time.monotonic()
            if not paths:
                time.sleep(0.01)
                continue
        path = random.choice(paths)
        for name, call in (("Get", lambda: client.get(path, MIGRATION, "BytesSent")),
                           ("GetAll", lambda: client.get_all(path, MIGRATION))):
            began = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - began) * 1e3)
        time.sleep(0.002)
    client.close()
    out.send(took)


class Poller:
    """One at each broker; stop() returns the latencies of all calls, in ms."""

    def __init__(self, brokers: Brokers) -> None:
        fork = multiprocessing.get_context("fork")
        self._ends = []
        for broker in (brokers.a, brokers.b):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=poll, args=(broker.bus, theirs), daemon=True)
            process.start()
            theirs.close()
            self._ends.append((process, ours))

    def stop(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"Get": [], "GetAll": []}
        for process, ours in self._ends:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
                ours.send(None)
                if ours.poll(30):
                    for name, values in ours.recv().items():
                        found[name] += values
            ours.close()
            process.join(10)
            process.kill()
            process.join()
            process.close()
        self._ends.clear()
        return found


def latencies(took: dict[str, list[float]]) -> dict[str, Any]:
    return {name: {"count": len(values), "p50_ms": percentile(values, 50), "p99_ms": percentile(values, 99),
                   "max_ms": max(values)} for name, values in took.items() if values}


def set_up(brokers: Brokers, number: int, destination: str) -> tuple[list[Migration], list[Migration], list[str]]:
    """Each as a manager would, one after the other. Returns both ends of those that are connected, once all others have
    failed, and why they did."""
    incoming, outgoing, errors = [], [], []
    for i in range(number):
        try:
            there = brokers.prepare("tls", destination, f"vm{i}")
            assert there.ticket
            outgoing.append(brokers.a.outgoing(there.ticket, f"vm{i}"))
            incoming.append(there)
        except BusError as error:
            errors.append(str(error))
    connected = []
    for i, migration in enumerate(outgoing):
        try:
            migration.wait_state("connected", 60)
            connected.append(i)
        except AssertionError as error:
            errors.append(f"{error}: {migration.get_all()}")
    return [incoming[i] for i in connected], [outgoing[i] for i in connected], errors


def trickle(sources: list[socket.socket], destinations: list[socket.socket], seconds: float) -> int:
    """A page over each, in turn and at a steady pace, for so long; returns how many."""
    page, sent = bytes(4104), 0
    end = time.monotonic() + seconds

    def read_all(sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1 << 16):
                pass

    for sock in destinations:
        sock.setblocking(False)
    began = time.monotonic()
    while time.monotonic() < end:
        for source, destination in zip(sources, destinations):
            source.sendall(page)
            sent += 1
            read_all(destination)  # its own, or another's: they were accepted in some order
            time.sleep(max(began + sent * TRICKLE_INTERVAL - time.monotonic(), 0))
    for sock in destinations:
        sock.settimeout(30)
    return sent


def many(run: Run, number: int) -> dict[str, Any]:
    directory = run.lab.directory()
    args = (f"--max-migrations={number + 8}",)
    with contextlib.ExitStack() as stack:
        brokers = Brokers(run.lab, directory, *args)
        stack.callback(brokers.close)
        at = stack.enter_context(listener(f"{directory}/dst", number))
        poller = Poller(brokers)
        stack.callback(poller.stop)

        began = time.monotonic()
        incoming, outgoing, errors = set_up(brokers, number, at.getsockname())
        row: dict[str, Any] = {"migrations": number, "setup_s": time.monotonic() - began,
                               "setup": latencies(poller.stop())}
        run.say(f"many: {len(outgoing)} set up in {row['setup_s']:.1f} s, {len(errors)} errors")
        row["helpers_pss_mib"] = sum(pss_mib(pid) for pid in brokers.helpers())
        row["brokers_pss_mib"] = pss_mib(brokers.a.pid) + pss_mib(brokers.b.pid)

        sources = [stack.enter_context(connect(migration.socket())) for migration in outgoing]
        destinations = []
        poller = Poller(brokers)
        stack.callback(poller.stop)
        for source in sources:
            source.sendall(b"12345678")
        for _ in sources:
            destinations.append(stack.enter_context(at.accept()[0]))
        row["pages"] = trickle(sources, destinations, 0.5 if run.quick else TRICKLE_S)
        row["running"] = latencies(poller.stop())

        began = time.monotonic()
        drains = [threading.Thread(target=until_end, args=(sock,), daemon=True) for sock in destinations]
        for thread in drains:
            thread.start()
        for source in sources:
            source.shutdown(socket.SHUT_WR)
        for thread in drains:
            thread.join(30)
        for sock in (*destinations, *sources):
            sock.close()
        for migration in (*outgoing, *incoming):
            found = migration.wait_finished(60)
            if found["Result"] != "done":
                errors.append(f"{found['Role']} {found['Result']}: {found['ErrorMessage']}")
        row["end_s"] = time.monotonic() - began
    row["errors"] = errors[:20]
    return row


def until_end(sock: socket.socket) -> None:
    while sock.recv(1 << 16):
        pass


def measure(run: Run) -> list[dict[str, Any]]:
    if "tls" not in run.ours():
        return []
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the brokers inherit it
    try:
        row = many(run, 20 if run.quick else 1000)
    except Exception as error:
        run.fail("many", "tls", error)
        return []
    if row["errors"]:
        run.fail("many", "tls", f"{len(row['errors'])} errors: {row['errors'][0]}")
    get = row["running"].get("Get", {})
    run.say(f"many: helpers {row['helpers_pss_mib']:.0f} MiB, Get p99 {get.get('p99_ms', 0):.1f} ms while they run")
    return [row]
