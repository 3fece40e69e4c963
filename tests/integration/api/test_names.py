# SPDX-License-Identifier: LGPL-2.1-or-later
"""Texts from outside that the broker repeats: names of VMs, and addresses that a peer chose for its own end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from vmlib.broker import Broker, BusError, wait_until
from vmlib.wire import preamble

INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


@pytest.mark.parametrize("character", [
    "\n", "\x1b", "\x7f", "\x85", "\x9b", "\u061c", "\u200b", "\u200e", "\u200f", "\u2028", "\u2029", "\u202a",
    "\u202e", "\u2066", "\u2069", "\ufeff",
])
def test_vm_with_a_character_that_is_not_printable(workdir: Path, character: str) -> None:
    with Broker(workdir, "a") as broker:
        with pytest.raises(BusError, match="VM's name holds control or format characters") as info:
            broker.prepare(f"web{character}1")
        assert info.value.name == INVALID and broker.list() == []


@pytest.mark.parametrize("vm", ["日本", "שלום", "👩\u200d🚀", "a b;c", "$(x)", "-x", "*"])
def test_vm_with_unusual_characters(workdir: Path, vm: str) -> None:
    with Broker(workdir, "a") as broker:
        migration = broker.prepare(vm)
        assert migration.get("Vm") == vm
        migration.cancel()
        migration.wait_finished()


def test_address_that_a_peer_chose_is_one_line_of_the_log(workdir: Path) -> None:
    """The gate listens on a UNIX socket: the peer's own end bears whatever name the peer gave it."""
    name = "x\nvmferryd: (web1): done.\x1b[2J\u202e\x9b"
    with Broker(workdir, "a", listen=f"unix:{workdir}/peer.sock") as broker:
        migration = broker.prepare()
        before = os.getcwd()
        os.chdir(workdir)
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.bind(name)
                peer.connect("peer.sock")
                peer.send(preamble(1234))
                wait_until(lambda: "is not expected here" in broker.log(), "it is refused")
        finally:
            os.chdir(before)
            (workdir / name).unlink()
        (line,) = [line for line in broker.log().splitlines() if "not expected here" in line]
        assert "unix:x?vmferryd: (web1): done.?[2J??" in line
        assert not any(line.startswith("vmferryd: (web1)") for line in broker.log().splitlines())
        migration.cancel()
        migration.wait_finished()
