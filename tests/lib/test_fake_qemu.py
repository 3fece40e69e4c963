# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in and the relay, against each other."""

from pathlib import Path

import pytest

from vmlib.fake_qemu import FakeQemu, PatternMismatch, pattern
from vmlib.relay import Relay

SIZE = (8 << 20) + 12345


def test_pattern_is_one_stream() -> None:
    whole = pattern(7, 1 << 20)
    assert whole[300_000:700_001] == pattern(7, 400_001, 300_000)
    assert whole != pattern(8, 1 << 20)
    assert pattern(7, 0, 5) == b""


def test_both_directions_and_half_close(workdir: Path) -> None:
    near, far = workdir / "n", workdir / "f"
    with FakeQemu.listen(far) as listener, Relay(near, far) as relay, FakeQemu.connect(near) as source:
        with listener.accept() as destination:
            there = source.send_pattern(1, SIZE, shut=True)
            back = destination.send_pattern(2, SIZE)
            source.recv_pattern(2, SIZE)
            assert destination.recv_pattern_until_eof(1) == SIZE
            there.result(10)
            back.result(10)
            destination.send(b"after the source's end")
            destination.shut_wr()
            assert source.recv_until_eof() == b"after the source's end"
            assert [end.how for end in relay.wait_ends(2)] == ["EOF", "EOF"]


def test_wrong_bytes_are_found(workdir: Path) -> None:
    with FakeQemu.listen(workdir / "s") as listener, FakeQemu.connect(workdir / "s") as source:
        with listener.accept() as destination:
            data = bytearray(pattern(1, 1000))
            data[777] ^= 1
            source.send(data)
            with pytest.raises(PatternMismatch, match="offset 777"):
                destination.recv_pattern(1, 1000)


def test_abrupt_end(workdir: Path) -> None:
    with FakeQemu.listen(workdir / "s") as listener, FakeQemu.connect(workdir / "s") as source:
        with listener.accept() as destination:
            source.send(b"never read")
            destination.reset()
            with pytest.raises(ConnectionResetError):
                source.recv_until_eof()
