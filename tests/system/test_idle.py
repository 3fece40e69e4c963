# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker with nothing to do goes by itself, and no call is lost by that. VMFERRY_LONG=1 makes it go more often."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from jeepney import DBusAddress, MatchRule, new_method_call
from jeepney.bus_messages import message_bus
from vmlib.broker import BROKER, MIGRATION, NAME, PATH, Client, Migration, variants, wait_until
from vmlib.calls import answer, gone, post
from vmlib.nspawn import DROPIN, Host, TwoHosts

LONG = bool(os.environ.get("VMFERRY_LONG"))
ENDS = 100 if LONG else 15  # of each host's broker
CONF = "/etc/vmferry/vmferryd.conf.d/test.conf"
IDLE = "[Broker]\nIdleTimeoutSec=1\n"
CPU = min(os.sched_getaffinity(0))
ANSWERED = 60  # seconds; a call that gets lost is answered after 25, by an error, or never


def test_idle(hosts: TwoHosts) -> None:
    """With nothing to do it goes, and its spare helper with it; a call brings it back."""
    for host in hosts:
        with host.configured(CONF, IDLE):
            for _ in range(2):
                assert host.get(PATH, BROKER, "ActiveMigrations") == 0
                wait_until(lambda: host.show("vmferryd", "ActiveState") == "inactive", "it has ended", 30)
                assert host.show("vmferryd", "Result") == "success"
                wait_until(lambda: not host.helpers(), "its helper has gone")
            assert host.show("vmferryd", "NRestarts") == "0"


def test_not_idle(hosts: TwoHosts) -> None:
    """It stays for a migration that waits, and for one that is finished and not forgotten."""
    with hosts.b.configured(CONF, IDLE):
        migration = hosts.b.broker.prepare()
        pid = hosts.b.broker_pid
        time.sleep(2.5)  # more than two of its time-outs
        migration.cancel()
        migration.wait_finished()
        time.sleep(2.5)
        assert hosts.b.broker_pid == pid
        migration.call("Forget")
        wait_until(lambda: not hosts.b.broker_pid, "it has ended", 30)


# Calls around that moment.

OWNER = MatchRule(type="signal", sender=message_bus.bus_name, interface=message_bus.interface,
                  member="NameOwnerChanged", path=message_bus.object_path)
OWNER.add_arg_condition(0, NAME)
SYSTEMD = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
UNIT = MatchRule(type="signal", interface="org.freedesktop.DBus.Properties", member="PropertiesChanged",
                 path="/org/freedesktop/systemd1/unit/vmferryd_2eservice")


class Watcher(Client):
    """A client of a host's broker that hears at once how it goes."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.broker.bus)
        for rule in (OWNER, UNIT):
            self.connection.send_and_get_reply(message_bus.AddMatch(rule))
        self.connection.send_and_get_reply(new_method_call(SYSTEMD, "Subscribe"))

    def wait_for_end(self, sign: MatchRule) -> None:
        """Until the name is nobody's any more; or, the other sign, until systemd knows that the broker stops."""
        with self.connection.filter(sign) as seen:
            while True:
                body = self.connection.recv_until_filtered(seen, timeout=ANSWERED).body
                if body[2] == "" if sign is OWNER else body[1].get("ActiveState") == ("s", "deactivating"):
                    return


@contextmanager
def slow(host: Host) -> Iterator[None]:
    """Its broker has one processor, and that when nobody else wants it: see busy()."""
    settings = f"[Service]\nCPUSchedulingPolicy=idle\nCPUAffinity={CPU}\n"
    with host.configured(CONF, IDLE), host.configured(DROPIN, settings):
        yield


@contextmanager
def busy() -> Iterator[None]:
    """Somebody else wants it: each step of the broker's end takes milliseconds, in which others get ahead of it.

    Not for long, or the next broker, which gets a thousandth of a processor at most, would take its seconds to start.
    """
    spin = ["timeout", "1", "taskset", "--cpu-list", str(CPU), "sh", "-c", "while :; do :; done"]
    with subprocess.Popen(spin) as process:
        try:
            yield
        finally:
            process.terminate()


def call_as_it_ends(watcher: Watcher, n: int) -> None:
    """A call when it has gone, while it goes, or just about then. What it has made then is there for the next one."""
    when, late = n % 3, random.choice((0, 0, random.uniform(0, 0.003)))
    assert watcher.get(PATH, BROKER, "ActiveMigrations") == 0
    time.sleep(0.97)
    with busy():
        if when == 2:
            time.sleep(random.uniform(0, 0.1))
        else:
            watcher.wait_for_end((OWNER, UNIT)[when])
            time.sleep(late)
        call_now(watcher, n)


def call_now(watcher: Watcher, n: int) -> None:
    if n % 2:
        assert watcher.call(PATH, BROKER, "ListMigrations", timeout=ANSWERED) == ([],)
    else:
        path, _ = watcher.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", f"vm{n}", variants(None), timeout=ANSWERED)
        watcher.call(path, MIGRATION, "Cancel", timeout=ANSWERED)
        wait_until(lambda: watcher.get(path, MIGRATION, "State") == "finished", f"{path} is finished", ANSWERED)
        watcher.call(path, MIGRATION, "Forget", timeout=ANSWERED)


@pytest.mark.load_sensitive(reason="each call is answered within a minute")
def test_calls_while_it_goes(hosts: TwoHosts) -> None:
    """Each is answered, by the broker that goes or by the next one, on either bus."""
    def calls(host: Host) -> None:
        with slow(host):
            watcher = Watcher(host)
            try:
                for n in range(ENDS):
                    call_as_it_ends(watcher, n)
            finally:
                watcher.close()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(calls, host) for host in hosts]:
            done.result()


@pytest.mark.load_sensitive(reason="it is looked at within the second after which it goes")
def test_migration_while_it_goes(hosts: TwoHosts) -> None:
    """One that is made between the broker's last word to systemd and the end of its name: systemd starts the next
    broker by itself, and that one has it."""
    for host in hosts:
        with host.configured(CONF, IDLE):
            assert host.broker.get("ActiveMigrations") == 0
            pid, begins = host.broker_pid, host.journal_cursor()
            os.kill(host.leader, signal.SIGSTOP)  # systemd hears it later
            try:
                wait_until(lambda: [entry for entry in host.journal_since(begins, _PID=str(pid))
                                    if "Nothing to do" in entry["MESSAGE"]], "it is going", 30)
                serial = post(host.broker.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "web1", variants(None))
            finally:
                os.kill(host.leader, signal.SIGCONT)
            assert answer(host.broker.client, serial) == ("", "")
            wait_until(lambda: host.broker_pid not in (0, pid), "the next one is there", 30)
            (entry,) = host.broker.list()
            assert (entry[1], entry[3]) == ("web1", "waiting")
            assert host.show("vmferryd", "NRestarts") == "1"
            gone(Migration(host.broker, entry[5]))  # type: ignore[arg-type]
