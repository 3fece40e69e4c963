# SPDX-License-Identifier: LGPL-2.1-or-later
"""TLS in the kernel: whether this one has it, what it does of it, and a helper that is not allowed to use it."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

from .broker import build_dir

ULPS = Path("/proc/sys/net/ipv4/tcp_available_ulp")


def missing() -> str:
    """Why a helper cannot use it here, or nothing."""
    if ULPS.exists() and "tls" in ULPS.read_text().split():
        return ""
    return "kernel: no TLS (CONFIG_TLS, and its module loaded)"


def opened() -> tuple[int, int]:
    """How many directions the kernel has ever been given: to encrypt, to decrypt."""
    counters = dict(line.split() for line in Path("/proc/net/tls_stat").read_text().splitlines())
    return int(counters["TlsTxSw"]), int(counters["TlsRxSw"])


TCP_ULP, TLS_RX = (6, 31), (282, 2)  # levels and names of options


def refused_helper(workdir: Path, option: tuple[int, int] = TCP_ULP) -> Path:
    """A helper to which the kernel refuses this option, as some containers' filter of system calls does."""
    path = workdir / "refused-helper"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{Path(__file__).parents[1]}" exec "{sys.executable}" -B -m vmlib.ktls '
                    f'{option[0]} {option[1]} "{build_dir() / "helper" / "vmferry-helper"}"\n')
    path.chmod(0o755)
    return path


def _refuse(level: int, name: int) -> None:
    """From now on setsockopt(2) with this option fails with EPERM in this process, seccomp(2)."""
    number = {"x86_64": 54, "aarch64": 208}[os.uname().machine]
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
    program = [(load, 0, 0, 0), (equal, 0, 5, number),  # the call
               (load, 0, 0, 24), (equal, 0, 3, level),  # its second argument
               (load, 0, 0, 32), (equal, 0, 1, name),  # its third
               (give, 0, 0, 0x00050001), (give, 0, 0, 0x7fff0000)]  # SECCOMP_RET_ERRNO with EPERM, SECCOMP_RET_ALLOW
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((38, 1, 0, 0, 0), (22, 2, filters)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _refuse(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])
