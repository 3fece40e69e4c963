# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several users on one bus, for tests that run as root."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .broker import Broker, Bus, Client, wait_until

NOBODY = 65534
DAEMON = 1  # another one
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


class OpenBus(Bus):
    """A bus that lets every user in, as the system bus does."""

    def __init__(self, workdir: Path, name: str = "bus") -> None:
        self.socket = workdir / name
        self.address = f"unix:path={self.socket}"
        config = workdir / f"{name}.conf"
        config.write_text(CONFIG.format(address=self.address))
        workdir.chmod(0o755)
        self._log = open(workdir / f"{name}.log", "wb")
        self.process = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"],
                                        stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL)
        wait_until(self._listens, "the bus listens", 30)


@contextmanager
def being(uid: int, also_in: tuple[int, ...] = ()) -> Iterator[None]:
    """This process is that user, as others see it and as the kernel does; no other thread may do anything then."""
    groups = os.getgroups()
    os.setgroups(also_in)
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


class User:
    """A user's connection to a broker; where a Migration wants a broker, it takes this, too."""

    prepare = Broker.prepare
    outgoing = Broker.outgoing
    list = Broker.list

    def __init__(self, broker: Broker, uid: int, also_in: tuple[int, ...] = ()) -> None:
        self.broker = broker
        self.bus = broker.bus
        self.uid = uid
        with being(uid, also_in):
            self.client = Client(broker.bus)

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def as_user(uid: int, run: Callable[[], Any]) -> Any:
    """What run() returns, which JSON must be able to carry, in a process of its own under another uid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writing, json.dumps(run()).encode())
        except BaseException as error:  # the parent raises it
            os.write(writing, json.dumps({"raised": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert not (isinstance(data, dict) and "raised" in data), data
    return data
