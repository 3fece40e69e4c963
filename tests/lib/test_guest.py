# SPDX-License-Identifier: LGPL-2.1-or-later
"""The harness's own tests: the guest, real QEMUs without any tunnel, and what QEMU does with its socket."""

import socket
from pathlib import Path

import pytest

from vmlib.gdbstub import GdbStub
from vmlib.guest import REGION_START, GuestHarmed, assert_unharmed, build_guest, vm_mib
from vmlib.migration import NEVER_CONVERGE, Pair
from vmlib.qemu import MigrationFailed, Qemu, QemuDied
from vmlib.relay import FlowEnd, Relay

MIB = 64

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]


def test_precopy(workdir: Path) -> None:
    uri = f"unix:{workdir}/m"
    with Pair(workdir, MIB) as pair:
        pair.source.wait_sweeps(2)
        outcome = pair.precopy(uri, uri)
        pair.assert_unharmed()
        assert pair.source.status() == "postmigrate"
        assert outcome.ram["dirty-sync-count"] >= 2


@pytest.mark.usefixtures("needs_postcopy")
def test_postcopy(workdir: Path) -> None:
    uri = f"unix:{workdir}/m"
    with Pair(workdir, MIB) as pair:
        pair.source.wait_sweeps(2)
        outcome = pair.postcopy(uri, uri)
        pair.assert_unharmed()
        assert outcome.ram["postcopy-bytes"] > (MIB << 20) // 2, "little was left for post-copy to move"


def test_multifd(workdir: Path) -> None:
    uri = f"unix:{workdir}/m"
    with Pair(workdir, MIB, capabilities={"multifd": True}, parameters={"multifd-channels": 4}) as pair:
        pair.source.wait_sweeps(1)
        pair.precopy(uri, uri)
        pair.assert_unharmed()


@pytest.mark.usefixtures("needs_postcopy")
def test_passed_socketpair(workdir: Path) -> None:
    near, far = socket.socketpair()
    with Pair(workdir, MIB) as pair:
        with near, far:
            pair.source.qmp.execute_with_fd("getfd", near.fileno(), fdname="tunnel")
            pair.destination.qmp.execute_with_fd("getfd", far.fileno(), fdname="tunnel")
        pair.source.wait_sweeps(1)
        pair.postcopy("fd:tunnel", "fd:tunnel")
        pair.assert_unharmed()


@pytest.mark.parametrize("offset", [0, (MIB << 20) // 2 + 12, (MIB << 20) - 4])
def test_corruption_is_loud(workdir: Path, offset: int) -> None:
    """The check can fail: one wrong word, at the region's start, inside it, and at its very end."""
    with Qemu(workdir, build_guest(workdir, MIB), vm_mib(MIB), gdb=True) as qemu:
        qemu.wait_sweeps(1)
        address = REGION_START + offset
        with GdbStub(qemu.gdb_path) as gdb:
            gdb.write_memory(address, b"\x5a\xa5\x5a\xa5")
        qemu.wait_until(lambda: qemu.serial().count("\n") == 1, "the guest to complain", 20)
        assert f"!{address:08x}:a55aa55a:" in qemu.serial()
        with pytest.raises(GuestHarmed):
            assert_unharmed(qemu.serial())


@pytest.mark.parametrize(
    "serial, good",
    [(">", True), (">ABC", True), (">" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2 + "A", True)]
    + [(">ABD", False), (">ABBC", False), (">AB!00200000:00000000:12345678\nC", False), (">A>A", False)],
)
def test_judgement(serial: str, good: bool) -> None:
    if good:
        assert_unharmed(serial)
    else:
        with pytest.raises(GuestHarmed):
            assert_unharmed(serial)


def test_dead_qemu_says_why(workdir: Path) -> None:
    with pytest.raises(QemuDied, match="no-such-device"):
        Qemu(workdir, build_guest(workdir, MIB), vm_mib(MIB), extra=["-device", "no-such-device"])


def test_cut_precopy_leaves_the_guest_at_the_source(workdir: Path) -> None:
    near, far = workdir / "n", workdir / "f"
    with Pair(workdir, MIB, parameters=NEVER_CONVERGE) as pair, Relay(near, far) as relay:
        pair.source.wait_sweeps(1)  # a VM that is all zeros sends next to nothing
        pair.listen(f"unix:{far}")
        pair.begin(f"unix:{near}")
        pair.wait_transferred(8 << 20)
        relay.cut()
        with pytest.raises(MigrationFailed):
            pair.source.wait_migration({"completed"})
        assert pair.destination.wait_exit() != 0
        pair.source.wait_sweeps(2)
        assert_unharmed(pair.source.serial())


@pytest.mark.usefixtures("needs_postcopy")
def test_cut_postcopy_is_recovered(workdir: Path) -> None:
    near, far, far_again = workdir / "n", workdir / "f", workdir / "g"
    slow = {"max-postcopy-bandwidth": 16 << 20}
    with Pair(workdir, MIB, parameters=slow) as pair:
        pair.source.wait_sweeps(1)
        with Relay(near, far) as relay:
            pair.enable_postcopy()
            pair.listen(f"unix:{far}")
            pair.begin(f"unix:{near}")
            pair.begin_postcopy()
            relay.cut()
            for end in (pair.source, pair.destination):
                end.wait_migration({"postcopy-paused"})
        with Relay(near, far_again):
            pair.source.set_parameters({"max-postcopy-bandwidth": 0})
            pair.recover(f"unix:{near}", f"unix:{far_again}")
            pair.wait_completed()
        pair.assert_unharmed()


# mode: capabilities, connections. The destination's main channel sends back only where a return path is.
ENDS: dict[str, tuple[dict[str, bool], int]] = {
    "precopy": ({}, 1),
    "precopy-return-path": ({"return-path": True}, 1),
    "precopy-multifd": ({"multifd": True}, 5),
    "postcopy": ({"return-path": True}, 1),
    "postcopy-preempt": ({"postcopy-ram": True, "postcopy-preempt": True}, 2),
}


@pytest.mark.parametrize("mode", ENDS)
def test_normal_end(workdir: Path, mode: str, request: pytest.FixtureRequest) -> None:
    """What a tunnel may expect at a normal end: an EOF in each direction, no reset and no write that fails."""
    postcopy = mode.startswith("postcopy")
    if postcopy:
        request.getfixturevalue("needs_postcopy")
    capabilities, connections = ENDS[mode]
    near, far = workdir / "n", workdir / "f"
    with Pair(workdir, MIB, capabilities, {"multifd-channels": 4}) as pair, Relay(near, far) as relay:
        pair.source.wait_sweeps(1)
        run = pair.postcopy if postcopy else pair.precopy
        run(f"unix:{near}", f"unix:{far}")
        pair.assert_unharmed()
        ends = relay.wait_ends(2 * connections)
        print_ends(mode, ends)
        # With multifd QEMU 7.2 may close a connection beside the main one before it has read its last packet.
        assert {end.how for end in ends if mode != "precopy-multifd" or end.connection == 0} == {"EOF"}
        back = sum(end.size for end in ends if end.sender == "destination")
        assert (back > 0) == (postcopy or "return-path" in capabilities), f"{back} bytes came back"


def print_ends(mode: str, ends: list[FlowEnd]) -> None:
    """For whoever runs pytest -s."""
    for end in ends:
        milliseconds = (end.at - ends[0].at) * 1000
        print(f"{mode}: {milliseconds:.1f} ms channel {end.connection} {end.sender}: {end.how}, {end.size} bytes")
