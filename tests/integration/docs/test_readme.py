# SPDX-License-Identifier: LGPL-2.1-or-later
"""README.md: what it points to is there, and its picture is of the demonstration as it is."""

from __future__ import annotations

import html
import re

from vmlib.broker import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_links() -> None:
    """Of other documents, too: each file and folder that is named is there."""
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    named += re.findall(r"`((?:docs|tests|tools|broker|helper|common|ctl|giver)/[\w./-]+)`", TEXT)
    assert len(named) > 20
    for name in named:
        assert (ROOT / name.removeprefix("./")).exists(), f"README.md names {name}, which is not there"


def test_length() -> None:
    """A stranger reads it to its end."""
    assert len(TEXT.splitlines()) <= 250


def test_picture() -> None:
    """docs/demo.svg shows each step of tools/demo.py: else run tools/record-demo again."""
    picture = (ROOT / "docs" / "demo.svg").read_text()
    shown = [html.unescape(line) for line in re.findall(r'font-weight="bold"[^>]*>\d+\. (.*?)</tspan>', picture)]
    steps = re.findall(r'screen\.step\("(.*?)"\)', (ROOT / "tools" / "demo.py").read_text())
    assert shown == [step for step in steps if step != "The brokers' logs"]
    assert "It worked." in picture
