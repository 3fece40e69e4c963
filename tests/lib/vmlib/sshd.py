# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real sshd for one test: its own keys, its own configuration, on a host of the test's."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .broker import wait_until
from .ctl import PROGRAM

PORT = 22


class Sshd:
    """Listens on `address`; `prefix` is what runs a command on its host ("ip netns exec …", "nsenter …").

    Whoever logs in finds `bus` as the system's bus, and `path` as $PATH. `client` is what $VMFERRY_SSH has to be: an ssh
    that knows this host as `name`, and its key. `proxied`: it gets there from anywhere on this machine, too. $HOME is an
    empty place: what this machine's root has in its shell's start-up files may be slow, or wait for a lock of its own.
    """

    def __init__(self, workdir: Path, prefix: tuple[str, ...], address: str, name: str = "host2", bus: str | None = None,
                 path: str = f"{PROGRAM.parent}:/usr/bin:/bin", proxied: bool = False) -> None:
        self.name = name
        self._dir = workdir / f"ssh-{name}"
        self._dir.mkdir()
        self._prefix = prefix
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._dir / key], check=True)
        subprocess.run([*prefix, "mkdir", "-p", "/run/sshd"], check=True)  # wanted for its separation of privileges
        config = self._dir / "sshd_config"
        config.write_text(
            f"ListenAddress {address}\nPort {PORT}\nHostKey {self._dir}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {self._dir}/user.pub\nPasswordAuthentication no\nPermitRootLogin yes\n"
            f"SetEnv HOME={self._dir} PATH={path} {f'DBUS_SYSTEM_BUS_ADDRESS={bus} ' if bus else ''}"
            "LC_ALL=C.UTF-8 ASAN_OPTIONS=detect_leaks=0\n")
        public = (self._dir / "host.pub").read_text()
        (self._dir / "known_hosts").write_text(f"{name} {public}")
        (self._dir / "ssh_config").write_text(
            f"Host {name}\n  HostName {address}\n  HostKeyAlias {name}\n  Port {PORT}\n  User {os.environ.get('USER', 'root')}\n"
            f"  IdentityFile {self._dir}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {self._dir}/known_hosts\n"
            "  GlobalKnownHostsFile /dev/null\n  ConnectTimeout 10\n" +
            (f"  ProxyCommand {shlex.join(prefix)} socat - TCP:{address}:{PORT}\n" if proxied else ""))
        self.config = self._dir / "ssh_config"
        self.client = f"ssh -F {self.config}"
        self.log = self._dir / "log"
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        self.log.unlink(missing_ok=True)  # one that ran before says there that it listens
        self.process = subprocess.Popen(
            [*self._prefix, "/usr/sbin/sshd", "-D", "-f", str(self._dir / "sshd_config"), "-E",
             str(self.log)], stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until(self._listens, "sshd listens", 60)

    def add(self, server: str = "", client: str = "") -> None:
        """More lines for sshd_config and for what the client's ssh_config says of this host."""
        if client:
            self.config.write_text(self.config.read_text() + "".join(f"  {line}\n" for line in client.splitlines()))
        if server:
            path = self._dir / "sshd_config"
            path.write_text(path.read_text() + server + "\n")
            self.restart()

    def restart(self) -> None:
        self.close()
        self.start()

    def lock_key(self, passphrase: str) -> None:
        """The user's key can be used only by those that can type this."""
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", self._dir / "user"], check=True)

    def connections(self) -> int:
        """How many TCP connections it serves."""
        found = subprocess.run([*self._prefix, "ss", "-Htn", "state", "established", f"( sport = :{PORT} )"], check=True,
                               capture_output=True, text=True).stdout
        return len(found.splitlines())

    def sessions(self) -> set[int]:
        """Its processes that serve connections. OpenSSH 9.8 and later has two of root's, too: the child of the one that listens
        starts the one that reads from the connection."""
        return set(self._descendants(self.process.pid))

    def _descendants(self, pid: int) -> Iterator[int]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
                if Path(f"/proc/{child}/comm").read_text().startswith("sshd"):  # and not what the user runs
                    yield child
                    yield from self._descendants(child)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.log.exists() and "Server listening on" in self.log.read_text()

    def env(self) -> dict[str, str]:
        return {"VMFERRY_SSH": self.client}

    def close(self) -> None:
        """Ends it; what it serves goes on to its own end."""
        self.process.terminate()
        self.process.wait(10)

    def __enter__(self) -> "Sshd":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
