# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page for Cockpit: a real browser, cockpit-ws and cockpit-bridge on one of two booted hosts, the package installed.

What it looks like is put into the build directory, in screenshots/: to be looked at.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmlib import guest
from vmlib.broker import BROKER, MIGRATION, PATH, wait_until
from vmlib.browser import ENTER, ESCAPE, TAB, Browser
from vmlib.cockpit import Cockpit, installed
from vmlib.migration import Pair
from vmlib.nspawn import TwoHosts
from vmlib.page import Page
from vmlib.qemu import Qemu
from vmlib.sshd import Sshd

JOURNAL = "iframe[name='cockpit1:localhost/system/logs']"
EVIL = "<img src=x onerror=\"document.title='evil'\">--force"
MIB = 64


@pytest.fixture
def page(needs_qemu: None, hosts: TwoHosts, sshd: Sshd, tmp_path: Path) -> Iterator[Page]:
    installed(hosts.a)
    with Cockpit(hosts.a, sshd.env()) as cockpit, Browser(tmp_path) as browser:
        yield Page(browser, cockpit.url)


@pytest.fixture
def workdir(hosts: TwoHosts) -> Path:
    return Path(tempfile.mkdtemp(dir=hosts.shared))


@pytest.fixture
def sshd(hosts: TwoHosts, workdir: Path) -> Iterator[Sshd]:
    with Sshd(workdir, tuple(hosts.b.enter_light), hosts.b.address, "hostb", path="/usr/bin:/bin") as sshd:
        yield sshd


@pytest.fixture
def pair(hosts: TwoHosts, workdir: Path) -> Iterator[Pair]:
    """A guest at host a and a QEMU there that waits for it, both where the page finds them."""
    with Pair(workdir, MIB, prefixes=(hosts.a.enter_light, hosts.a.enter_light)) as pair:
        hosts.a.run("mkdir", "/run/qemu")
        hosts.a.run("ln", "-s", str(pair.source.qmp_path), "/run/qemu/web1.qmp")
        hosts.a.run("ln", "-s", str(pair.destination.qmp_path), "/run/qemu/web2.qmp")
        try:
            pair.source.wait_sweeps(1)
            yield pair
        finally:
            hosts.a.run("rm", "-r", "/run/qemu")


def test_page(page: Page, hosts: TwoHosts, pair: Pair, workdir: Path) -> None:
    browser = page.browser
    with ExitStack() as stack:
        third = stack.enter_context(Qemu(workdir, guest.build_guest(workdir, MIB), guest.vm_mib(MIB), "third", incoming="defer",
                                         prefix=hosts.b.enter_light))
        receive_and_send(page, pair)
        migrate(page, str(third.qmp_path), pair)
        interrupt(page, hosts)
        limit_and_cancel(page, hosts)
    assert pair.destination.status() == "running"
    pair.assert_unharmed()
    others(page, hosts)
    check_host(page)
    assert browser.complaints() == []
    read_journal(page)


def receive_and_send(page: Page, pair: Pair) -> None:
    """The ticket of one dialog goes into the other one, and the VM from one QEMU of this host to another."""
    browser = page.browser
    page.fill_in(3, vm="web2")
    assert browser.js("return document.querySelector('#field-qmp').value") == "/run/qemu/web2.qmp"
    page.submit()
    ticket = wait_until(lambda: browser.js("const text = document.querySelector('textarea.ticket'); return text && text.value"), "a ticket")
    wait_until(lambda: re.search(r"\b1[0-4]:\d\d", browser.text(".countdown")), "the countdown runs")
    page.photograph("ticket")
    browser.click("dialog .primary")
    wait_until(lambda: browser.text("dialog .primary") == "Copied", "it is copied")
    browser.press(ESCAPE)
    wait_until(lambda: page.card(vm="web2", role="incoming").get("state") == "waiting", "it is expected")
    page.fill_in(2, vm="web1")
    browser.click("#field-ticket")
    browser.paste()
    assert browser.js("return document.querySelector('#field-ticket').value") == ticket
    page.submit()
    wait_until(lambda: sorted(page.rows()) == [("web1", "moved"), ("web2", "moved")], "both ends know that it has moved")
    assert not page.card()
    assert pair.destination.status() == "running"
    for text in browser.js("return [...document.querySelectorAll('#finished tr')].map(row => row.innerText)"):
        assert "ms" in text, "the downtime"


def migrate(page: Page, there: str, pair: Pair) -> None:
    """To the other host, so slowly that it never ends: the bar moves."""
    pair.destination.set_parameters({"downtime-limit": 1})
    page.fill_in(1, vm="web2", host="hostb", dst_qmp=there, bandwidth="16")
    page.photograph("migrate")
    page.submit()
    seen = []
    while len(seen) < 3:
        card = wait_until(lambda: (card := page.card(vm="web2")).get("phase") == "pre-copy" and
                          0 < card["bar"] < 1 and card["bar"] not in seen and card, "the bar moves", 60)
        seen.append(card["bar"])
    assert seen[0] < seen[-1] or "Pass\n1" not in card["text"], seen
    assert "Copying memory" in card["text"] and "MiB left" in card["text"] and "→ 10.78.0.2" in card["text"], card
    page.photograph("running")
    page.browser.click("article summary")
    wait_until(lambda: "migrate" in page.browser.text(".channels") and
               "vmferry-helper@" in page.browser.text(".journal"), "the details")
    page.photograph("details")


def interrupt(page: Page, hosts: TwoHosts) -> None:
    hosts.cut()
    try:
        card = wait_until(lambda: (card := page.card(vm="web2")).get("state") == "interrupted" and card, "it is interrupted", 60)
        assert "given up in 0:" in card["text"] and "10.78.0.2" in card["text"], card
        page.browser.prefer("dark")
        page.photograph("interrupted-dark")
    finally:
        hosts.mend()
    card = wait_until(lambda: (card := page.card(vm="web2")).get("state") == "active" and "Reconnects\n1" in card["text"] and card,
                      "it goes on", 60)
    assert "given up" not in card["text"]
    page.browser.resize(400, 900)
    wait_until(lambda: page.browser.js("return document.documentElement.scrollWidth <= window.innerWidth"), "nothing is beside it")
    page.photograph("narrow-dark")
    page.browser.resize(1280, 800)
    page.browser.prefer("light")


def limit_and_cancel(page: Page, hosts: TwoHosts) -> None:
    browser = page.browser
    path = next(path for _, _, _, state, _, path in hosts.a.broker.list() if state == "active")
    browser.click("article .limit")
    browser.fill("#field-rate", "4")
    page.submit()
    wait_until(lambda: "4 MiB/s" in page.card(vm="web2")["text"], "the limit is shown")
    assert hosts.a.get(path, MIGRATION, "BandwidthLimit") == 4 << 20
    browser.click("article .cancel")
    page.photograph("cancel")
    page.submit()
    wait_until(lambda: ("web2", "not-moved") in page.rows(), "the outcome is shown", 60)
    assert not page.card()
    browser.resize(400, 900)
    page.photograph("narrow")
    browser.resize(1280, 800)
    page.photograph("finished")


def others(page: Page, hosts: TwoHosts) -> None:
    """What somebody else has named stays a text; what could lose a VM is not offered."""
    tunnel = hosts.connect(EVIL)
    card = wait_until(lambda: page.card(role="outgoing"), "another one")
    assert EVIL in card["text"] and card["cancel"], card
    tunnel.outgoing.call("ReportProgress", "a{sv}", {"phase": ("s", "post-copy"), "memory-total": ("t", 1 << 30),
                                                     "memory-remaining": ("t", 1 << 28)})
    card = wait_until(lambda: (card := page.card(role="outgoing"))["phase"] == "post-copy" and card, "its phase")
    assert not card["cancel"] and "neither host has the whole VM" in card["text"] and card["bar"] == 0.75, card
    tunnel.outgoing.call("Cancel")
    wait_until(lambda: (EVIL, "cancelled") in page.rows(), "its end")
    assert page.browser.js("return document.images.length") == 0
    for migration in (tunnel.outgoing, tunnel.incoming):
        migration.wait_finished()
    tunnel.outgoing.call("Forget")
    wait_until(lambda: (EVIL, "cancelled") not in page.rows(), "it is gone")


def check_host(page: Page) -> None:
    """By keyboard alone."""
    browser = page.browser
    browser.js("document.querySelector('nav button:nth-child(3)').focus()")
    browser.press(TAB + ENTER)
    browser.wait("dialog[open]")
    browser.press("hostb" + ENTER)
    wait_until(lambda: page.refuse() or "tunnel" in browser.text(".findings"), "what was found", 60)
    page.photograph("check")
    browser.press(ESCAPE)
    wait_until(lambda: not browser.js("return document.querySelector('dialog')"), "the dialog is closed")
    assert browser.js("return document.activeElement.textContent") == "Check a host"


def read_journal(page: Page) -> None:
    """Of one that is over: its details, and from there to what the journal has of it."""
    browser = page.browser
    browser.click("#finished tr[data-vm=web2][data-outcome=not-moved] button")
    wait_until(lambda: "migrate" in browser.text("dialog .channels") and "vmferry-helper@" in browser.text("dialog .journal"),
               "the details")
    page.photograph("finished-details")
    browser.click("dialog dd:last-child .journal")
    browser.top()
    browser.wait(JOURNAL)
    browser.frame(JOURNAL)
    wait_until(lambda: "The VM was not moved" in browser.text("#journal-logs"), "the journal", 60)


@pytest.fixture
def alices_page(hosts: TwoHosts, tmp_path: Path) -> Iterator[Page]:
    installed(hosts.a)
    with Cockpit(hosts.a, user="alice") as cockpit, Browser(tmp_path) as browser:
        yield Page(browser, cockpit.url, admin=False)


def test_without_administrative_access(alices_page: Page, hosts: TwoHosts) -> None:
    """She sees all, is told why she can do no more, and finds no button that would be refused. What is her own she may end."""
    page, browser = alices_page, alices_page.browser
    hosts.a.run("usermod", "-aG", "vmferry", "alice")
    try:
        path = hosts.a.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", "hers", "0", user="alice").split('"')[1]
        tunnel = hosts.connect("roots")
        wait_until(lambda: page.card(vm="hers").get("cancel"), "her own")
        others = wait_until(lambda: page.card(vm="roots", state="connected"), "another one")
        assert not others["cancel"]
        assert "Without administrative access" in browser.text("#limited")
        page.photograph("limited")
        browser.click("article[data-vm=hers] .cancel")
        page.submit()
        wait_until(lambda: ("hers", "cancelled") in page.rows(), "hers is cancelled")
        tunnel.outgoing.cancel()
        for end in tunnel.ends:
            end.wait_finished()
        wait_until(lambda: ("roots", "cancelled") in page.rows(), "the other one is over")
        shown = "return [...document.querySelectorAll('button')].filter(b => b.checkVisibility()).map(b => b.textContent).sort()"
        assert browser.js(shown) == ["Details", "Details", "Remove"]
        browser.js("[...document.querySelectorAll('button')].find(b => b.textContent === 'Remove').click()")
        wait_until(lambda: [vm for vm, _ in page.rows()] == ["roots"], "hers is removed")
        assert browser.complaints() == []
    finally:
        hosts.a.call(path, MIGRATION, "Cancel", check=False)
        hosts.a.run("gpasswd", "-d", "alice", "vmferry")
