# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every measurement stands on: two hosts' networks, the programs, the certificates, and the kernel's accounts."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

from vmlib.network import Network, ip  # noqa: E402

GIB = 1 << 30
CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
READY_TIMEOUT_S = 20
CLONE_NEWNET = 0x40000000


class BenchError(Exception):
    """Something that makes a figure worthless; the message says what."""


def wait_until(condition: Callable[[], Any], what: str, timeout: float = READY_TIMEOUT_S) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"timed out after {timeout:.0f} s waiting for {what}")
        time.sleep(0.005)
    return value


# --- the two hosts' network ---


class Lab:
    """Two network namespaces, joined by a veth: `a` is the source host, `b` the destination. And what all tunnels
    need: pump, floor and goproxy, built when they are first needed; certificates. close() removes all of it."""

    address_a, address_b = Network.address_a, Network.address_b

    def __init__(self, workdir: Path, congestion: str) -> None:
        self.workdir = workdir
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._spaces: dict[str, int] = {}
        self._cores: dict[str, set[int]] = {}  # of each host; none: all of them
        self._count = 0
        try:
            self.network = Network()
        except BaseException:
            os.close(self._home)
            raise
        try:
            for name, space in (("a", self.network.a), ("b", self.network.b)):
                self._spaces[name] = os.open(f"/run/netns/{space}", os.O_RDONLY | os.O_CLOEXEC)
            self.system_congestion = congestion_control()
            self.set_congestion(congestion)
            self.pump = self.compile("pump", "-pthread")
            self.tls = Certificates(workdir)
        except BaseException:
            self.close()
            raise

    @functools.cached_property
    def floor(self) -> str:
        return self.compile("floor", "-lgnutls")

    @functools.cached_property
    def goproxy(self) -> str | None:
        return self._build_go()

    def close(self) -> None:
        for fd in (*self._spaces.values(), self._home):
            os.close(fd)
        self.network.close()

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """What this thread starts, opens and reads of /proc/net meanwhile belongs to host `a` or `b`."""
        everywhere = os.sched_getaffinity(0)
        self._enter(self._spaces[host])
        try:
            os.sched_setaffinity(0, self._cores.get(host, everywhere))
            yield
        finally:
            os.sched_setaffinity(0, everywhere)
            self._enter(self._home)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is started meanwhile has the cores of its host alone, a half of them each: no scheduler can put two hosts
        on one core, or wake one host's program by another's being awake. With one core nothing changes."""
        cores = sorted(os.sched_getaffinity(0))
        half = len(cores) // 2
        if half > 0:
            self._cores = {"a": set(cores[:half]), "b": set(cores[half:])}
        try:
            yield
        finally:
            self._cores = {}

    def _enter(self, fd: int) -> None:
        if self._libc.setns(fd, CLONE_NEWNET) < 0:
            raise BenchError(f"can't enter a network namespace: {os.strerror(ctypes.get_errno())}")

    def set_congestion(self, name: str) -> None:
        """TCP's congestion control in both namespaces, by name; "system": as the machine has it."""
        name = self.system_congestion if name == "system" else name
        for host in ("a", "b"):
            with self.inside(host):
                try:
                    # Of the thread that opens it, and not of the process, as /proc/net would be.
                    Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(name, encoding="ascii")
                except OSError as e:
                    raise BenchError(f"congestion control {name}: {e.strerror}; this kernel has "
                                     + read("/proc/sys/net/ipv4/tcp_available_congestion_control")) from e
                if congestion_control() != name:
                    raise BenchError(f"congestion control {name} was not taken")
        self.congestion = name

    def free_port(self, host: str = "b") -> int:
        with self.inside(host), socket.socket() as s:
            s.bind((self.address_b if host == "b" else self.address_a, 0))
            return int(s.getsockname()[1])

    def directory(self) -> Path:
        """A new one, with a short path, for one tunnel's files."""
        self._count += 1
        path = self.workdir / str(self._count)
        path.mkdir()
        return path

    def wait_listener(self, address: str) -> None:
        """Looks, and doesn't connect: that would be a connection too many for some."""
        if address.startswith("tcp:"):
            port = int(address.rpartition(":")[2])
            wait_until(lambda: port in self._tcp_ports(), f"a listener at {address}")
        else:
            wait_until(lambda: Path(address).exists() and self._listens(address), f"a listener at {address}")

    def _listens(self, path: str) -> bool:
        """Any namespace reaches a socket by its path, but each lists its own. (haproxy renames its socket when it is
        ready; the kernel goes on to list it by its first name.)"""
        rows = []
        for host in ("a", "b"):
            with self.inside(host):
                rows += Path("/proc/thread-self/net/unix").read_text(errors="replace").splitlines()
        fields = [row.split(maxsplit=7) for row in rows]  # Num RefCount Protocol Flags Type St Inode Path
        return any(len(row) == 8 and row[3] == "00010000" and (row[7] == path or row[7].startswith(f"{path}."))
                   for row in fields)  # the flag is __SO_ACCEPTCON

    def _tcp_ports(self) -> set[int]:
        with self.inside("b"):
            rows = [line.split() for name in ("tcp", "tcp6")
                    for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}

    def compile(self, name: str, *flags: str) -> str:
        """One of the programs here; its path."""
        program = str(self.workdir / name)
        subprocess.run(["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-o", program, str(HERE / f"{name}.c"), *flags],
                       check=True)
        return program

    def _build_go(self) -> str | None:
        """None where there is no Go: its tunnels say so then."""
        if shutil.which("go") is None:
            return None
        program = str(self.workdir / "goproxy")
        environment = os.environ | {"GO111MODULE": "off", "GOPROXY": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local",
                                    "GOPATH": str(self.workdir / "gopath"), "GOCACHE": str(self.workdir / "gocache")}
        subprocess.run(["go", "build", "-o", program, str(HERE / "goproxy" / "main.go")], check=True, env=environment)
        shutil.rmtree(self.workdir / "gocache", ignore_errors=True)
        return program


def congestion_control() -> str:
    return read("/proc/sys/net/ipv4/tcp_congestion_control")


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace").strip()


class Certificates:
    """A CA, and a certificate of it for each host; P-256. For a measurement: they last two days."""

    def __init__(self, workdir: Path) -> None:
        self.directory = workdir / "tls"
        self.directory.mkdir()
        self.ca, self.ca_key = self._path("ca-cert.pem"), self._path("ca-key.pem")
        self._openssl("req", "-x509", *self._new(), "-subj", "/CN=bench", "-days", "2", "-keyout", self.ca_key,
                      "-out", self.ca)
        for host, address in (("a", Lab.address_a), ("b", Lab.address_b)):
            request = self._path("request")
            self._openssl("req", *self._new(), "-subj", f"/CN={host}", "-keyout", self.key(host), "-out", request)
            extensions = self._path("extensions")
            Path(extensions).write_text(f"subjectAltName=IP:{address}\n", encoding="ascii")
            self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-days", "2",
                          "-set_serial", "1" if host == "a" else "2", "-extfile", extensions, "-out", self.cert(host))
            # haproxy wants both in one file, QEMU a directory with names of its own.
            Path(self.both(host)).write_text(read(self.cert(host)) + "\n" + read(self.key(host)) + "\n")
            directory = Path(self.qemu(host))
            directory.mkdir()
            shutil.copy(self.ca, directory / "ca-cert.pem")
            kind = "client" if host == "a" else "server"
            shutil.copy(self.cert(host), directory / f"{kind}-cert.pem")
            shutil.copy(self.key(host), directory / f"{kind}-key.pem")

    def cert(self, host: str) -> str:
        return self._path(f"{host}-cert.pem")

    def key(self, host: str) -> str:
        return self._path(f"{host}-key.pem")

    def both(self, host: str) -> str:
        return self._path(f"{host}.pem")

    def qemu(self, host: str) -> str:
        return self._path(f"qemu-{host}")

    def _path(self, name: str) -> str:
        return str(self.directory / name)

    @staticmethod
    def _new() -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    @staticmethod
    def _openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, stdin=subprocess.DEVNULL, capture_output=True)


# --- the kernel's accounts ---


def descendants(pids: list[int]) -> list[int]:
    """These processes and all below them."""
    found, left = [], list(pids)
    while left:
        pid = left.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes and their descendants, and of the children that they have reaped."""
    total = 0.0
    for pid in descendants(pids):
        try:
            # The name, in brackets, may hold anything; utime stime cutime cstime are fields 14 to 17.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # reaped: in its parent's sum from now on
        total += sum(int(ticks) for ticks in fields[11:15]) * CLOCK_TICK_S
    return total


def pss_mib(pid: int) -> float:
    rollup = dict(line.split(":", 1) for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:])
    return int(rollup["Pss"].split()[0]) / 1024


def end_process(child: subprocess.Popen[Any]) -> None:
    if child.returncode is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout:
        child.stdout.close()


def reply_lines(child: subprocess.Popen[bytes], timeout: float) -> list[dict[str, Any]]:
    """All that a pump says, once it has ended well."""
    try:
        out, _ = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as e:
        raise BenchError(f"no end of the transfer within {timeout:.0f} s") from e
    lines = [json.loads(line) for line in out.splitlines()]
    errors = [line["text"] for line in lines if line["kind"] == "error"]
    if child.returncode != 0 or errors:
        raise BenchError(f"the pump failed: {'; '.join(errors) or f'status {child.returncode}'}")
    return lines


# --- figures ---


def spread(values: list[float]) -> dict[str, Any]:
    """The median, the quartiles and the ends."""
    ordered = sorted(values)
    q1, _, q3 = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {"median": statistics.median(ordered), "q1": q1, "q3": q3, "min": ordered[0], "max": ordered[-1],
            "values": values}


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * percent / 100)]


__all__ = ["BenchError", "Certificates", "GIB", "HERE", "Lab", "cpu_seconds", "descendants", "end_process", "ip",
           "percentile", "pss_mib", "read", "reply_lines", "spread", "wait_until"]
