# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page for Cockpit and domains of libvirt."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmlib.broker import wait_until
from vmlib.browser import Browser
from vmlib.cockpit import Cockpit, installed
from vmlib.libvirt import Libvirt, available
from vmlib.nspawn import TwoHosts
from vmlib.page import Page

pytestmark = pytest.mark.skipif(bool(available()), reason=available() or "-")


def test_page_moves_a_domain(hosts: TwoHosts, tmp_path: Path) -> None:
    """It finds the domain; one says to which host and how, and sees it go there."""
    installed(hosts.a)
    with Libvirt(hosts) as libvirt:
        domain = libvirt.domain("web1")
        domain.start()
        try:
            with libvirt.postcopy(), Cockpit(hosts.a) as cockpit, Browser(tmp_path) as browser:
                move(Page(browser, cockpit.url), hosts)
            assert domain.state(hosts.b).startswith("running")
            domain.assert_unharmed()
        finally:
            libvirt.clean()


def move(page: Page, hosts: TwoHosts) -> None:
    page.fill_in(1, vm="web1", host="host-b", bandwidth="16", postcopy=True)
    found = page.browser.js("return [...document.querySelectorAll('#vms option')].map(o => [o.value, o.text])")
    assert found == [["web1", "libvirt"]]
    page.photograph("migrate-libvirt")
    page.submit()
    (unit,) = wait_until(lambda: hosts.a.units("vmferry-migrate-*"), "it moves in the background")
    assert "--postcopy=auto --bandwidth=16M -- web1 host-b" in hosts.a.show(unit, "ExecStart")
    wait_until(lambda: page.rows() == [("web1", "moved")], "it is there", 60)
