# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds for other machines with Debian's cross compilers, in a root of Debian 12, for tools/test cross."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from roots import in_root

# What QEMU cannot do for a process that it emulates: which tests need it, and what it is.
UNEMULATED = {
    r"helper-sandbox(-use)?: |helper-carrier-worker: .*sandbox": "it has no seccomp filters",
    r"helper-carrier-tls: .*cipher_of_the_cpu": "/proc/cpuinfo tells of this machine's processor",
    r"ctl-ssh-(master|remote|ssh): ": "the test runs itself as ssh, which the kernel takes for a shell script",
}


@dataclass(frozen=True)
class Machine:
    debian: str  # as dpkg calls it
    triplet: str  # as its compiler is called
    libraries: str  # the directory of its libraries
    family: str  # as meson calls it
    emulator: str  # that runs its programs; "": this machine does

    @property
    def directory(self) -> str:
        return f"build-cross-{self.debian}"

    def log(self, root: Path) -> Path:
        """Where meson writes what its tests said."""
        return root / "vmferry" / self.directory / "meson-logs/cross.json"

    def excuse(self, test: str) -> str:
        """Why this one may fail, or ""."""
        return next((why for tests, why in UNEMULATED.items() if self.emulator and re.match(tests, test)), "")

    def cross_file(self) -> str:
        """What meson has to know of it."""
        wrapper = f"exe_wrapper = '{self.emulator}'\n" if self.emulator else ""
        return (f"[binaries]\nc = '{self.triplet}-gcc'\nar = '{self.triplet}-ar'\nstrip = '{self.triplet}-strip'\n"
                f"pkgconfig = 'pkg-config'\n{wrapper}"
                f"[properties]\nneeds_exe_wrapper = {str(bool(wrapper)).lower()}\n"
                f"pkg_config_libdir = ['/usr/lib/{self.libraries}/pkgconfig', '/usr/share/pkgconfig']\n"
                f"[host_machine]\nsystem = 'linux'\nendian = 'little'\ncpu_family = '{self.family}'\ncpu = '{self.family}'\n")


MACHINES = (
    Machine("arm64", "aarch64-linux-gnu", "aarch64-linux-gnu", "aarch64", "qemu-aarch64"),
    Machine("armhf", "arm-linux-gnueabihf", "arm-linux-gnueabihf", "arm", "qemu-arm"),
    Machine("i386", "i686-linux-gnu", "i386-linux-gnu", "x86", ""),
)
INSTALL = """
set -e
for machine in $1; do dpkg --add-architecture "$machine"; done
shift
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"
apt-get clean
"""


def install(root: Path) -> tuple[int, str]:
    """The compilers, and for each machine the libraries that tools/install-deps names."""
    status, text = in_root(root, "/vmferry", "tools/install-deps", "--list", "build")
    if status != 0:
        return status, text
    named = text.split() + ["libcmocka-dev"]
    libraries = [name for name in named if name.endswith("-dev") and name != "libipsec-mb-dev"]  # which amd64 alone has
    wanted = [name for name in named if not name.endswith("-dev")] + ["gcc", "libc6-dev", "qemu-user"]
    for machine in MACHINES:
        wanted += [f"gcc-{machine.triplet}", *(f"{name}:{machine.debian}" for name in libraries)]
    return in_root(root, "/", "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", INSTALL, "sh",
                   " ".join(machine.debian for machine in MACHINES), *wanted)


def build(machine: Machine, root: Path) -> tuple[int, str]:
    """All that the tests are made of, without a warning."""
    directory = root / "vmferry" / machine.directory
    directory.mkdir(exist_ok=True)
    (directory / "cross.txt").write_text(machine.cross_file())
    if not (directory / "build.ninja").exists():
        status, text = in_root(root, "/vmferry", "meson", "setup", machine.directory, "--cross-file",
                               f"{machine.directory}/cross.txt", "-Dtests=true", "-Dwerror=true", "-Dbuildtype=release")
        if status != 0:
            return status, text
    return in_root(root, "/vmferry", "ninja", "-C", machine.directory)


def run_units(machine: Machine, root: Path) -> tuple[int, str]:
    """Their results are in the machine's log: it is well where there is one."""
    machine.log(root).unlink(missing_ok=True)
    _, text = in_root(root, "/vmferry", "env", "VMFERRY_SCHEDULES=5000", "meson", "test", "-C", machine.directory, "--no-rebuild",
                      "--logbase", "cross", "--suite", "unit", "--timeout-multiplier", "20")
    return 0 if machine.log(root).exists() else 1, text
