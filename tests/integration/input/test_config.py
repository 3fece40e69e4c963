# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stands in vmferryd.conf counts, in a broker that runs: tests/unit/broker/config/test-config.c has the files
and their order."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vmlib.broker import BROKER, PATH, ROOT, Broker, BusError, build_dir, wait_until


@contextmanager
def configured(workdir: Path, config: str, *args: str, listen: str | None = "tcp:127.0.0.1:0") -> Iterator[Broker]:
    path = workdir / "vmferryd.conf"
    path.write_text(config)
    with Broker(workdir, "a", args=(f"--config={path}", *args), listen=listen) as broker:
        yield broker


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """A broker that does not get as far as its bus."""
    return subprocess.run([build_dir() / "broker" / "vmferryd", "--address=unix:path=/nonexistent/bus", *args],
                          capture_output=True, text=True, timeout=20, env={**os.environ, "XDG_RUNTIME_DIR": "/nonexistent"})


def test_file_and_command_line(workdir: Path) -> None:
    """The command line stands above the file, setting by setting; lists are replaced, not added to."""
    config = "[Broker]\nMaxMigrations=5\nMaxChannels=9\nListen=tcp:127.0.0.1:1 tcp:127.0.0.1:2\n"
    with configured(workdir, config, "--max-channels=3") as broker:
        assert broker.get("MaxMigrations") == 5
        assert broker.get("Endpoints") == ["tcp:127.0.0.1:0"]
    with configured(workdir, config, "--max-migrations=7", listen=None) as broker:
        assert broker.get("MaxMigrations") == 7
        assert broker.get("Endpoints") == ["tcp:127.0.0.1:1", "tcp:127.0.0.1:2"]


def test_mistakes_are_told_and_the_rest_counts(workdir: Path) -> None:
    with configured(workdir, "[Broker]\nMaxMigrations=many\nMaxChannel=3\nExpireSec=1\n") as broker:
        assert f"{workdir}/vmferryd.conf:2: MaxMigrations=many is no number from 1 to 10000." in broker.log()
        assert f"{workdir}/vmferryd.conf:3: There is no setting 'MaxChannel'." in broker.log()
        assert broker.get("MaxMigrations") == 256
        assert broker.prepare().wait_finished()["Result"] == "timed-out"


def test_reload(workdir: Path) -> None:
    """All of the new files counts, or nothing of them; what runs goes on, and the command line stands above them still."""
    path = workdir / "vmferryd.conf"
    with configured(workdir, "[Broker]\nMaxMigrations=5\n", "--max-channels=3") as broker:
        def reload(config: str) -> None:
            path.write_text(config)
            broker.client.call(PATH, BROKER, "Reload")

        migration = broker.prepare()
        reload("[Broker]\nMaxMigrations=7\nExpireSec=1\nMaxChannels=9\nMaxGateConnections=9\n")
        assert broker.get("MaxMigrations") == 7 and migration.get("State") == "waiting"
        assert ("read again: changed are MaxMigrations=, MaxGateConnections=, ExpireSec=. The peer port is open"
                in broker.log()), broker.log()
        assert broker.prepare("short").wait_finished()["Result"] == "timed-out"
        for wrong, why in (("[Broker]\nMaxMigrations=8\nMaxCalls=some\n", f"{path}:3: MaxCalls=some is no number"),
                           ("[Broker]\nMaxMigrations=9\nMaxCall=1\n", f"{path}:3: There is no setting 'MaxCall'")):
            with pytest.raises(BusError, match=re.escape(why)) as caught:
                reload(wrong)
            assert caught.value.name == "org.freedesktop.DBus.Error.InvalidFileContent"
            assert broker.get("MaxMigrations") == 7
        path.unlink()
        with pytest.raises(BusError, match="Cannot read"):
            broker.client.call(PATH, BROKER, "Reload")
        reload("[Broker]\nMaxMigrations=7\nExpireSec=1\n")
        before = len(broker.log())
        reload("[Broker]\nMaxMigrations=7\nExpireSec=1\n")
        assert "The configuration was read again: nothing has changed.\n" in broker.log()[before:], broker.log()
        migration.cancel()
        migration.wait_finished()


def test_shipped_file(workdir: Path) -> None:
    """It changes nothing; and with its comments taken away it says what is so anyway."""
    text = (ROOT / "docs" / "vmferryd.conf").read_text()
    for config in (text, re.sub(r"^#(\w+=)", r"\1", text, flags=re.M)):
        with configured(workdir, config) as broker:
            assert broker.get("MaxMigrations") == 256 and "vmferryd.conf:" not in broker.log(), broker.log()


@pytest.mark.parametrize(("option", "words"), [
    ("--max-migrations=0", "--max-migrations=0 is no number from 1 to 10000."),
    ("--window=1025", "--window=1025 is no number from 1 to 1024."), ("--allow-plain=perhaps", "neither yes nor no"),
    ("--listen=tcp:example.org", "names are not resolved"), ("--allowed-directories=x", "the path is not absolute"),
    ("--config=x", "not an absolute path"), ("--config=/nonexistent/x", "Cannot read /nonexistent/x"),
    ("--config=/tmp", "Is a directory"), ("--max-calls", "requires an argument"), ("--max-call=", "ambiguous"),
])
def test_mistakes_on_the_command_line(option: str, words: str) -> None:
    done = run(option)
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_too_many_in_a_list() -> None:
    done = run(*[f"--listen=tcp:127.0.0.1:{port}" for port in range(17)])
    assert done.returncode == 2 and "one too many: the list has 16 already" in done.stderr


@pytest.mark.load_sensitive(reason="two are kept for longer than 0.4 s, and for less than 5")
def test_gate(workdir: Path) -> None:
    """The limit of those that have not said what they want; the log names its setting."""
    with configured(workdir, "[Broker]\nMaxGateConnections=2\n") as broker, ExitStack() as stack:
        migration = broker.prepare()
        host, port = broker.get("Endpoints")[0].removeprefix("tcp:").rsplit(":", 1)
        silent = [stack.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(3)]
        assert silent[0].recv(1) == b"", "the oldest pays"
        wait_until(lambda: "which is the limit (MaxGateConnections=)" in broker.log(), "it is said")
        for sock in silent[1:]:
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        migration.cancel()
        migration.wait_finished()


def test_defaults_of_calls(workdir: Path) -> None:
    """A call that says something itself is not bound by them."""
    with configured(workdir, "[Broker]\nExpireSec=1\nAllowPlain=no\n") as broker:
        long = broker.prepare("a", {"expire-usec": ("t", 600_000_000)})
        short = broker.prepare("b")
        assert short.wait_finished()["Result"] == "timed-out" and long.get("State") == "waiting"
        with pytest.raises(BusError, match="AllowPlain="):
            broker.prepare("c", {"security": ("s", "plain")})
        long.cancel()
        long.wait_finished()
