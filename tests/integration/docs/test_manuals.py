# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl's verbs, options and words are the same in code, --help, man page, completions and XML."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from vmlib.broker import MIGRATION, ROOT, build_dir, wait_until
from vmlib.ctl import PROGRAM, ctl, environment
from vmlib.docs import define, flat, page, section, source, terms
from vmlib.hosts import Hosts, cancel_and_wait
from vmlib.network import free_port

PAGE = "vmferryctl.1.rst"
BASH = build_dir() / "ctl" / "completion" / "vmferryctl"
ZSH = build_dir() / "ctl" / "completion" / "_vmferryctl"


def verbs_of_code() -> dict[str, str]:
    """By verb: what it is given. Without the internal one."""
    rows = re.findall(r'\[VERB_(\w+)\] =\s*\{"(\w+)", "([^"]*)", \d+, \d+,\s*(NULL|")', source("ctl/options.c"))
    assert len(rows) > 12 and all(name.upper() == key for key, name, _, _ in rows)
    return {name: operands for _, name, operands, text in rows if text != "NULL"}


def options_of_code() -> dict[str, tuple[str, str, set[str]]]:
    """By option: its letter, its argument, and the verbs that have it (empty: all)."""
    text = source("ctl/options.c")
    rows = re.findall(r'\[OPTION_(\w+)\] = \{(NULL|"[\w-]+"), (0|\'\w\'), (NULL|"[^"]*"),\s*([^"]*?),\s*(?:NULL|")', text)
    assert len(rows) > 28
    found = {}
    for key, name, letter, argument, verbs in rows:
        if name == "NULL":
            continue  # -j, which is a way to write --json
        assert name.strip('"') == key.lower().replace("_", "-")
        words = set(re.findall(r"V\((\w+)\)", verbs.replace("DRIVE", "V(RECEIVE) | V(SEND) | V(MIGRATE)")))
        assert words or verbs == "ALL", (key, verbs)
        found[name.strip('"')] = (letter.strip("'").replace("0", ""), argument.strip('"').replace("NULL", ""),
                                  {word.lower() for word in words})
    return found


VERBS = verbs_of_code()
OPTIONS = options_of_code()
COMMON = {name for name, (_, _, verbs) in OPTIONS.items() if not verbs}


# ---- --help ----


def test_help_has_every_verb_and_fits_a_screen() -> None:
    text = ctl(None, "--help").succeeds().out
    lines = text.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines), text
    found = {verb: operands.strip() for verb, operands in re.findall(r"^  ([a-z]+) +((?:[\[\]A-Z…]+ ?)*)", text, re.M)}
    assert found == VERBS
    for name in COMMON:
        letter, argument, _ = OPTIONS[name]
        assert f"--{name}" in text and (not letter or f"-{letter}, " in text), name
        assert not argument or f"--{name}={argument}" in text, name


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str) -> None:
    text = ctl(None, verb, "--help").succeeds().out
    lines = text.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines), text
    found = {match[2]: (match[1] or "", match[3] or "")
             for match in re.finditer(r"^ +(?:-(\w), )?--([\w-]+)(?:\[?=(\w+)\]?)? {2,}\S", text, re.M)}
    brief = re.search(r"^   others:((?: +--\S+|\n {10})+)", text, re.M)  # those that are only named
    found |= {name: ("", argument) for name, argument in re.findall(r"--([\w-]+)(?:=(\w+))?", brief[1] if brief else "")}
    assert found == {name: (letter, argument.strip("[]")) for name, (letter, argument, verbs) in OPTIONS.items()
                     if verb in verbs}
    assert lines[0].endswith(f" {verb} {VERBS[verb]}".rstrip())


# ---- vmferryctl(1) ----


def test_verbs_of_the_page() -> None:
    said = terms(section(page(PAGE), "VERBS"))
    assert list(said) == [f"``{f'{verb} {operands}'.strip()}``" for verb, operands in VERBS.items()]
    assert all(said.values())


def test_options_of_the_page() -> None:
    for title, wanted in (("Of all verbs", COMMON), ("Of one verb or some", set(OPTIONS) - COMMON)):
        found = {}
        for match in re.finditer(r"^(?:-(\w), )?--([\w-]+)(\[?=\w+\]?)?\n((?:  .*\n|\n)+)", section(page(PAGE), title), re.M):
            found[match[2]] = match
        assert set(found) == wanted
        for name, match in found.items():
            letter, argument, verbs = OPTIONS[name]
            text = flat(match[4])
            assert (match[1] or "") == letter.replace("j", "") or name == "json", name
            assert bool(match[3]) == bool(argument), name
            if argument.startswith("[") and argument.endswith("]"):
                assert match[3] == f"[={argument[1:]}"
            elif argument and "[" not in argument:
                assert match[3] == f"={argument}", name
            if 0 < len(verbs) < 3 or name == "qmp":
                assert set(re.findall(r"\*\*(\w+)\*\*", text.split(":")[0] if ":" in text else text)) == verbs or verbs == {
                    "send", "migrate"}, name


def test_exit_statuses() -> None:
    numbers = dict(re.findall(r"STATUS_(\w+) = (\d),", source("ctl/trouble.h")))
    said = re.findall(r"^(\d)\n  (\w+)", section(page(PAGE), "EXIT STATUS"), re.M)
    assert [number for number, _ in said] == sorted(numbers.values())
    assert dict(said)[numbers["CANCELLED"]] == "Cancelled" and dict(said)[numbers["DENIED"]] == "Not"
    assert dict(said)[numbers["TIMED_OUT"]] == "Timed" and dict(said)[numbers["USAGE"]] == "The"


def test_numbers_of_the_page() -> None:
    text = flat(page(PAGE))
    passes = re.search(r"#define AUTO_AFTER (\d+)", source("ctl/drive/drive.c"))
    assert passes and {"4": "with the fourth pass over the memory"}[passes[1]] in text
    plain = re.search(r"#define PLAIN +\((\d+) \* SECOND\)", source("ctl/terminal/meter.c"))
    assert plain and f"one every {plain[1]} seconds" in text
    for option, macro in (("--expire", "DEFAULT_EXPIRE"), ("--resume-timeout", "DEFAULT_RESUME")):
        seconds = define(macro, "broker/config/config.h") // 1000000
        assert re.search(rf"\{option}=TIME [^-]*Default: {seconds} seconds", text), option
        assert f"({seconds})" in ctl(None, "send", "--help").out


# ---- Completions ----


def test_properties_are_those_of_the_xml() -> None:
    node = ElementTree.fromstring(source(f"dbus/{MIGRATION}.xml"))
    names = [member.get("name") for member in node.iter("property")]
    for file in (BASH, ZSH):
        found = re.search(r"\bId Vm Role[\w\s]*", file.read_text())
        assert found and found[0].split() == names, file


def complete_bash(line: str, env: dict[str, str] | None = None) -> list[str]:
    """What bash would offer at the end of the line."""
    script = f"""
        source {shlex.quote(str(BASH))}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        # As bash breaks it, at blanks and at '='.
        words=(); for word in $COMP_LINE; do
            case $word in --*=*) words+=("${{word%%=*}}" "=" "${{word#*=}}") ;; *) words+=("$word") ;; esac
        done
        [[ $COMP_LINE == *" " ]] && words+=("")
        [[ ${{words[-1]}} == "" && ${{words[-2]}} == "=" ]] && unset 'words[-1]'
        COMP_WORDS=("${{words[@]}}") COMP_CWORD=$((${{#words[@]}} - 1))
        _vmferryctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=30,
                         env=environment(env))
    assert run.returncode == 0 and run.stderr == "", run
    return sorted(word.strip() for word in run.stdout.splitlines() if word.strip())


def test_bash_verbs_and_options() -> None:
    assert complete_bash("vmferryctl ") == sorted(VERBS)
    assert complete_bash("vmferryctl mi") == ["migrate"]
    for verb in VERBS:
        found = complete_bash(f"vmferryctl {verb} --")
        wanted = {f"--{name}{'=' if argument else ''}" for name, (_, argument, verbs) in OPTIONS.items()
                  if not verbs or verb in verbs}
        wanted |= {f"--{name}" for name, (_, argument, verbs) in OPTIONS.items()
                   if re.fullmatch(r"\[.*\]", argument) and verb in verbs}
        assert set(found) == wanted, verb
    assert complete_bash("vmferryctl --json=") == ["off", "pretty", "seq", "short"]
    assert complete_bash("vmferryctl receive web1 --security=t") == ["tls"]
    assert complete_bash("vmferryctl send web1 --postcopy=a") == ["auto"]


def test_bash_migrations(hosts: Hosts) -> None:
    env = {"DBUS_SYSTEM_BUS_ADDRESS": hosts.destination.bus.address}
    migration, other = hosts.prepare("web1"), hosts.prepare("db2")
    assert complete_bash("vmferryctl status ", env) == sorted([migration.id, other.id, "web1", "db2"])
    assert complete_bash("vmferryctl wait we", env) == ["web1"]
    assert complete_bash("vmferryctl forget ", env) == []
    other.cancel()
    other.wait_finished()
    assert complete_bash("vmferryctl forget ", env) == [other.id]
    address = f"vmferryctl --address={hosts.destination.bus.address} cancel w"
    assert complete_bash(address) == ["web1"]
    migration.cancel()
    migration.wait_finished()


def test_bash_files(workdir: Path) -> None:
    (workdir / "web1.qmp").touch()
    assert complete_bash(f"vmferryctl receive web1 --qmp={workdir}/we") == [f"{workdir}/web1.qmp"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh(hosts: Hosts, workdir: Path) -> None:
    """In a real zsh on a terminal, as somebody presses the tabulator."""
    from vmlib.ctl import Terminal

    migration = hosts.prepare("web1")
    with Terminal(workdir, 120, 60) as terminal:
        terminal.type(f"DBUS_SYSTEM_BUS_ADDRESS={hosts.destination.bus.address} PS1='zsh: ' zsh -f\n")
        terminal.wait_for(r"^zsh:")
        terminal.type(f"fpath=({ZSH.parent} $fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=999; clear; echo ready\n")
        terminal.wait_for(r"^ready$")
        terminal.type("vmferryctl \t")
        text = terminal.wait_for(r"^migrate .*")
        assert not [verb for verb in VERBS if not re.search(rf"^{verb} +-- \S", text, re.M)], text
        terminal.type("sta\t")
        terminal.wait_for(r"zsh: vmferryctl status")
        terminal.type(f"{migration.id[:6]}\t")
        terminal.wait_for(rf"zsh: vmferryctl status {migration.id}")
        terminal.key("C-u")
        for verb in VERBS:
            terminal.type(f"clear\nvmferryctl {verb} --\t")
            own = [name for name, (_, _, verbs) in OPTIONS.items() if verb in verbs] or ["host"]
            text = terminal.wait_for(rf"^--{own[-1]}\b")
            missing = [name for name, (_, _, verbs) in OPTIONS.items()
                       if (not verbs or verb in verbs) and not re.search(rf"--{name}\b", text)]
            assert not missing, (verb, missing, text)
            terminal.key("C-c")
            terminal.wait_for(r"^zsh:$")
    migration.cancel()
    migration.wait_finished()


def test_installed(tmp_path: Path) -> None:
    """The program, its page, its completions and the examples go where they are looked for."""
    subprocess.run(["meson", "install", "-C", build_dir(), "--no-rebuild", "--quiet"], check=True,
                   env=os.environ | {"DESTDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    prefix = tmp_path / meson_option("prefix").removeprefix("/")
    there = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    debian = prefix == tmp_path / "usr" and Path("/etc/debian_version").exists()
    share = ("man/man1/vmferryctl.1", "bash-completion/completions/vmferryctl",
             f"zsh/{'vendor-completions' if debian else 'site-functions'}/_vmferryctl", "doc/vmferry/README.md",
             "doc/vmferry/threat-model.md", "doc/vmferry/libvirt.md", "doc/vmferry/examples/fd_client.py",
             "doc/vmferry/examples/manager.c", "doc/vmferry/examples/manager.sh", "doc/vmferry/examples/vmferry-types.h", "doc/vmferry/examples/vmferry-metrics.timer")
    assert {"bin/vmferryctl", *(f"share/{name}" for name in share)} <= there, there


def meson_option(name: str) -> str:
    """An option of the build under test."""
    said = subprocess.run(["meson", "introspect", "--buildoptions", build_dir()], check=True, capture_output=True, text=True)
    return str(next(option["value"] for option in json.loads(said.stdout) if option["name"] == name))


def test_index() -> None:
    """docs/index.md names each document, and nothing that is not there."""
    text = (ROOT / "docs" / "index.md").read_text()
    for path in (ROOT / "docs").iterdir():
        if path.name not in ("index.md", "meson.build"):
            assert f"`{path.name}`" in text or f"`{path.name}/`" in text, f"docs/index.md does not name {path.name}"
    for name in re.findall(r"`([\w./-]+\.(?:md|rst|conf)|[\w/]+/)`", text):
        assert (ROOT / "docs" / name).exists() or (ROOT / name).exists(), f"docs/index.md names {name}, which is not there"


def test_version() -> None:
    """It names the libraries, for reports of faults."""
    said = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True).stdout
    number = re.escape(meson_version())
    found = re.fullmatch(rf"vmferryctl {number}\nFeatures: (.+)\nBuilt with gnutls [\d.]+, .*libsystemd \d+, .*\n", said)
    assert found
    options = subprocess.run([PROGRAM, "migrate", "--help"], check=True, capture_output=True, text=True).stdout
    for feature in found[1].split():
        assert re.search(rf"^ +--{feature}\b", options, re.M), feature


def meson_version() -> str:
    found = re.search(r"^  version: '([\d.]+)'", (ROOT / "meson.build").read_text(), re.M)
    assert found
    return found[1]


def test_figures_are_read_by_prometheus(hosts: Hosts, workdir: Path) -> None:
    """promtool and Debian's node exporter read the file that vmferryctl(1) names."""
    before = hosts.connect("gone")
    cancel_and_wait(before.outgoing)
    before.outgoing.call("Report", "sa{sv}", "moved", {"downtime-usec": ("t", 250000)})
    before.outgoing.call("Forget")
    before.incoming.wait_finished()
    tunnel = hosts.connect("a\"b")
    tunnel.outgoing.call("Report", "sa{sv}", "lost", {})
    target = workdir / "vmferry.prom"
    ctl(hosts.source, "metrics", f"--output={target}").succeeds()
    check = subprocess.run(["promtool", "check", "metrics"], input=target.read_text(), capture_output=True, text=True,
                           check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", ""), check
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen(["prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
                           f"--collector.textfile.directory={workdir}", f"--web.listen-address={address}"],
                          stderr=subprocess.DEVNULL) as exporter:
        try:
            def scrape() -> str:
                try:
                    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
                        return str(reply.read().decode())
                except OSError:
                    return ""

            text = wait_until(scrape, "node_exporter answers", 60)
        finally:
            exporter.terminate()
    assert "node_textfile_scrape_error 0\n" in text and "vmferry_up 1\n" in text
    assert re.search(r'^vmferry_migration_state_info\{.*outcome="lost".*vm="a\\"b"\} 1$', text, re.M), text
    for line in ('vmferry_migrations_total{outcome="moved",role="outgoing"} 1', "vmferry_downtime_seconds_sum 0.25",
                 'vmferry_downtime_seconds_bucket{le="0.1"} 0', 'vmferry_downtime_seconds_bucket{le="0.3"} 1'):
        assert line in text.splitlines(), (line, text)
    cancel_and_wait(tunnel.outgoing)
    tunnel.incoming.wait_finished()


def test_alert_rules_and_dashboard() -> None:
    """What they ask for is what vmferryctl prints."""
    alerts, board = (ROOT / "ctl" / "examples" / name for name in ("vmferry-alerts.yml", "vmferry-dashboard.json"))
    check = subprocess.run(["promtool", "check", "rules", str(alerts)], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check
    asked = alerts.read_text() + "\n".join(target["expr"] for panel in json.loads(board.read_text())["panels"]
                                           for target in panel["targets"])
    printed = source("ctl/verbs/metrics.c")
    for name in set(re.findall(r"\bvmferry_\w+", asked)):
        assert re.sub(r"_(info|total)$", "", name) in printed, name


def test_metrics(hosts: Hosts, workdir: Path) -> None:
    """A parser that is not ours takes it, and its figures are the properties."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    tunnel = hosts.connect('we"b\\1')
    near, far = tunnel.open_channel()
    text = ctl(hosts.source, "metrics", "--openmetrics").succeeds().out
    families = {family.name: family for family in text_string_to_metric_families(text)}
    labels = {"id": tunnel.outgoing.id, "role": "outgoing", "vm": 'we"b\\1'}
    assert families["vmferry_migrations_active"].samples[0].value == 1
    (sample,) = families["vmferry_migration_sent_bytes"].samples
    assert (sample.name, sample.labels, sample.value) == ("vmferry_migration_sent_bytes_total", labels, 1)
    assert families["vmferry_sent_bytes"].samples[0].value == 1
    assert {s.labels["outcome"] for s in families["vmferry_migrations"].samples} == \
        {"moved", "not-moved", "lost", "unknown", "carried", "failed", "cancelled", "timed-out"}
    (state,) = families["vmferry_migration_state"].samples
    assert state.labels == {**labels, "security": "tls", "state": "active", "result": "", "phase": "", "outcome": ""}
    (started,) = families["vmferry_migration_started_seconds"].samples
    assert abs(started.value * 1e6 - tunnel.outgoing.get("StartedUsec")) < 2
    target = workdir / "vmferry.prom"
    target.write_text("old")
    assert ctl(hosts.source, "metrics", "--openmetrics", f"--output={target}").succeeds().out == ""
    assert target.read_text().endswith("# EOF\n") and target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in workdir.glob("vmferry.prom*")] == ["vmferry.prom"]
    ctl(hosts.source, "metrics", f"--output={workdir}/none/x").fails(1, f"{workdir}/none/x", "No such file")
    near.close()
    far.close()
    for end in tunnel.ends:
        end.wait_finished()


def test_example_units(workdir: Path) -> None:
    """systemd finds nothing to say about them, and the service's command is one that there is."""
    examples = ROOT / "ctl" / "examples"
    (command,) = re.findall(r"^ExecStart=(.*)$", (examples / "vmferry-metrics.service").read_text(), re.M)
    assert command in page(PAGE)
    for name in ("vmferry-metrics.service", "vmferry-metrics.timer"):
        text = (examples / name).read_text().replace("ExecStart=vmferryctl", f"ExecStart={PROGRAM}")
        (workdir / name).write_text(text)
    run = subprocess.run(["systemd-analyze", "verify", "--man=no", str(workdir / "vmferry-metrics.timer")],
                         capture_output=True, text=True, timeout=60)
    said = [line for line in run.stderr.splitlines() if "vmferry-metrics" in line]
    assert not said, run.stderr
