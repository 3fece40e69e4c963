# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections without end from hosts that have seen a migration's id, which goes in clear, beside that migration: it
goes on, at its speed, and its next channels find their way."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmlib.broker import Broker, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.proxy import Proxy
from vmlib.wire import CHANNEL, CONTROL, RESUME, preamble

LONG = bool(os.environ.get("VMFERRY_LONG"))
RATE = 3400
KEPT = 400


def client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


class Shared:
    """Two numbers that two processes see: where the attacker aims, and how often it has come to the gate."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 16)
        self.view = memoryview(self.memory).cast("q")

    @property
    def aim(self) -> int:
        return self.view[0]

    @aim.setter
    def aim(self, value: int) -> None:
        self.view[0] = value

    @property
    def n(self) -> int:
        return self.view[1]

    def close(self) -> None:
        self.view.release()
        self.memory.close()


def attack(port: int, says: bytes, shared: Shared) -> None:
    """RATE connections a second: at the gate (1), at a listener of its own (0), until -1."""
    decoy = socket.create_server(("127.0.0.1", 0), backlog=KEPT)
    kept: list[socket.socket] = []
    begin, done = time.monotonic(), 0
    while shared.aim >= 0:
        there = shared.aim == 1
        sock = socket.socket()
        try:
            sock.connect(("127.0.0.1", port if there else decoy.getsockname()[1]))
            sock.send(says)
        except OSError:
            pass
        if there:
            shared.view[1] += 1
        else:
            decoy.accept()[0].close()
        kept.append(sock)
        if len(kept) > KEPT:
            kept.pop(0).close()
        done += 1
        ahead = done / RATE - (time.monotonic() - begin)
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -0.1:
            begin, done = time.monotonic(), 0


class Running:
    """A migration whose QEMU writes as fast as it can."""

    def __init__(self, source: Broker, destination: Broker) -> None:
        self.incoming = destination.prepare("web1")
        self.port = destination.peer_port()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.incoming.socket())
        self.listener.listen(64)
        self.listener.settimeout(30)
        self.outgoing = source.outgoing(self.incoming.ticket or "", "web1")
        self.moved = 0
        self.over = False
        self.qemu = socket.socket(socket.AF_UNIX)
        self.qemu.connect(self.outgoing.socket())
        self.threads = [threading.Thread(target=self._pump), threading.Thread(target=self._sink)]
        for thread in self.threads:
            thread.start()
        wait_until(lambda: self.moved > 1 << 24, "bytes move")

    def _pump(self) -> None:
        block = bytes(1 << 18)
        while not self.over:
            self.qemu.sendall(block)
        self.qemu.shutdown(socket.SHUT_WR)

    def _sink(self) -> None:
        self.there = self.listener.accept()[0]
        while data := self.there.recv(1 << 20):
            self.moved += len(data)
        self.there.close()

    def rate(self, seconds: float) -> float:
        """Bytes per second."""
        moved, begin = self.moved, time.monotonic()
        time.sleep(seconds)
        return (self.moved - moved) / (time.monotonic() - begin)

    def opens_channel(self) -> float:
        """Seconds until a new one has brought its first byte."""
        begin = time.monotonic()
        with socket.socket(socket.AF_UNIX) as here:
            here.connect(self.outgoing.socket())
            here.sendall(b"x")
            with self.listener.accept()[0] as there:
                there.settimeout(30)
                assert there.recv(1) == b"x"
                took = time.monotonic() - begin
                here.shutdown(socket.SHUT_WR)
                assert there.recv(1) == b""
        return took

    def finish(self) -> None:
        self.over = True
        for thread in self.threads:
            thread.join()
        assert self.incoming.wait(30) == self.outgoing.wait(30) == "done"


@contextmanager
def flooded(port: int, says: bytes) -> Iterator[Shared]:
    shared = Shared()
    process = multiprocessing.get_context("fork").Process(target=attack, args=(port, says, shared))
    process.start()
    try:
        yield shared
    finally:
        shared.aim = -1
        process.join()
        process.close()
        shared.close()


def test_channels_from_far_away_beside_a_flood(workdir: Path) -> None:
    """A handshake takes 200 ms and more, in which several hundred others come."""
    with Broker(workdir, "a") as source, Broker(workdir, "b") as destination:
        incoming = destination.prepare("web1")
        port = destination.peer_port()
        with Proxy(f"tcp:127.0.0.1:{port}", delay=0.1) as proxy, FakeQemu.listen(incoming.socket(), 16) as listener:
            outgoing = source.outgoing(incoming.ticket or "", "web1", {"endpoint": ("s", proxy.endpoint)})
            outgoing.wait_state("connected")
            with flooded(port, preamble(int(incoming.id, 16), CHANNEL)) as attacker:
                attacker.aim = 1
                wait_until(lambda: attacker.n > KEPT, "it floods")
                pairs = []
                for number in range(10):
                    pairs.append((FakeQemu.connect(outgoing.socket()), listener.accept()))
                    pairs[-1][0].send_pattern(number, 1000, shut=True)
                    pairs[-1][1].recv_pattern(number, 1000)
            assert incoming.get("Reconnects") == 0
            for here, there in pairs:
                there.shut_wr()
                assert here.recv_until_eof() == b""
                here.close()
                there.close()
            assert incoming.wait(20) == outgoing.wait(20) == "done"


def test_first_connection_from_far_away_beside_a_flood(workdir: Path) -> None:
    """The source has not been told yet that marks are read. A mark gets it in when it dials again."""
    with Broker(workdir, "a") as source, Broker(workdir, "b") as destination:
        incoming = destination.prepare("web1")
        port = destination.peer_port()
        with Proxy(f"tcp:127.0.0.1:{port}", delay=0.1) as proxy:
            with flooded(port, preamble(int(incoming.id, 16), CONTROL)) as attacker:
                attacker.aim = 1
                wait_until(lambda: attacker.n > KEPT, "it floods")
                outgoing = source.outgoing(incoming.ticket or "", "web1", {"endpoint": ("s", proxy.endpoint)})
                outgoing.wait_state("connected")
            outgoing.cancel()
            incoming.wait_finished(20)


@pytest.mark.load_sensitive(reason="measures rates and how fast a channel opens")
@pytest.mark.parametrize("kind", [CONTROL, CHANNEL, RESUME])
@pytest.mark.parametrize("greets", [False, True], ids=["silent", "hello"])
def test_flood_of_who_has_seen_the_id(workdir: Path, kind: int, greets: bool) -> None:
    with Broker(workdir, "a") as source, Broker(workdir, "b") as destination:
        running = Running(source, destination)
        says = preamble(int(running.incoming.id, 16), kind) + (client_hello() if greets else b"")
        helpers = destination.helpers()
        took: list[float] = []
        rates: tuple[list[float], list[float]] = ([], [])
        with flooded(running.port, says) as attacker:
            begin = time.monotonic()
            for turn in range(20 if LONG else 6):
                attacker.aim = turn % 2
                time.sleep(0.1)
                rates[attacker.aim].append(running.rate(0.5))
                if attacker.aim == 1:
                    took += [running.opens_channel() for _ in range(4)]
            spent = time.monotonic() - begin
            sent = attacker.n
        print(f"{sent} connections, {sent / spent * 2:.0f}/s; "
              f"a channel opens in {statistics.median(took) * 1000:.0f} ms, "
              f"{max(took) * 1000:.0f} at most; {statistics.median(rates[0]) / 1e6:.0f} → "
              f"{statistics.median(rates[1]) / 1e6:.0f} MB/s")
        assert running.incoming.get("Reconnects") == running.outgoing.get("Reconnects") == 0
        assert destination.helpers() == helpers, destination.log()
        assert statistics.median(took) < 0.1 and max(took) < 1, took
        # It goes on, also where others use the machine; how fast is in docs/performance.md.
        assert statistics.median(rates[1]) > statistics.median(rates[0]) / 5
        running.finish()
