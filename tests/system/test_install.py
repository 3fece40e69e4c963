# SPDX-License-Identifier: LGPL-2.1-or-later
"""An installation that is broken in one place: `vmferryctl check` names the place, at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vmlib.nspawn import Host, TwoHosts

UNIT = "/lib/systemd/system/vmferryd.service"
PROGRAM = "/usr/libexec/vmferry/vmferryd"
ACTIVATION = "/usr/share/dbus-1/system-services/org.vmferry.Broker1.service"
LIMIT = 2.0  # seconds; a call that D-Bus has start a service that cannot start waits 25 s


@contextmanager
def moved(host: Host, path: str, then: Callable[[], object]) -> Iterator[None]:
    host.run("mv", path, f"{path}.away")
    try:
        then()
        yield
    finally:
        host.run("mv", f"{path}.away", path)
        then()


@contextmanager
def no_user(host: Host) -> Iterator[None]:
    host.run("userdel", "vmferry")
    try:
        yield
    finally:
        host.run("systemd-sysusers")
        host.systemctl("reload", "dbus")


@contextmanager
def no_policy(host: Host) -> Iterator[None]:
    """The bus has read the policy before there was the user that it names, as on a host where vmferry's files were copied."""
    host.run("userdel", "vmferry")
    host.systemctl("reload", "dbus")
    host.run("systemd-sysusers")
    try:
        yield
    finally:
        host.systemctl("reload", "dbus")


@contextmanager
def no_unit(host: Host) -> Iterator[None]:
    with moved(host, UNIT, lambda: host.systemctl("daemon-reload")):
        yield


@contextmanager
def masked(host: Host) -> Iterator[None]:
    host.systemctl("mask", "--runtime", "vmferryd.service")
    try:
        yield
    finally:
        host.systemctl("unmask", "--runtime", "vmferryd.service")


@contextmanager
def no_activation(host: Host) -> Iterator[None]:
    with moved(host, ACTIVATION, lambda: host.systemctl("reload", "dbus")):
        yield


@contextmanager
def no_program(host: Host) -> Iterator[None]:
    with moved(host, PROGRAM, lambda: None):
        yield


@contextmanager
def no_library(host: Host) -> Iterator[None]:
    """As the loader ends a program of which a library is missing."""
    with moved(host, PROGRAM, lambda: None):
        host.run("tee", PROGRAM, stdin="#!/bin/sh\nexit 127\n")
        host.run("chmod", "755", PROGRAM)
        yield


@contextmanager
def wrong_option(host: Host) -> Iterator[None]:
    dropin = "/run/systemd/system/vmferryd.service.d/wrong.conf"
    host.run("mkdir", "-p", dropin.rpartition("/")[0])
    host.run("tee", dropin, stdin=f"[Service]\nExecStart=\nExecStart={PROGRAM} --wrong\n")
    host.systemctl("daemon-reload")
    try:
        yield
    finally:
        host.run("rm", dropin)
        host.systemctl("daemon-reload")


BROKEN = [
    (no_user, "There is no user 'vmferry'.", "systemd-sysusers && systemctl reload dbus"),
    # dbus-daemon has read the file that starts the broker, dbus-broker has not, for its user is named there.
    (no_policy, "(vmferryd cannot start: Cannot have the name org.vmferry.Broker1|The bus has not read vmferry's files)",
     "as root there: systemctl reload dbus$"),
    (no_unit, "vmferryd.service is not loaded: not-found", "systemctl daemon-reload"),
    (masked, "vmferryd.service is not loaded: masked", "systemctl unmask vmferryd.service"),
    (no_activation, "The bus has not read vmferry's files.", "systemctl reload dbus"),
    (no_program, "The program vmferryd cannot be run.", "Install vmferry again"),
    (no_library, "vmferryd lacks a library.", "Install vmferry again"),
    (wrong_option, "vmferryd's configuration or command line is wrong.", "journalctl -u vmferryd.service"),
]


@pytest.mark.load_sensitive(reason="check says so within 2 s")
@pytest.mark.parametrize("name", ["a", "b"])  # dbus-daemon, dbus-broker
@pytest.mark.parametrize("broken, text, remedy", BROKEN, ids=[broken.__name__ for broken, _, _ in BROKEN])
def test_broken(hosts: TwoHosts, name: str, broken: Callable[[Host], Iterator[None]], text: str, remedy: str) -> None:
    host = hosts.a if name == "a" else hosts.b
    host.systemctl("stop", "vmferryd.service", "vmferry-helper.socket", "vmferry-giver.socket")
    try:
        with broken(host):  # type: ignore[attr-defined]
            began = time.monotonic()
            done = host.run("vmferryctl", "check", check=False)
            took = time.monotonic() - began
    finally:
        host.systemctl("stop", "vmferryd.service")
        host.systemctl("reset-failed")
    assert done.returncode == 1 and "FAIL  broker" not in done.stdout, done
    assert re.search(rf"^FAIL  install +{text}", done.stdout, re.M), done.stdout
    assert re.search(rf"→ .*{remedy}", done.stdout, re.M), done.stdout
    assert took < LIMIT
    done = host.run("vmferryctl", "check")
    assert "FAIL" not in done.stdout, done.stdout


def test_an_old_failure_counts_no_more(hosts: TwoHosts) -> None:
    """What has failed once and was mended is not said to fail before it has been tried."""
    host = hosts.a
    host.systemctl("stop", "vmferryd.service")
    with no_program(host):
        assert host.run("vmferryctl", "check", check=False).returncode == 1
        assert host.failed_units() == ["vmferryd.service"]
    assert "FAIL" not in host.run("vmferryctl", "check").stdout
