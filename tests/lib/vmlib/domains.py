# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of libvirt on the two booted hosts: fixtures, and what tests ask of both."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest

from .broker import wait_until
from .libvirt import Domain, Libvirt, available
from .nspawn import Host, TwoHosts

__all__ = ["both", "libvirt", "web1", "web2"]

needs_libvirt = pytest.mark.skipif(bool(available()), reason=available() or "-")


@pytest.fixture(scope="module")
def both(booted: TwoHosts) -> Iterator[Libvirt]:
    with Libvirt(booted) as libvirt:
        yield libvirt


@pytest.fixture
def libvirt(hosts: TwoHosts, both: Libvirt) -> Iterator[Libvirt]:
    both.order = (hosts.a, hosts.b)
    yield both
    both.clean()


@pytest.fixture
def web1(libvirt: Libvirt) -> Domain:
    domain = libvirt.domain("web1")
    domain.start()
    return domain


@pytest.fixture
def web2(libvirt: Libvirt) -> Domain:
    """With a raw and a qcow2 disk."""
    domain = libvirt.domain("web2", disks=True)
    domain.start()
    return domain


def ctl(host: Host, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return host.run("vmferryctl", *argv, check=check, timeout=120)


def assert_moved(domain: Domain, source: Host, destination: Host, persistent: bool = True) -> None:
    """It runs at the destination alone, defined there where it was here, and was never harmed."""
    wait_until(lambda: domain.state(destination).startswith("running"), "it runs at the destination")
    wait_until(lambda: domain.state(source) in ("", "shut off (migrated)"), "the source has let go of it")
    assert domain.is_persistent(destination) == persistent
    assert domain.is_persistent(source) != persistent
    domain.assert_unharmed()


def assert_stayed(domain: Domain, source: Host, destination: Host) -> None:
    assert domain.state(source).startswith("running"), domain.state(source)
    wait_until(lambda: domain.state(destination) == "", "the destination has let go of it")
    assert domain.is_persistent(source)
    domain.assert_unharmed()


def record(host: Host, vm: str) -> dict[str, Any]:
    """All that the broker there knows of its migration."""
    return cast(dict[str, Any], json.loads(ctl(host, "show", vm, "--json=short").stdout))


def wait_processed(domain: Domain, mib: int, host: Host) -> None:
    """Until so much of its memory has gone."""
    def processed() -> bool:
        text = host.run("virsh", "domjobinfo", domain.name, check=False).stdout
        found = re.search(r"Memory processed: +([\d.]+) (\w+)", text)
        return bool(found) and float(found[1]) * {"B": 0, "KiB": 0, "MiB": 1, "GiB": 1024}[found[2]] >= mib

    wait_until(processed, "memory flows", 60)
