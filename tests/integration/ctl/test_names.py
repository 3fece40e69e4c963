# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of VMs are data: to the shells' completions, to what vmferryctl prints for pasting, and to its own parsing."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.broker import Broker, build_dir
from vmlib.ctl import CANCELLED, FAILED, USAGE, ctl, environment

COMPLETION = build_dir() / "ctl" / "completion"
NAMES = ["$(touch flag)", "`touch flag`", "a'b\"c", "$((1+1))", "~", "~root", "*", "two  words; touch flag",
         "a&b|c>flag", "x[$(touch flag)]", "=(touch flag)", "(e)'touch flag'", "%{$(touch flag)%}", "{a,b}", "!!",
         "co:lon=x", "日本", "back\\slash", "${x@P}", "plain"]

# As much of a name as no other one begins with, nor an id; else its first character does.
BEGINS = {"$(touch flag)": "$(t", "$((1+1))": "$((", "${x@P}": "${", "~root": "~r", "a'b\"c": "a'", "a&b|c>flag": "a&",
          "co:lon=x": "co", "back\\slash": "back"}


def words(line: str) -> list[str]:
    """What a shell makes of the line, for lines that hold no expansions but quotes."""
    return shlex.split(line)


class Shell:
    """An interactive shell on a terminal, in a directory where a flag would appear."""

    def __init__(self, workdir: Path, command: list[str], env: dict[str, str]) -> None:
        self.flag = workdir / "flag"
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(workdir)
            os.execve(command[0], command, env)
        self.text = ""

    def read(self, pattern: str, timeout: float = 30) -> str:
        """What it prints, up to where that ends with the pattern."""
        end, seen = time.monotonic() + timeout, ""
        while not re.search(pattern, seen):
            assert time.monotonic() < end, f"no {pattern!r} in {self.text!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                data = os.read(self.fd, 4096).decode(errors="replace")
                self.text += data
                seen += data
        return seen

    def complete(self, line: str, tabs: str = "\t") -> str:
        """What stands on the line after a TAB: the shell writes it to a file, with the key that is bound to that."""
        seen = self.flag.with_name("seen")
        seen.unlink(missing_ok=True)
        os.write(self.fd, line.encode() + tabs.encode() + b"\x18\x18")
        end = time.monotonic() + 30
        while not (seen.exists() and seen.read_text().endswith("\n.\n")):
            assert time.monotonic() < end, self.text
            if select.select([self.fd], [], [], 0.05)[0]:
                self.text += os.read(self.fd, 4096).decode(errors="replace")
        os.write(self.fd, b"\x15")  # kills the line
        return seen.read_text().removesuffix("\n.\n")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def broker(workdir: Path) -> Iterator[Broker]:
    with Broker(workdir, "a") as one:
        yield one
        for entry in one.list():
            if entry[3] != "finished":
                ctl(one, "cancel", entry[0]).succeeds()
        ctl(one, "wait", "-q", *[entry[0] for entry in one.list()])


def bash(workdir: Path) -> Shell:
    shell = Shell(workdir, ["/bin/bash", "--norc", "--noprofile", "-i"],
                  {**environment(), "TERM": "dumb", "PS1": "READY> ", "HOME": str(workdir), "HISTFILE": ""})
    shell.read("READY> ")
    for setup in (f"source {COMPLETION}/vmferryctl", "set +H", "bind 'set bell-style none'",
                  "bind 'set enable-bracketed-paste off'", "bind 'set completion-query-items 0'",
                  "bind 'set page-completions off'",
                  r"""bind -x '"\C-x\C-x": printf "%s\n.\n" "$READLINE_LINE" >seen'"""):
        os.write(shell.fd, setup.encode() + b"\n")
        shell.read("READY> $")
    return shell


def zsh(workdir: Path) -> Shell:
    (workdir / ".zshrc").write_text(f"""unsetopt zle_bracketed_paste beep bang_hist
        fpath=({COMPLETION} $fpath)
        autoload -Uz compinit
        compinit -u -D
        PS1='READY> '
        keep() {{ print -r -- "$BUFFER"$'\\n.' >seen }}
        zle -N keep
        bindkey '^X^X' keep
        bindkey '^I' complete-word
        bindkey '^U' kill-whole-line
        zstyle ':completion:*' list-prompt ''
        """)
    shell = Shell(workdir, [shutil.which("zsh") or "zsh", "-d", "-i"],
                  {**environment(), "TERM": "dumb", "HOME": str(workdir), "ZDOTDIR": str(workdir)})
    shell.read("READY> ")
    return shell


@pytest.mark.parametrize("start", [bash, zsh])
def test_completion(workdir: Path, broker: Broker, start: object) -> None:
    """A TAB runs nothing, and what it puts on the line is the name, quoted, as one word."""
    if start is zsh and not shutil.which("zsh"):
        pytest.skip("no zsh")
    ids = {}
    for name in NAMES:
        ids[name] = broker.prepare(name).id
        broker.prepare(f"-{name}")  # these are never offered: they would be options
    shell = bash(workdir) if start is bash else zsh(workdir)
    line = f"vmferryctl --address={broker.bus.address} status "
    try:
        shell.complete(line, "\t\t")  # all of them are listed
        for name in NAMES:
            typed = re.sub(r"(\W)", r"\\\1", BEGINS.get(name, name[0]), flags=re.A)
            seen = shell.complete(line + typed)
            assert not shell.flag.exists(), (name, seen)
            if name == "~":
                continue  # begins another one, too
            got = words(seen)
            assert got[-1] == name and len(got) == 4, (name, seen, shell.text[-500:])
        for name, id in ids.items():
            assert words(shell.complete(line + id[:12]))[-1] == id, name
        for typed in ("-", "--", "-p", "$(touch flag)", "`touch flag`", "x[$(touch flag)]"):
            assert not re.search(r"touch flag.*touch flag", shell.complete(line + typed))
            assert not shell.flag.exists()
        # What is typed before the verb is not evaluated either, and no program is started that an address names.
        for before in ("x[$(touch flag)]", "-H '$(touch flag)'", "--address=unixexec:path=/usr/bin/touch,argv1=flag",
                       "-H -oProxyCommand=touch\\ flag"):
            shell.complete(f"vmferryctl {before} status ")
            assert not shell.flag.exists(), before
    finally:
        shell.close()


PASTED = ["plain", "$(touch flag)", "`touch flag`", "a'b\"c", "two words; touch flag", "*", "~", "-x",
          "--address=unixexec:path=/usr/bin/touch,argv1=flag", "a\\b", "=ls", "!x"]


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_what_is_to_be_pasted(workdir: Path, broker: Broker, shell: str) -> None:
    """The command of receive's hint: a shell makes of it the name, as one word that is no option."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    for name in PASTED:
        hint = ctl(broker, "receive", "--", name).succeeds().err
        command = hint.split("ticket on stdin:  ")[1].split("\nThe ticket is good for ")[0]
        run = subprocess.run([shell, "-c", f'vmferryctl() {{ printf "%s\\n" "$@"; }}; {command}'], capture_output=True,
                             text=True, cwd=workdir, timeout=30)
        got = run.stdout.splitlines()
        assert run.stderr == "" and name in got and not (workdir / "flag").exists(), (command, run)
        assert got in (["send", name, "--qmp=SOCKET"], ["send", "--qmp=SOCKET", "--", name]), (command, got)
        assert got[-2] == "--" if name.startswith("-") else True


def test_ssh_that_is_to_be_pasted() -> None:
    host = "a'b;touch flag"
    ctl(None, f"--host={host}", "list", env={"VMFERRY_SSH": "/bin/false"}).fails(
        FAILED, "Does 'ssh 'a'\\''b;touch flag' true' work?")


@pytest.mark.parametrize("host", [
    "unixexec:path=/usr/bin/touch,argv1={flag}", "unix:path=/x;unixexec:path=/usr/bin/touch,argv1={flag}",
    "unixexec:path=/usr/bin/touch,argv1={flag};unix:path=/x", "tcp:host=127.0.0.1,port=1", "autolaunch:scope=x",
    "launchd:env=X", "x-machine-unix:pid=1", "x-machine-kernel:machine=x", "unix:path=/x,foo=bar", "unix:tmpdir=/x",
    "unix:runtime=yes", "kernel:path=/x", "=", "a=b", "unix:path=", "unix:path=/x,", "nonceunix:path=/x",
])
def test_host_starts_no_program(workdir: Path, broker: Broker, host: str) -> None:
    """Of addresses only that of a UNIX socket can stand for a HOST."""
    flag = workdir / "flag"
    host = host.format(flag=flag)
    ctl(broker, "migrate", "vm", host, "--qmp=/x", "--dst-qmp=/y").fails(USAGE, "is no host", "unix:path=")
    assert "is no host" in ctl(broker, "check", host).out
    assert not flag.exists()


def test_host_that_is_another_bus(workdir: Path, broker: Broker) -> None:
    for host in (broker.bus.address, f"{broker.bus.address},guid={'0' * 32}"):
        assert "is no host" not in ctl(broker, "check", host).out
    assert "FAIL  bus" in ctl(broker, "check", f"unix:abstract={workdir}/none").out
    ctl(None, "--address=unix:path=/none", "list").fails(FAILED, "/none")


def test_names_that_people_have(broker: Broker) -> None:
    """Each verb takes them as they are."""
    for name in ("büro 名前", "../../etc", "100%s%n", "q\"uo\\te'$(reboot)", "--help", "0123456789abcdef",
                 "incoming/0123456789abcdef", "x" * 255, " "):
        ctl(broker, "receive", "-q", "--", name).succeeds()
        assert ctl(broker, "show", "-p", "Vm", "--value", "--", name).succeeds().out == f"{name}\n"
        ctl(broker, "limit", "--", name, "5M").succeeds()
        ctl(broker, "cancel", "--", name).succeeds()
        ctl(broker, "wait", "-q", "--", name).fails(CANCELLED)
