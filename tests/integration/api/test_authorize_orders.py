# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several users whose calls wait for polkit at once: its answers come in every order.

$VMFERRY_LONG tries all 120 orders, else some of them.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from jeepney import new_error, new_method_return

from vmlib import polkit as harness
from vmlib.broker import BROKER, PATH, Migration, wait_until
from vmlib.calls import DENIED, answer, gone, post
from vmlib.polkit import Belated, SystemBroker
from vmlib.users import DAEMON, NOBODY, User

PLAIN: dict[str, tuple[str, Any]] = {"security": ("s", "plain")}
# By the VM that a call is about: whose call it is, and what polkit says of it.
CALLS = {"granted": (NOBODY, "yes"), "granted too": (DAEMON, "yes"), "denied": (DAEMON, "no"),
         "failed": (NOBODY, "error"), "left": (DAEMON, "yes")}
STEP = 1 if os.environ.get("VMFERRY_LONG") else 17

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root and polkitd")


def say(polkit: Belated, question: Any, word: str) -> None:
    if word == "error":
        polkit.connection.send(new_error(question, "org.freedesktop.PolicyKit1.Error.Failed", "s", ("no",)))
    else:
        polkit.connection.send(new_method_return(question, "(bba{ss})", ((word == "yes", False, {}),)))


def one_order(broker: SystemBroker, polkit: Belated, order: tuple[str, ...]) -> None:
    """Who is granted has a migration and owns it, and there is no other one. Who has left has none, whatever is said."""
    with ExitStack() as stack:
        users = {vm: stack.enter_context(User(broker, uid)) for vm, (uid, _) in CALLS.items()}
        serials = {vm: post(user.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", vm, PLAIN)
                   for vm, user in users.items()}
        questions = {}
        for _ in CALLS:
            question = polkit.call("CheckAuthorization")
            questions[question.body[2]["vm"]] = question
        assert set(questions) == set(CALLS)
        for vm in order:
            if vm == "left":
                users[vm].close()
                gone(broker.prepare("root's", PLAIN))  # the broker has heard of it by now
            say(polkit, questions[vm], CALLS[vm][1])
        for vm in order:
            if vm != "left":
                name, text = answer(users[vm].client, serials[vm])
                assert name == {"yes": "", "no": DENIED, "error": DENIED}[CALLS[vm][1]], (vm, name, text)
        rows = broker.list()
        assert {row[1]: row[4] for row in rows} == {"granted": NOBODY, "granted too": DAEMON}, (order, rows)
        gone(*(Migration(broker, row[5]) for row in rows))


def test_answers_in_any_order(workdir: Path) -> None:
    with SystemBroker(workdir, "a") as broker:
        with closing(Belated(broker)) as polkit:
            for order in list(permutations(CALLS))[::STEP]:
                one_order(broker, polkit, order)
        assert not broker.list()
        wait_until(lambda: not broker.helpers(), "no helper is left", 10)
