#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it costs that a VM starts at the destination only when it is told to: from STOP at the source to RESUME there.

$VMFERRY_BUILD: a release build. Three ways take turns: QEMU starts the VM by itself ("itself": driven over the bus, as
programs do that do not use vmferryctl), `vmferryctl migrate`, and `receive` with `send`. DELAY ms are added to each
direction of the way between the brokers, and of that to the destination's monitor.

Usage: tests/bench/handover.py [ROUNDS [DELAY…]]
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from vmlib.ctl import Running, ctl
from vmlib.hosts import Hosts
from vmlib.migration import Pair

MIB = 16


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class DelayLine:
    """Relays to a TCP port of loopback, or to a UNIX socket; each byte comes `delay` s late, whatever the rate."""

    def __init__(self, listen: int | Path, target: int | Path, delay: float) -> None:
        self._listen, self._target, self._delay = listen, target, delay
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._loop.create_task(self._serve(ready))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        assert ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        if isinstance(self._listen, int):
            self._server: Any = await asyncio.start_server(self._accept, "127.0.0.1", self._listen)
        else:
            self._server = await asyncio.start_unix_server(self._accept, self._listen)
        ready.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await (asyncio.open_connection("127.0.0.1", self._target) if isinstance(self._target, int)
                             else asyncio.open_unix_connection(self._target))
        await asyncio.gather(self._flow(reader, back), self._flow(there, writer))

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                self._loop.call_later(self._delay, writer.write, data)
        self._loop.call_later(self._delay + 0.001, writer.close)

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        if isinstance(self._listen, Path):
            self._listen.unlink()


def moment(qemu: Any, event: str) -> float:
    stamp = qemu.qmp.wait_event(event, 60)["timestamp"]
    return float(stamp["seconds"] + stamp["microseconds"] / 1e6)


def once(directory: Path, way: str, postcopy: bool, delay: float) -> float:
    """ms."""
    port, far = free_port(), free_port()
    with Hosts(directory, listen=f"tcp:127.0.0.1:{port}") as hosts, Pair(directory, MIB) as pair, \
            contextlib.closing(DelayLine(far, port, delay)), \
            contextlib.closing(DelayLine(directory / "far.qmp", pair.destination.qmp_path, delay)):
        pair.source.wait_sweeps(1)
        for qemu in (pair.source, pair.destination):
            qemu.set_parameters({"max-bandwidth": 1 << 40})
        endpoint = f"--endpoint=tcp:127.0.0.1:{far}"
        near, there = f"--qmp={pair.source.qmp_path}", f"{directory}/far.qmp"
        how = ["--postcopy", "--downtime-limit=1ms"] if postcopy else ["--downtime-limit=9s"]
        run = None
        if way == "itself":
            if postcopy:
                pair.enable_postcopy()
            incoming = hosts.prepare(endpoints=("as", [f"tcp:127.0.0.1:{far}"]))
            outgoing = hosts.start(incoming)
            outgoing.wait_state("connected")
            pair.listen(f"unix:{incoming.socket()}")
            pair.begin(f"unix:{outgoing.socket()}")
            if postcopy:
                pair.wait_transferred(1 << 20)
                pair.source.start_postcopy()
        elif way == "migrate":
            run = Running(hosts.source, "migrate", "web1", hosts.destination.bus.address, near, f"--dst-qmp={there}",
                          endpoint, *how)
        else:
            ticket = ctl(hosts.destination, "receive", "web1", f"--qmp={pair.destination.qmp_path}", endpoint,
                         *how[:postcopy]).succeeds().out
            run = Running(hosts.source, "send", "web1", near, *how, stdin=ticket)
        stopped, resumed = moment(pair.source, "STOP"), moment(pair.destination, "RESUME")
        if run:
            run.end(60).succeeds()
        pair.wait_completed()
        for broker in hosts.brokers:
            ctl(broker, "wait", "web1", "-q")
        return (resumed - stopped) * 1000


def rows(rounds: int, delay_ms: float) -> Iterator[str]:
    for postcopy in (False, True):
        took: dict[str, list[float]] = {"itself": [], "migrate": [], "receive, send": []}
        for _ in range(rounds):
            for way, times in took.items():
                with tempfile.TemporaryDirectory(prefix="vmf") as directory:
                    times.append(once(Path(directory), way, postcopy, delay_ms / 1000))
        cells = " | ".join(f"{statistics.median(times):.0f} ms, {max(times):.0f} ms" for times in took.values())
        yield f"| {'post-copy' if postcopy else 'pre-copy'} | {delay_ms:g} ms | {cells} |"


if __name__ == "__main__":
    print("| kind | delay | by itself: p50, max | `migrate`: p50, max | `receive`, `send`: p50, max |\n|---|---|---|---|---|")
    for delay_of_way in [float(word) for word in sys.argv[2:]] or [0.0, 10.0]:
        for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 10, delay_of_way):
            print(row, flush=True)
