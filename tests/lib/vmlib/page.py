# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry's page for Cockpit, and what somebody does who looks at it."""

from __future__ import annotations

from typing import Any

from .broker import build_dir, wait_until
from .browser import Browser

FRAME = "iframe[name='cockpit1:localhost/vmferry']"


class Page:
    """A card is a migration that runs, a row one that is finished."""

    def __init__(self, browser: Browser, url: str, admin: bool = True) -> None:
        self.browser = browser
        browser.resize(1280, 800)
        browser.prefer("light")
        browser.open(f"{url}/vmferry")
        browser.wait(FRAME)
        browser.frame(FRAME)
        browser.wait("nav:not([hidden])" if admin else "#limited:not([hidden])")  # it is known what the user may do

    def fill_in(self, button: int, **fields: str | bool) -> None:
        """Opens the dialog behind one of the buttons at the top."""
        self.browser.click(f"nav button:nth-child({button})")
        self.browser.wait("dialog[open]")
        if "vm" in fields:
            self.browser.wait("dialog datalist[data-ready]")
        for name, said in fields.items():
            selector = f"#field-{name.replace('_', '-')}"
            if isinstance(said, bool):
                self.browser.click(selector)
            else:
                self.browser.fill(selector, said)

    def submit(self) -> None:
        self.browser.click("dialog button[type=submit]")
        wait_until(lambda: not self.browser.js("return document.querySelector('dialog button[type=submit]')") or
                   self.refuse(), "the dialog is closed", 60)

    def refuse(self) -> bool:
        said = self.browser.text("dialog [role=alert]:not([hidden])")
        assert not said, said
        return False

    def card(self, **data: str) -> dict[str, Any]:
        """Of the card with these attributes: its state, phase, bar and text; {} where there is none."""
        selector = "article" + "".join(f"[data-{name}='{text}']" for name, text in data.items())
        found: dict[str, Any] = self.browser.js(
            "const card = document.querySelector(arguments[0]); return card === null ? {} : { text: card.innerText, "
            "...card.dataset, bar: card.querySelector('progress').value, cancel: !!card.querySelector('.cancel:enabled')?.checkVisibility() }", selector)
        return found

    def rows(self) -> list[tuple[str, str]]:
        """VM and outcome of each."""
        return [tuple(row) for row in self.browser.js(
            "return [...document.querySelectorAll('#finished tr')].map(row => [row.dataset.vm, row.dataset.outcome])")]

    def photograph(self, name: str) -> None:
        self.browser.screenshot(build_dir() / "screenshots" / f"{name}.png")
