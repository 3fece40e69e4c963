# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl where no QEMU is needed: what it shows, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
from pathlib import Path

import pytest
from vmlib.broker import Broker, wait_until
from vmlib.ctl import CANCELLED, DENIED, FAILED, PROGRAM, TIMED_OUT, USAGE, Running, Terminal, ctl, environment
from vmlib.hosts import Hosts
from vmlib.polkit import Polkit, SystemBroker
from vmlib.polkit import available as polkit_available
from vmlib.users import OpenBus


def listed(broker: Broker) -> list[str]:
    """The states of its migrations."""
    return [state for _, _, _, state, _, _ in broker.list()]


# ---- What it shows ----


def test_list(hosts: Hosts) -> None:
    assert ctl(hosts.destination, "list").succeeds().out == "0 migrations.\n"
    assert ctl(hosts.destination, "list", "-j").json() == []
    incoming = hosts.prepare("web1")
    out = ctl(hosts.destination).succeeds().out  # it is what a command without a verb does
    user = pwd.getpwuid(os.getuid()).pw_name
    head = r"VM +ROLE +PEER +STATE +PHASE +PROGRESS +RATE +AGE +OUTCOME +OWNER +ID *\n"
    row = rf"web1 +incoming +waiting +0 B/s +\d+ m?s +{user} +{incoming.id} *\n"
    assert re.fullmatch(rf"{head}{row}\n1 migration\.\n", out), out
    assert re.fullmatch(row, ctl(hosts.destination, "list", "--no-legend").out)
    (one,) = ctl(hosts.destination, "list", "--json=short").json()
    assert one["Path"] == incoming.path
    assert {key: value for key, value in incoming.get_all().items() if key in one} == {
        key: value for key, value in one.items() if key != "Path"}
    incoming.cancel()
    incoming.wait_finished()
    assert ctl(hosts.destination, "list").out == "0 migrations, and finished ones (--all).\n"
    other = hosts.prepare("Grüße, 日本")
    out = ctl(hosts.destination, "list", "--all", env={"LC_ALL": "C.UTF-8"}).out
    assert re.search(rf"^Grüße, 日本 +incoming.* {other.id} *\nweb1 +incoming.* cancelled .*{incoming.id} *$", out, re.M), out
    other.cancel()
    other.wait_finished()


def test_status_and_show_have_every_property(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    near, far = tunnel.open_channel()
    properties = tunnel.outgoing.get_all()
    for verb in ("status", "show"):
        for mode in ("short", "pretty"):
            record = ctl(hosts.source, verb, "web1", f"--json={mode}").succeeds().json()
            assert set(record) == set(properties)
            for name in ("Id", "Vm", "Role", "Security", "OwnerUid", "Sockets", "StartedUsec", "State", "Peer"):
                assert record[name] == properties[name], name
            assert record["Channels"] == [{"Stream": "migrate", "Number": 0, "Sent": 1, "Received": 0, "State": "open"}]
    text = ctl(hosts.source, "status", "web1").succeeds().out
    assert text.startswith(f"web1 outgoing {tunnel.outgoing.id}\n")
    for what in ("State: active", "Security: tls", "Peer: tcp:127.0.0.1:", "Limit: none", "Reconnects: 0",
                 f"Socket: migrate {properties['Sockets']['migrate']}", "Progress: active  1 B",
                 "Channels: migrate 0 open, sent 1 B, received 0 B"):
        assert what in text, text
    shown = dict(line.split("=", 1) for line in ctl(hosts.source, "show", "web1").out.splitlines())
    assert set(shown) == set(properties) and shown["Vm"] == "web1" and shown["Sockets"].startswith("migrate=/")
    assert ctl(hosts.source, "show", "-p", "State", "--property=Vm", "web1").out == "State=active\nVm=web1\n"
    assert ctl(hosts.source, "show", "-p", "State", "--value", "web1").out == "active\n"
    ctl(hosts.source, "show", "-p", "Nonsense", "web1").fails(USAGE, "Nonsense")
    near.close()
    far.close()
    for end in tunnel.ends:
        end.wait_finished()


def test_status_of_the_broker(hosts: Hosts) -> None:
    text = ctl(hosts.source, "status").succeeds().out
    for what in (f"vmferryd {hosts.source.get('Version')}", "Features: tls plain", "Endpoints: tcp:127.0.0.1:0",
                 "Migrations: 0 running, of 256 at most"):
        assert what in text, text
    assert ctl(hosts.source, "show", "-j").json()["MaxMigrations"] == 256


def test_which_migration_is_meant(hosts: Hosts) -> None:
    first = hosts.prepare("web1")
    first.cancel()
    first.wait_finished()
    second = hosts.prepare("web1")  # the VM's running one goes before the finished one
    assert ctl(hosts.destination, "show", "web1", "-p", "Id", "--value").out == f"{second.id}\n"
    assert ctl(hosts.destination, "show", first.id, "-p", "Id", "--value").out == f"{first.id}\n"
    assert ctl(hosts.destination, "show", f"incoming/{first.id}", "-p", "Id", "--value").out == f"{first.id}\n"
    ctl(hosts.destination, "status", f"outgoing/{first.id}").fails(FAILED, first.id, "vmferryctl list")
    ctl(hosts.destination, "status", "web2").fails(FAILED, "web2", "vmferryctl list")
    assert second.ticket
    outgoing = hosts.destination.outgoing(second.ticket, "web1")  # to itself: the same id twice
    ctl(hosts.destination, "cancel", second.id).fails(USAGE, f"incoming/{second.id}", f"outgoing/{second.id}")
    ctl(hosts.destination, "cancel", f"incoming/{second.id}").succeeds()
    for migration in (second, outgoing):
        migration.wait_finished()


# ---- What it does ----


def test_cancel_limit_forget(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    ctl(hosts.source, "limit", "web1", "1.5M").succeeds()
    assert tunnel.outgoing.get("BandwidthLimit") == 3 << 19
    assert "Limit: 1.5 MiB/s" in ctl(hosts.source, "status", "web1").out
    ctl(hosts.source, "limit", "web1", "0").succeeds()
    assert tunnel.outgoing.get("BandwidthLimit") == 0
    for bad in ("fast", "-1", "10Mb", "", "1..5M", "99999999999T"):
        ctl(hosts.source, "limit", "--", "web1", bad).fails(USAGE, f"'{bad}'", "100M")
    ctl(hosts.source, "forget", "web1").fails(FAILED, "web1", tunnel.outgoing.id, "Wait for its end")
    ctl(hosts.source, "cancel", "web1").succeeds()  # connected, but no QEMU is there yet
    tunnel.assert_failed("cancelled", "Cancelled")
    ctl(hosts.source, "forget", "web1").succeeds()
    assert hosts.source.list() == []


def test_cancel_of_what_is_under_way_wants_to_be_sure(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    near, far = tunnel.open_channel()
    ctl(hosts.source, "cancel", "web1").fails(USAGE, "web1", tunnel.outgoing.id, "--qmp", "--force", "post-copy")
    assert tunnel.outgoing.get("State") == "active"
    ctl(hosts.source, "cancel", "--force", "web1").succeeds()
    tunnel.assert_failed("cancelled", "Cancelled")
    near.close()
    far.close()


def test_wait(hosts: Hosts) -> None:
    good, bad = hosts.connect("good"), hosts.connect("bad")
    with Running(hosts.source, "wait", "good", "bad") as waiting, Running(hosts.source, "wait", "good", "-j") as one:
        near, far = good.open_channel()
        near.close()
        far.close()
        done = one.end()
        assert done.status == 0 and done.json()[0]["Result"] == "done"
        bad.incoming.cancel()
        result = waiting.end()
        assert result.out == f"{good.outgoing.id} good carried\n{bad.outgoing.id} bad cancelled\n"
        result.fails(CANCELLED, "bad", "Cancelled at the destination")
    for tunnel in (good, bad):
        for end in tunnel.ends:
            end.wait_finished()


def test_wait_gives_up(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    result = ctl(hosts.source, "wait", "web1", "--timeout=300ms").fails(TIMED_OUT, "web1", "still connected", "goes on")
    assert result.out == f"{tunnel.outgoing.id} web1 connected\n"
    tunnel.outgoing.cancel()
    for end in tunnel.ends:
        end.wait_finished()


def test_status_of_time_outs(hosts: Hosts) -> None:
    incoming = hosts.prepare("web1", expire_usec=("t", 200_000))
    ctl(hosts.destination, "wait", "web1").fails(TIMED_OUT, "web1", incoming.id)


def test_receive_and_send_by_hand(hosts: Hosts) -> None:
    """Without --qmp: whoever drives QEMU is told what to say to it."""
    ticket = ctl(hosts.destination, "receive", "web1", "--security=plain", "--expire=90").succeeds()
    assert re.fullmatch(r"vmferry1:[\w-]+\n", ticket.out)
    (path,) = re.findall(r"migrate_incoming unix:(\S+)", ticket.err)
    assert "vmferryctl send web1" in ticket.err and "vmferry1:" not in ticket.err
    sent = ctl(hosts.source, "send", "web1", stdin=ticket.out).succeeds()
    outgoing, incoming = hosts.source.list()[0], hosts.destination.list()[0]
    assert outgoing[0] == incoming[0] and path.endswith(f"/incoming/{outgoing[0]}/migrate.sock")
    assert sent.out.endswith(f"/outgoing/{outgoing[0]}/migrate.sock\n") and f"migrate -d unix:{sent.out}" in sent.err
    assert ctl(hosts.source, "show", "web1", "-p", "Security", "--value").out == "plain\n"
    ctl(hosts.source, "cancel", "web1").succeeds()
    for broker in hosts.brokers:
        ctl(broker, "wait", "-q", "web1").fails(CANCELLED)


def test_options_of_receive_and_send_arrive(hosts: Hosts, workdir: Path) -> None:
    far, near = workdir / "far.sock", workdir / "near.sock"
    out = ctl(hosts.destination, "receive", "web1", f"--socket={far}", "-j", "-q",
              f"--socket-owner={os.getuid()}", "--resume-timeout=0").succeeds()
    assert out.err == "" and out.json()["Socket"] == str(far)
    (workdir / "ticket").write_text(out.json()["Ticket"])  # without the end of the line
    (endpoint,) = hosts.destination.get("Endpoints")
    record = ctl(hosts.source, "send", "web1", f"--socket={near}", f"--ticket-file={workdir}/ticket",
                 f"--endpoint={endpoint}", "-j", "-q").succeeds().json()
    assert record["Sockets"] == {"migrate": str(near)} and record["Id"] == out.json()["Id"]
    assert record["Peer"] == endpoint
    ctl(hosts.destination, "cancel", record["Id"]).succeeds()
    for broker in hosts.brokers:
        ctl(broker, "wait", "-q", "web1").fails(CANCELLED)


def test_libvirt_is_ready_for_all_that_come_first(workdir: Path, hosts: Hosts) -> None:
    """The source's vmferryctl and its libvirtd: for neither does libvirt-in wait, also before the source is there."""
    path = workdir / "libvirt" / "libvirt-sock"
    path.parent.mkdir()
    incoming = hosts.prepare("web1", streams=("as", ["migrate", "libvirt"]))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        with Running(None, "--user", "stdio", "libvirt-in", incoming.path, env={
                "XDG_RUNTIME_DIR": str(workdir), "DBUS_SESSION_BUS_ADDRESS": hosts.destination.bus.address}) as run:
            assert run.process.stdout and run.process.stdout.readline().startswith("vmferryctl stdio ")
            listener.setblocking(False)  # what it has brought it has brought before it greets
            for _ in range(2):
                listener.accept()[0].close()
            with pytest.raises(BlockingIOError):
                listener.accept()
    path.unlink()
    incoming.cancel()


# ---- What goes wrong ----


@pytest.mark.parametrize(("ticket", "word"), [
    ("", "is empty"), ("\n\n", "is empty"), ("hello\n", "is no ticket"), ("vmferry1:" + "A" * 5000, "is no ticket"),
    ("vmferry1:AAAA\n", "ticket"), ("vmferry2:AAAA\n", "version"), ("\x00" * 200, "is empty"),
])
def test_bad_tickets(hosts: Hosts, workdir: Path, ticket: str, word: str) -> None:
    ctl(hosts.source, "send", "web1", stdin=ticket).fails(FAILED, word)
    (workdir / "ticket").write_text(ticket)
    ctl(hosts.source, "send", "web1", f"--ticket-file={workdir}/ticket").fails(FAILED, word)
    assert hosts.source.list() == []


def test_ticket_file_missing(hosts: Hosts, workdir: Path) -> None:
    ctl(hosts.source, "send", "web1", f"--ticket-file={workdir}/none").fails(
        FAILED, f"{workdir}/none", "No such file", "vmferryctl receive")
    ctl(hosts.source, "send", "web1", f"--ticket-file={workdir}").fails(FAILED, "Cannot read the ticket")
    assert hosts.source.list() == []


def test_a_ticket_is_not_for_command_lines(hosts: Hosts) -> None:
    ticket = hosts.prepare().ticket
    assert ticket
    result = ctl(hosts.source, "send", "web1", ticket).fails(USAGE, "everybody on this host", "--ticket-file")
    assert ticket not in result.err
    ctl(hosts.destination, "cancel", "web1").succeeds()
    hosts.destination.list()
    ctl(hosts.destination, "wait", "-q", "web1")


def test_unreachable(hosts: Hosts) -> None:
    """The destination is gone before the source dials: nothing is left, and the reason is told once."""
    ticket = ctl(hosts.destination, "receive", "web1").out
    ctl(hosts.destination, "cancel", "web1").succeeds()
    ctl(hosts.destination, "wait", "web1").fails(CANCELLED)
    ctl(hosts.source, "send", "web1", stdin=ticket).fails(FAILED, "web1", "could not be connected", "127.0.0.1")
    assert listed(hosts.source) == ["finished"]


def test_ctrl_c_while_connecting(hosts: Hosts) -> None:
    """The port accepts, and nobody answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ticket = ctl(hosts.destination, "receive", "web1",
                     f"--endpoint=tcp:127.0.0.1:{silent.getsockname()[1]}").out
        with Running(hosts.source, "send", "web1", stdin=ticket) as run:
            while listed(hosts.source) != ["waiting"]:
                assert run.process.poll() is None
            run.interrupt()
            run.end().fails(CANCELLED, "web1", "Nothing has happened")
    assert listed(hosts.source) == ["finished"]
    ctl(hosts.destination, "cancel", "web1").succeeds()
    ctl(hosts.destination, "wait", "-q", "web1").fails(CANCELLED)


def test_ctrl_c_while_preparing(hosts: Hosts) -> None:
    """The broker is stopped while it is asked: what it makes all the same is taken back."""
    os.kill(hosts.destination.pid, 19)
    with Running(hosts.destination, "receive", "web1") as run:
        # It reads its signals through a descriptor from when it catches them on.
        status = Path(f"/proc/{run.process.pid}/status")
        wait_until(lambda: int(re.findall(r"SigBlk:\s+(\w+)", status.read_text())[0], 16) & 2, "it catches Ctrl-C")
        run.interrupt()
        os.kill(hosts.destination.pid, 18)
        result = run.end().fails(CANCELLED, "web1", "not expected any more")
        assert result.out == ""
    assert hosts.destination.list() == []


def test_vm_is_busy(hosts: Hosts) -> None:
    hosts.prepare("web1")
    ctl(hosts.destination, "receive", "web1").fails(FAILED, "web1")
    ctl(hosts.destination, "cancel", "web1").succeeds()
    ctl(hosts.destination, "wait", "-q", "web1").fails(CANCELLED)


def test_no_bus(workdir: Path) -> None:
    for verb in (["list"], ["send", "web1"], ["metrics"], ["watch", "x"]):
        ctl(None, f"--address=unix:path={workdir}/none", *verb, stdin="vmferry1:A").fails(FAILED, f"{workdir}/none")
    ctl(None, "--user", "list", env={"XDG_RUNTIME_DIR": str(workdir)}).fails(FAILED, "user's bus")
    ctl(None, "list", env={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={workdir}/none"}).fails(FAILED, "system bus")


def test_no_broker(workdir: Path) -> None:
    with Broker(workdir, "a") as broker:
        broker.stop()
        for verb in (["list"], ["status"], ["send", "web1"], ["receive", "web1"]):
            ctl(broker, *verb, stdin="vmferry1:A").fails(FAILED, "vmferryd is not on this bus", "systemctl start")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_not_authorized(workdir: Path) -> None:
    with Broker(workdir, "a", bus_type=OpenBus) as broker:
        id = broker.prepare("web1").id
        for verb in (["cancel", id], ["limit", id, "1M"], ["forget", id], ["wait", id], ["receive", "web2"],
                     ["send", "web2"]):
            run = subprocess.run([PROGRAM, f"--address={broker.bus.address}", *verb], input="vmferry1:AAAA\n",
                                 capture_output=True, text=True, user=65534, group=65534, env=environment(),
                                 timeout=30)
            assert run.returncode == DENIED, (verb, run)
            assert run.stderr.count("vmferryctl: ") == 1 and "root" in run.stderr, run
        run = subprocess.run([PROGRAM, f"--address={broker.bus.address}", "list"], capture_output=True, text=True,
                             user=65534, group=65534, env=environment(), timeout=30)
        assert run.returncode == 0 and "web1" in run.stdout
        ctl(broker, "cancel", "web1").succeeds()


@pytest.mark.parametrize(("arguments", "words"), [
    (["nonsense"], ["'nonsense'", "--help"]),
    (["list", "extra"], ["vmferryctl list"]),
    (["watch", "a", "b"], ["watch [MIGRATION]"]),
    (["limit", "web1"], ["limit MIGRATION RATE"]),
    (["list", "--nonsense"], ["--nonsense"]),
    (["list", "-Q"], ["-Q"]),
    (["list", "--json=xml"], ["xml", "short, pretty, seq or off"]),
    (["list", "--json"], ["--json", "value"]),
    (["list", "--user=me"], ["--user=me", "no value"]),
    (["list", "--qmp=/x"], ["'list'", "--qmp"]),
    (["send", "web1", "--postcopy"], ["--qmp"]),
    (["send", "web1", "--qmp=/x", "--postcopy=soon"], ["soon", "30s", "auto"]),
    (["send", "web1", "--qmp=/x", "--multifd=0"], ["0", "1 to 240"]),
    (["send", "web1", "--qmp=/x", "--bandwidth=fast"], ["fast", "100M"]),
    (["send", "web1", "--qmp=/x", "--downtime-limit=long"], ["long", "300ms"]),
    (["send", "web1", "--endpoint=a", "--endpoint=b"], ["once"]),
    (["receive", "web1", "--security=none"], ["none", "tls or plain"]),
    (["receive", "web1", "--expire=0"], ["0"]),
    (["receive", "web1", "--socket="], ["empty"]),
    (["migrate", "web1", "host2", "--qmp=/x"], ["--qmp=SOCKET", "--dst-qmp=SOCKET"]),
    (["migrate", "web1", "host2", "--qmp=/x", "--dst-qmp=/y", "--ssh", "--endpoint=tcp:1.2.3.4"],
     ["--ssh", "--endpoint"]),
    (["--address=x", "--user", "list"], ["--address"]),
    (["wait", "x", "--timeout=2d"], ["2d"]),
    (["stdio", "nonsense"], ["nonsense"]),
    (["stdio", "peer", "/etc"], ["/etc"]),
])
def test_usage(arguments: list[str], words: list[str]) -> None:
    ctl(None, *arguments).fails(USAGE, *words)


def test_output_that_cannot_be_written(hosts: Hosts) -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([PROGRAM, f"--address={hosts.source.bus.address}", "list"], stdout=full,
                             stderr=subprocess.PIPE, text=True, env=environment(), timeout=30)
    assert run.returncode == FAILED and "No space left" in run.stderr


# ---- On a terminal ----


def test_watch_on_a_terminal(hosts: Hosts, terminal: Terminal) -> None:
    """One line, redrawn; Ctrl-C ends the watching alone; a summary when it is done."""
    tunnel = hosts.connect()
    near, far = tunnel.open_channel()
    line = r"^web1  active  \d+(\.\d)? \w+  [\d.]+ \w+/s$"
    terminal.run([str(PROGRAM), f"--address={hosts.source.bus.address}", "watch", "web1"])
    terminal.wait_for(line)
    terminal.key("C-c")
    text = terminal.wait_for(r"Not watched any more")
    assert not re.search(line, text, re.M), "the line is taken away"
    assert tunnel.outgoing.get("State") == "active"
    terminal.type("clear\n")
    terminal.run([str(PROGRAM), f"--address={hosts.source.bus.address}", "watch", "web1"])
    terminal.wait_for(line)
    near.close()
    far.close()
    text = terminal.wait_for(r"^web1: carried after .*; 1 B sent, 0 B received\.")
    assert not re.search(line, text, re.M)
    for end in tunnel.ends:
        end.wait_finished()


def test_narrow_terminal(hosts: Hosts, terminal: Terminal) -> None:
    tunnel = hosts.connect("a-virtual-machine-with-quite-a-long-name")
    near, far = tunnel.open_channel()
    terminal.run([str(PROGRAM), f"--address={hosts.source.bus.address}", "watch", tunnel.outgoing.id])
    terminal.wait_for(r"^a-virtual-machine-with-quite-a-long-name  active  ")
    terminal.resize(40)
    once = r"\A(?![\s\S]*active[\s\S]*active)[\s\S]*"  # one line only, when it is drawn anew
    terminal.wait_for(once + r"^a-virtual-\S*…  active$")
    terminal.resize(20)
    terminal.wait_for(once + r"^a-v\S*…  active$")
    terminal.resize(80)
    terminal.wait_for(r"^a-virtual-machine-with-quite-a-long-name  active  ")
    near.close()
    far.close()
    terminal.wait_for("carried after")
    for end in tunnel.ends:
        end.wait_finished()


@pytest.mark.parametrize("no_color", [False, True])
def test_colours(hosts: Hosts, terminal: Terminal, no_color: bool) -> None:
    tunnel = hosts.connect()
    near, far = tunnel.open_channel()
    words = [str(PROGRAM), f"--address={hosts.source.bus.address}", "watch", "web1"]
    terminal.run(["env", "NO_COLOR=1", *words] if no_color else words)
    terminal.wait_for(r"^web1  active")

    def lines() -> list[str]:
        return [one for one in terminal.screen(colours=True).splitlines() if one.startswith("web1") and "active" in one]

    (line,) = wait_until(lines, "it is drawn")
    assert ("\x1b[36mactive" in line) is not no_color, line
    near.close()
    far.close()
    terminal.wait_for("carried after")
    for end in tunnel.ends:
        end.wait_finished()


def test_pager(hosts: Hosts, terminal: Terminal) -> None:
    migrations = [hosts.prepare(f"vm{i}") for i in range(30)]
    words = [str(PROGRAM), f"--address={hosts.destination.bus.address}", "list"]
    terminal.run(["env", "PAGER=cat -n | tail -n 3", *words])
    terminal.wait_for(r"^ +\d+\s+30 migrations\.")
    terminal.type("clear\n")
    terminal.run(["env", "PAGER=false", *words, "--no-pager"])
    terminal.wait_for(r"^30 migrations\.")
    for migration in migrations:
        migration.cancel()
    for migration in migrations:
        migration.wait_finished()


def test_watch_on_a_pipe_and_as_json(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    near, far = tunnel.open_channel()
    with Running(hosts.source, "watch", "web1") as plain, Running(hosts.source, "watch", "-j", "web1") as lines, \
            Running(hosts.source, "watch", "-q", "web1") as quiet:
        assert plain.process.stderr and lines.process.stdout
        first = plain.process.stderr.readline()
        assert re.fullmatch(r"web1  active  1 B  .*/s\n", first), first
        assert json.loads(lines.process.stdout.readline())["State"] == "active"
        near.close()
        far.close()
        text = plain.end()
        assert text.status == 0 and text.out == ""
        assert re.fullmatch(r"web1  carried  1 B  0 B/s\nweb1: carried after .*\n", text.err), text
        last = json.loads(lines.end().out.splitlines()[-1])
        assert last["Result"] == "done" and set(last) == set(tunnel.outgoing.get_all())
        assert quiet.end().err == ""
    for end in tunnel.ends:
        end.wait_finished()


def test_watched_migration_is_forgotten(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    with Running(hosts.destination, "watch", "web1") as run:
        assert run.process.stderr and "waiting" in run.process.stderr.readline()
        os.kill(run.process.pid, 19)
        incoming.cancel()
        incoming.wait_finished()
        incoming.call("Forget")
        os.kill(run.process.pid, 18)
        run.end().fails(FAILED, "gone")


@pytest.mark.skipif(not polkit_available(), reason="needs root and polkitd")
def test_password(workdir: Path) -> None:
    """polkit wants one: it is asked for on a terminal, and only there."""
    with SystemBroker(workdir, "a") as broker, Polkit(workdir, broker.bus), Terminal(workdir) as terminal:
        env = {"DBUS_SYSTEM_BUS_ADDRESS": broker.bus.address}
        for verb in (["receive", "auth1"], ["receive", "--no-ask-password", "auth1"]):
            run = subprocess.run([PROGRAM, *verb], capture_output=True, text=True, user=65534, group=65534,
                                 env=environment(env), timeout=30, stdin=subprocess.DEVNULL)
            assert run.returncode == DENIED and run.stderr.count("vmferryctl: ") == 1, run
        terminal.type("chown 65534 $(tty); clear\n")  # as the terminal of somebody who has logged in
        terminal.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env",
                      *(f"{key}={value}" for key, value in env.items()), str(PROGRAM), "receive", "auth1"])
        terminal.wait_for(r"Password")
        terminal.key("C-c")
        terminal.wait_for(r"polkit says no")
        assert broker.list() == []
