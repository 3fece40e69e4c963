# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl as a user runs it: on pipes, or on a terminal of tmux's."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from .broker import Broker, build_dir, wait_until

PROGRAM = build_dir() / "ctl" / "vmferryctl"

DONE, FAILED, USAGE, CANCELLED, TIMED_OUT, DENIED, BOTH_RUN = range(7)


class Result:
    """What one run came to."""

    def __init__(self, command: list[str], status: int, out: str, err: str) -> None:
        self.command, self.status, self.out, self.err = command, status, out, err

    def __repr__(self) -> str:
        return f"{shlex.join(self.command)}: {self.status}\nstdout: {self.out}\nstderr: {self.err}"

    def json(self) -> Any:
        return json.loads(self.out)

    def fails(self, status: int, *words: str) -> "Result":
        """One message, that holds these words, and this exit status."""
        messages = [line for line in self.err.splitlines() if line.startswith("vmferryctl: ")]
        assert self.status == status and len(messages) == 1, self
        assert self.err.rstrip().endswith(messages[0]), self
        for word in words:
            assert word in messages[0], (word, self)
        return self

    def succeeds(self) -> "Result":
        assert self.status == 0 and "vmferryctl: " not in self.err, self
        return self


def wait_all_finished(*brokers: Broker) -> None:
    """No migration goes on."""
    for broker in brokers:
        wait_until(lambda: all(entry[3] == "finished" for entry in broker.list()), f"the end of {broker.list()}", 30)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    base = {key: value for key, value in os.environ.items() if key.startswith(("ASAN_", "UBSAN_", "VMFERRY_"))}
    return {**base, "PATH": f"{PROGRAM.parent}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC",
            **(extra or {})}


def command(broker: Broker | None, *args: str, program: str = str(PROGRAM)) -> list[str]:
    return [program, *([f"--address={broker.bus.address}"] if broker else []), *args]


def ctl(broker: Broker | None, *args: str, stdin: str = "", timeout: float = 60,
        env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Result:
    """Runs it to its end, on pipes."""
    words = [*prefix, *command(broker, *args)]
    run = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment(env))
    assert "AddressSanitizer" not in run.stderr and "runtime error:" not in run.stderr, run.stderr
    return Result(words, run.returncode, run.stdout, run.stderr)


class Running:
    """One that goes on in the background, on pipes. end() has its result."""

    def __init__(self, broker: Broker | None, *args: str, stdin: str = "", env: dict[str, str] | None = None,
                 prefix: tuple[str, ...] = (), program: str = str(PROGRAM)) -> None:
        self.command = [*prefix, *command(broker, *args, program=program)]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env=environment(env))
        assert self.process.stdin
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self.process.stdin = None

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout: float = 60) -> Result:
        out, err = self.process.communicate(timeout=timeout)
        return Result(self.command, self.process.returncode, out, err)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Terminal:
    """A terminal of tmux's, of its own server, that runs one command line in a shell."""

    def __init__(self, workdir: Path, columns: int = 80, rows: int = 24, name: str = "tmux") -> None:
        self._socket = workdir / name
        self._env = environment({"TERM": "xterm-256color", "HOME": str(workdir), "SHELL": "/bin/sh"})
        # The first window's shell says nothing of its own.
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "-s", "s",
                   "env PS1='$ ' sh")
        wait_until(lambda: self.screen().startswith("$"), "the shell's prompt", 30)

    def _tmux(self, *args: str) -> str:
        return subprocess.run(["tmux", "-S", str(self._socket), *args], env=self._env, check=True, text=True,
                              capture_output=True, timeout=60).stdout

    def run(self, words: list[str]) -> None:
        self.type(shlex.join(words))
        self.key("Enter")

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-t", "s", "-l", text)

    def key(self, name: str) -> None:
        self._tmux("send-keys", "-t", "s", name)

    def resize(self, columns: int, rows: int = 24) -> None:
        self._tmux("resize-window", "-t", "s", "-x", str(columns), "-y", str(rows))

    def screen(self, colours: bool = False) -> str:
        return self._tmux("capture-pane", "-t", "s", "-p", *(["-e"] if colours else []))

    def wait_for(self, pattern: str, timeout: float = 30) -> str:
        """Waits until the screen matches; returns it."""
        seen = [""]

        def matches() -> bool:
            seen[0] = self.screen()
            return re.search(pattern, seen[0], re.M) is not None

        end = time.monotonic() + timeout
        while not matches():
            assert time.monotonic() < end, f"no /{pattern}/ within {timeout} s on:\n{seen[0]}"
            time.sleep(0.05)
        return seen[0]

    def close(self) -> None:
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], env=self._env, check=False,
                       capture_output=True)
        wait_until(lambda: self._gone(), "tmux's end", 30)
        self._socket.unlink(missing_ok=True)

    def _gone(self) -> bool:
        return subprocess.run(["tmux", "-S", str(self._socket), "ls"], env=self._env, check=False,
                              capture_output=True).returncode != 0

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
