# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads docs and sources, for tests that hold the one against the other."""

from __future__ import annotations

import re

from .broker import ROOT

DOCS = ROOT / "docs"


def flat(text: str) -> str:
    """With single blanks, so that line breaks do not matter."""
    return re.sub(r"\s+", " ", text)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def source(name: str) -> str:
    return (ROOT / name).read_text()


def sources(directory: str) -> str:
    """All of a directory: where in it something stands is of no account here."""
    return "\n".join(path.read_text() for path in sorted((ROOT / directory).rglob("*.c")))


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its kind or of a higher one."""
    end = r"(?=^[^\n]+\n(?:={3,}|\1{3,})\n|\Z)"
    found = re.search(rf"^{re.escape(title)}\n([=-])\1{{2,}}\n(.*?){end}", text, re.M | re.S)
    assert found, f"there is no section '{title}'"
    return found[2]


def terms(text: str) -> dict[str, str]:
    """Of a definition list whose terms are ``literals``: what is in the first line, and the definition."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^(``[^\n]*)\n((?:  [^\n]*\n|\n)+)", text, re.M):
        assert match[1] not in found, f"{match[1]} stands there twice"
        found[match[1]] = flat(match[2]).strip()
    return found


def define(name: str, *headers: str) -> int:
    """A number that a header #defines; macros in it are followed."""
    for header in headers:
        found = re.search(rf"^#define {name}\s+(.*?)(?:/\*.*)?$", source(header).replace("\\\n", " "), re.M)
        if found:
            text = re.sub(r"\(\(\w+\)(\d+)", r"(\1", found[1]).replace("(uint64_t)", "").replace("(size_t)", "")
            text = re.sub(r"\b(\d+)(?:ULL|UL|U)\b", r"\1", text)
            text = re.sub(r"\b[A-Z][A-Z_]+\b", lambda match: str(define(match[0], *headers)), text)
            assert re.fullmatch(r"[\d\s()*+]+", text), f"{name} is '{text}'"
            return int(eval(text))  # digits and operators only
    raise AssertionError(f"{name} is in none of {headers}")


def error_names() -> list[str]:
    """In the order of their numbers, from 1 on."""
    numbers = dict(re.findall(r"^ +VF_ERROR_(\w+) = (\d+),", source("common/error.h"), re.M))
    names = dict(re.findall(r'\[VF_ERROR_(\w+)\] = "(\w+)"', source("common/error.c")))
    found = sorted((int(numbers[key]), name) for key, name in names.items())
    assert [number for number, _ in found] == list(range(1, len(numbers)))
    return [name for _, name in found]
