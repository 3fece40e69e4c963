# SPDX-License-Identifier: LGPL-2.1-or-later
"""strace as a witness: which system calls broker and helper make while they carry a migration."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmlib.broker import build_dir, wait_until
from vmlib.hosts import Hosts

pytestmark = [
    pytest.mark.tracing,
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace"),
]

SIZE = (4 << 20) + 321

READS = {"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg", "splice", "tee",
         "vmsplice", "copy_file_range", "io_uring_enter"}
# What opens, makes, connects, accepts or runs something.
OPENS = {"open", "openat", "openat2", "creat", "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4",
         "execve", "execveat", "fork", "vfork", "clone", "clone3", "pipe", "pipe2", "memfd_create", "ptrace", "kill",
         "unlink", "unlinkat", "mkdir", "mkdirat", "rename", "chmod", "chown", "ioctl", "pidfd_getfd", "bpf",
         "io_uring_setup", "process_vm_readv"}


@dataclass(frozen=True)
class Call:
    name: str
    args: str
    result: str

    def sockets(self) -> list[str]:
        """The sockets that stand among its arguments as descriptors: their inodes."""
        return re.findall(r"<(?:socket|[A-Z][\w-]*):\[(\d+)", self.args)

    def source(self) -> set[str]:
        """The socket that it reads from: for each of READS the first argument. (A received FD stands further on.)"""
        first = re.match(r"\d+<(?:socket|[A-Z][\w-]*):\[(\d+)", self.args)
        return {first[1]} if first and self.name in READS else set()


def calls(path: Path) -> list[Call]:
    """What a finished trace holds; each must have ended, or its end would be unseen."""
    wait_until(lambda: re.search(r"\+\+\+ (exited|killed)", path.read_text(errors="replace")), f"{path} to end", 20)
    found = []
    for line in path.read_text(errors="replace").splitlines():
        if match := re.match(r"(?:\d+ +)?(\w+)\((.*)\) += (.*)", line):
            found.append(Call(*match.groups()))
    return found


def carry(hosts: Hosts, security: str) -> None:
    tunnel = hosts.connect(security=security)
    source, destination = tunnel.open_channel()
    with source, destination:
        futures = source.send_pattern(1, SIZE, shut=True), destination.send_pattern(2, SIZE, shut=True)
        assert destination.recv_pattern_until_eof(1) == SIZE
        assert source.recv_pattern_until_eof(2) == SIZE
        for future in futures:
            future.result(10)
    tunnel.assert_done()


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_broker_reads_nothing_of_qemu_or_peer(workdir: Path, security: str) -> None:
    """Each socket that it ever reads from is its D-Bus, or its end of a pair that it shares with a helper."""
    for side in ("s", "d"):
        trace = workdir / f"{side}.trace"
        hosts = Hosts(workdir)
        broker = hosts.source if side == "s" else hosts.destination
        broker.stop()
        broker.prefix = ("strace", "-D", "-y", "-o", str(trace), "-s", "200")
        broker.start()
        hosts.note_baseline(broker)
        with hosts:
            carry(hosts, security)
        seen = calls(trace)
        allowed = set()
        for call in seen:
            if call.name == "socketpair" and "SOCK_SEQPACKET" in call.args:
                allowed |= set(call.sockets())
            if call.name == "connect" and str(broker.bus.socket) in call.args:
                allowed |= set(call.sockets())
        assert len(allowed) >= 3, "the trace has neither bus nor helpers"
        strangers = [call for call in seen if call.source() - allowed]
        assert strangers == []
        assert any(call.source() for call in seen), "the trace shows no socket at all"
        # The sockets of QEMU and peer were there.
        assert any(call.name in ("accept4", "connect") and set(call.sockets()) - allowed for call in seen)


@pytest.fixture
def traced_helper(workdir: Path) -> Iterator[Path]:
    """A helper each of whose processes leaves a trace in workdir."""
    path = workdir / "helper"
    real = build_dir() / "helper" / "vmferry-helper"
    path.write_text(f'#!/bin/sh\nexec strace -D -y -o "{workdir}/trace.$$" "{real}"\n')
    path.chmod(0o755)
    yield path


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_helper_opens_nothing(workdir: Path, traced_helper: Path, security: str) -> None:
    """Nothing comes in before the filter is there; after it, nothing is opened, made, connected, accepted or run."""
    with Hosts(workdir, helper=traced_helper, traced=True) as hosts:
        carry(hosts, security)
    traces = sorted(workdir.glob("trace.*"))
    assert len(traces) == 3, "two relays and a gate"
    gates = spliced = 0
    for trace in traces:
        seen = calls(trace)
        locked = next(i for i, call in enumerate(seen)
                      if call.name == "seccomp" and "SET_MODE_FILTER" in call.args and "len=" in call.args)
        assert seen[locked].result == "0"
        before, after = seen[:locked], seen[locked + 1:]
        assert [call for call in before if call.source()] == []
        forbidden = [call for call in after if call.name in OPENS]
        gate = any(call.name == "accept4" for call in forbidden)
        gates += gate
        assert [call for call in forbidden if not (gate and call.name == "accept4")] == []
        assert [call for call in after if "PROT_EXEC" in call.args] == []
        assert any(call.name in ("recvmsg", "recvfrom", "read", "splice") for call in after)
        spliced += any(call.name == "splice" and re.match("[1-9]", call.result) for call in after)
        narrowed = [call for call in after if call.name == "seccomp"]
        assert [call.result for call in narrowed] == ["0"], "the second filter, once the role is known"
    assert gates == 1
    assert spliced == (security == "plain"), "the destination splices, where it does not encrypt"
