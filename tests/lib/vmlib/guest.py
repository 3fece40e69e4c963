# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test guest (tests/guest/guest.S): its image, and what its serial output means."""

import os
import string
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "guest" / "guest.S"
DISK_SOURCE = SOURCE.with_name("disk-guest.S")

REGION_START = 2 << 20  # guest-physical
MAX_MIB = 2045
_MAGIC_OFFSET = 500
_MAGIC = b"vmfg"
_SECTOR = 512


class GuestHarmed(AssertionError):
    """The guest found memory other than it had left it, or sweeps were lost or done twice."""


def assemble(workdir: Path, source: Path = SOURCE) -> Path:
    """Builds a boot sector in workdir, as tests/guest/meson.build does; guest.S is not patched. Returns its path."""
    obj, image = workdir / f"{source.stem}.o", workdir / f"{source.stem}.bin"
    for command in (
        ["as", "--32", str(source), "-o", str(obj)],
        ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "start", "--oformat", "binary", str(obj), "-o", str(image)],
    ):
        subprocess.run(command, check=True)
    return image


def build_guest(workdir: Path, mib: int, prebuilt: Path | None = None) -> Path:
    """Makes the image of a guest that sweeps `mib` MiB, in workdir. Returns its path.

    Takes the boot sector from `prebuilt`, else from where $VMFERRY_GUEST points, else assembles it. The VM needs
    `mib` + 2 MiB of RAM and some for its firmware: see vm_mib().
    """
    if not 1 <= mib <= MAX_MIB:
        raise ValueError(f"a guest sweeps 1 to {MAX_MIB} MiB, not {mib}")
    prebuilt = prebuilt or os.environ.get("VMFERRY_GUEST") or assemble(workdir)
    image = bytearray(Path(prebuilt).read_bytes())
    if len(image) != _SECTOR or image[_MAGIC_OFFSET : _MAGIC_OFFSET + 4] != _MAGIC:
        raise ValueError(f"{prebuilt} is not the boot sector of tests/guest/guest.S")
    struct.pack_into("<I", image, _MAGIC_OFFSET + 4, mib)
    path = workdir / f"guest-{mib}.img"
    path.write_bytes(image)
    return path


def vm_mib(mib: int) -> int:
    """The RAM, in MiB, of a VM for a guest that sweeps `mib` MiB."""
    return mib + 8


def count_sweeps(serial: str) -> int:
    """How many sweeps found every word right."""
    return sum(serial.count(letter) for letter in string.ascii_uppercase)


def assert_unharmed(serial: str) -> None:
    """Raises GuestHarmed unless `serial` is that of a guest that was never harmed.

    `serial` is what the source printed and then what the destination printed. No sweep may have found a wrong
    word, and the letters must be one unbroken row: no sweep lost, none done twice.
    """
    if "!" in serial:
        raise GuestHarmed(f"the guest found a wrong word (address:found:expected): {_shorten(serial)}")
    letters = serial.lstrip(">")
    expected = (string.ascii_uppercase * (len(letters) // 26 + 1))[: len(letters)]
    if letters != expected:
        raise GuestHarmed(f"the guest's sweeps are not one unbroken row: {_shorten(serial)}")


def _shorten(serial: str) -> str:
    """The serial output from shortly before the first oddity on, short enough for a message."""
    at = max(serial.find("!") - 40, 0)
    return repr(serial[at : at + 400])
