# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cockpit on a booted host, as root, with vmferry's page from its package. It is reached from out here."""

from __future__ import annotations

import shutil
import socket
import subprocess

from .broker import wait_until
from .nspawn import Host
from .package import package

SERVER = "/usr/lib/cockpit/cockpit-ws"


def installed(host: Host) -> None:
    """Installs the package with the page."""
    (deb,) = package().parent.glob("vmferry-cockpit_*.deb")
    copy = host.shared / deb.name
    shutil.copy(deb, copy)
    host.run("dpkg", "--no-triggers", "--install", str(copy), timeout=120)
    copy.unlink()


class Cockpit:
    """cockpit-ws and cockpit-bridge on a host, for one user who need not log in. They get their socket from here.

    Who is not root has no administrative access, and cannot get it: no password is known.
    """

    def __init__(self, host: Host, environment: dict[str, str] | None = None, user: str = "root") -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = "http://127.0.0.1:%d" % listener.getsockname()[1]
            self._host, self._pid = host, host.shared / "cockpit.pid"
            start = f'echo $$ >{self._pid}; exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 ' \
                    f'exec setpriv --reuid={user} --regid={user} --init-groups {SERVER} --no-tls --local-session=cockpit-bridge'
            self._log = (host.shared / "cockpit.log").open("wb")
            self._process = subprocess.Popen(
                [*host.enter, "bash", "-c", start, str(listener.fileno())], pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root" if user == "root" else "/tmp", "LC_ALL": "C.UTF-8",
                     "USER": user, **(environment or {})})

    def close(self) -> None:
        pid = wait_until(lambda: self._pid.exists() and self._pid.read_text().strip(), "cockpit-ws has begun")
        self._host.run("kill", pid, check=False)  # the bridge, and what it has started, end with it
        self._process.wait(20)
        self._pid.unlink()
        self._log.close()

    def __enter__(self) -> "Cockpit":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
