# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what on the system bus: a real polkitd says so, and the broker neither waits for it nor trusts its luck."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from jeepney import HeaderFields, MessageType, new_method_return

from vmlib import polkit as harness
from vmlib.broker import BROKER, MIGRATION, PATH, Migration, wait_until
from vmlib.calls import DENIED, answer, gone, managing, post, refused
from vmlib.fake_qemu import FakeQemu
from vmlib.polkit import Agent, Belated, Polkit, SystemBroker
from vmlib.users import DAEMON, NOBODY, User, being

INTERACTIVE = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
PLAIN: dict[str, tuple[str, Any]] = {"security": ("s", "plain")}

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root and polkitd")


@pytest.fixture
def broker(workdir: Path) -> Iterator[SystemBroker]:
    with SystemBroker(workdir, "a") as one:
        yield one
        assert not one.list(), "a test forgets what it has made"
        wait_until(lambda: not one.helpers(), "no helper is left", 10)


@pytest.fixture
def polkit(workdir: Path, broker: SystemBroker) -> Iterator[Polkit]:
    with Polkit(workdir, broker.bus) as one:
        yield one


@pytest.fixture
def nobody(broker: SystemBroker) -> Iterator[User]:
    with User(broker, NOBODY) as one:
        yield one


def test_reload_is_root_s(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """No rule of polkit's can give it away: it is not asked."""
    assert "may not have the configuration read again; only root may" in refused(nobody.client.call, PATH, BROKER, "Reload")
    assert polkit.asked() == []
    broker.client.call(PATH, BROKER, "Reload")


# ---- Every method, without yes and with it ----


def test_denied_without_yes(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    victim = broker.prepare("no", PLAIN)
    a, b = socket.socketpair()
    with a, b:
        calls = managing(victim.path, a.fileno()) + [(victim.path, MIGRATION, "Wait"),
                                                     (victim.path, MIGRATION, "Forget")]
        for call in calls:
            text = refused(nobody.client.call, *call)
            for word in (str(NOBODY), victim.id, "'no'", "polkit says no", "org.vmferry.Broker1.manage"):
                assert word in text
        assert victim.get("State") == "waiting" and victim.get("BandwidthLimit") == 0
    assert "org.vmferry.Broker1.prepare-incoming" in refused(nobody.prepare, "no-a", PLAIN)
    assert "org.vmferry.Broker1.start-outgoing" in refused(nobody.outgoing, victim.ticket, "no-b")
    assert len(broker.list()) == 1
    endpoint = broker.get("Endpoints")[0]
    assert polkit.asked() == [("manage", "no", "incoming", "", "nobody")] * len(calls) + [
        ("prepare-incoming", "no-a", "incoming", "", "nobody"), ("start-outgoing", "no-b", "outgoing", endpoint, "nobody")]
    assert broker.log().count("Denied: uid 65534 may not") == len(calls) + 2
    gone(victim)


def test_allowed_with_yes(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    with ExitStack() as stack:
        pairs = [stack.enter_context(closing(end)) for _ in range(2) for end in socket.socketpair()]
        victim = broker.prepare("all", PLAIN)
        calls = managing(victim.path, pairs[0].fileno())
        calls[3] = (victim.path, MIGRATION, "AddPeerConnection", "h", pairs[2].fileno())
        for call in calls:
            for item in nobody.client.call(*call):
                if call[2] == "OpenStream":
                    item.close()
            if call[2] == "Set":
                assert victim.get("BandwidthLimit") == 1 << 20
        victim.wait_finished()
        assert "Cancelled" in refused(nobody.client.call, victim.path, MIGRATION, "Wait",
                                      error="org.vmferry.Error.Cancelled")
        nobody.client.call(victim.path, MIGRATION, "Forget")
        assert not broker.list()
        mine = nobody.prepare("own-in", PLAIN)
        out = nobody.outgoing(mine.ticket or "", "own-out")
        assert {entry[4] for entry in broker.list()} == {NOBODY}
        gone(out, mine)


def test_owner_is_not_asked(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """What is his own he manages by himself; another user needs a yes for it, and gets none here."""
    mine = nobody.prepare("own", PLAIN)
    with User(broker, DAEMON) as other:
        assert f"belongs to uid {NOBODY}" in refused(other.client.call, mine.path, MIGRATION, "Cancel")
        assert refused(other.client.call, mine.path, MIGRATION, "Forget")
        # His ticket neither: the client-id that leads to it is that of a user.
        again = {**PLAIN, "client-id": ("s", "mine")}
        named = nobody.prepare("own-named", again)
        same = other.prepare("own-named", again)  # nor is a name that of one user
        assert same.id != named.id and same.ticket != named.ticket
        gone(Migration(broker, same.path))
        found = other.prepare("own-other", again)
        assert found.id != named.id and nobody.prepare("own-named", again).ticket == named.ticket
    count = len(polkit.asked())
    mine.set_limit(5)
    mine.cancel()
    mine.wait_finished()
    mine.call("Forget")
    assert len(polkit.asked()) == count
    gone(named, found)


def test_only_the_owner_and_root_report(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """polkit is not asked: nobody else can know."""
    theirs = broker.prepare("all", PLAIN)
    mine = nobody.prepare("own", PLAIN)
    count = len(polkit.asked())
    for member, signature, args in (("Report", "sa{sv}", ("moved", {})), ("ReportProgress", "a{sv}", ({},))):
        text = refused(nobody.client.call, theirs.path, MIGRATION, member, signature, *args)
        assert f"uid {NOBODY} may not report on migration {theirs.id}" in text
        nobody.client.call(mine.path, MIGRATION, member, signature, *args)
        broker.client.call(mine.path, MIGRATION, member, signature, *args)
    assert theirs.get("Outcome") == "" and len(polkit.asked()) == count
    gone(theirs, mine)


def test_root_is_not_asked(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    theirs = Migration(broker, nobody.prepare("own", PLAIN).path)
    theirs.cancel()
    theirs.wait_finished()
    theirs.call("Forget")
    gone(broker.prepare("no", PLAIN))
    assert [question[-1] for question in polkit.asked()] == ["nobody"]


def test_all_endpoints_are_told(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """A rule that decides by the peer sees each one that would be dialled."""
    endpoints = ["tcp:192.0.2.1:1", "tcp:192.0.2.2:2"]
    ticket = broker.prepare("no", {**PLAIN, "endpoints": ("as", endpoints)})
    refused(nobody.outgoing, ticket.ticket or "", "no-a")
    refused(nobody.outgoing, ticket.ticket or "", "no-b", {"endpoint": ("s", "tcp:192.0.2.3:3")})
    refused(nobody.outgoing, "no ticket", "no-c")
    assert [question[3] for question in polkit.asked()] == [" ".join(endpoints), "tcp:192.0.2.3:3", ""]
    gone(ticket)


def test_reading_is_open(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """Nobody is asked, and there is no secret in it."""
    victim = broker.prepare("no", PLAIN)
    assert nobody.list()[0][0] == victim.id
    assert nobody.client.call(PATH, BROKER, "GetMigration", "ss", "incoming", victim.id) == (victim.path,)
    assert nobody.client.get_all(victim.path, MIGRATION)["Vm"] == "no"
    assert not polkit.asked()
    gone(victim)


# ---- No polkit, a slow one, one that dies ----


def test_without_polkit(broker: SystemBroker, nobody: User) -> None:
    """Root works; to all others it is said what to do."""
    mine = broker.prepare("all", PLAIN)
    for call in ((PATH, BROKER, "PrepareIncoming", "sa{sv}", "own", PLAIN), (mine.path, MIGRATION, "Cancel")):
        text = refused(nobody.client.call, *call)
        assert "there is no polkit" in text and "Install polkitd, or call as root." in text
    gone(mine)


@pytest.mark.load_sensitive(reason="root is served within 5 s, while polkit has 10")
def test_slow_polkit(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """The broker works on meanwhile, and waits for it only so long."""
    polkit.pause()
    begin = time.monotonic()
    serial = post(nobody.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "own", PLAIN)
    gone(broker.prepare("no", PLAIN))
    assert time.monotonic() - begin < 5
    name, text = answer(nobody.client, serial)
    assert name == DENIED and "polkit did not answer" in text and time.monotonic() - begin > 9
    polkit.go_on()
    wait_until(polkit.asked, "the question is there")
    assert not broker.list(), "what it says afterwards does not count"


def test_polkit_dies(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    polkit.pause()
    serial = post(nobody.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "own", PLAIN)
    gone(broker.prepare("no", PLAIN))  # the question is on its way by now
    polkit.close()
    name, text = answer(nobody.client, serial)
    assert name == DENIED and "polkit did not answer" in text and "Call again" in text
    polkit.start()
    gone(nobody.prepare("own", PLAIN))


def test_policy_is_missing(workdir: Path, broker: SystemBroker, nobody: User) -> None:
    with Polkit(workdir, broker.bus) as polkit:
        (polkit.workdir / "actions" / harness.POLICY.name).unlink()
        polkit.close()
        polkit.start()
        text = refused(nobody.prepare, "own", PLAIN)
        assert "not registered" in text and "Is vmferry's polkit policy installed?" in text


def test_caller_vanishes(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """Nothing is done for one who has gone, whatever polkit says later."""
    polkit.pause()
    with User(broker, NOBODY) as caller:
        for i in range(5):
            post(caller.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", f"own{i}", PLAIN, interactive=i % 2 == 0)
        gone(broker.prepare("no", PLAIN))
    gone(broker.prepare("no", PLAIN))  # and the news of that is older than this answer
    polkit.go_on()
    mine = nobody.prepare("own", PLAIN)  # polkit has been through all the others
    assert [entry[1] for entry in broker.list()] == ["own"]
    gone(mine)


@pytest.mark.parametrize("interactive", [False, True])
def test_yes_for_one_who_has_gone(broker: SystemBroker, interactive: bool) -> None:
    with closing(Belated(broker)) as polkit:
        with User(broker, NOBODY) as caller:
            post(caller.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "own", PLAIN, interactive=interactive)
            question = polkit.call("CheckAuthorization")
        if interactive:
            assert question.body[3:] == (1, question.body[4]) and question.body[4]
            assert polkit.call("CancelCheckAuthorization").body == (question.body[4],)
        gone(broker.prepare("no", PLAIN))  # the broker has heard of it by now
        polkit.connection.send(new_method_return(question, "(bba{ss})", ((True, False, {}),)))
        gone(broker.prepare("no", PLAIN))
        assert not broker.list() and broker.process.poll() is None


@pytest.mark.parametrize(("signature", "body"), [("s", ("yes",)), ("(bb)", ((True, True),)), ("", ())])
def test_answer_that_makes_no_sense(broker: SystemBroker, nobody: User, signature: str, body: Any) -> None:
    with closing(Belated(broker)) as polkit:
        serial = post(nobody.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "own", PLAIN)
        polkit.connection.send(new_method_return(polkit.call("CheckAuthorization"), signature or None, body))
        name, text = answer(nobody.client, serial)
        assert name == DENIED and "makes no sense" in text
        assert not broker.list()


@pytest.mark.parametrize("again", [False, True])
def test_migration_changes_meanwhile(broker: SystemBroker, polkit: Polkit, nobody: User, again: bool) -> None:
    """A yes is for the migration that was asked about: not for one with the same path."""
    ticket = broker.prepare("no", {**PLAIN, "endpoints": ("as", [])}).ticket or ""
    victim = broker.outgoing(ticket, "all")
    polkit.pause()
    serial = post(nobody.client, victim.path, MIGRATION, "Cancel")
    victim.cancel()
    victim.wait_finished()
    victim.call("Forget")
    if again:
        assert broker.outgoing(ticket, "other").path == victim.path
    polkit.go_on()
    name, text = answer(nobody.client, serial)
    assert name == "org.vmferry.Error.NoSuchMigration" and victim.id in text
    if again:
        assert victim.get("State") == "waiting"
    gone(*(Migration(broker, entry[5]) for entry in broker.list()))


# ---- A password ----


def test_password_is_wanted(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    text = refused(nobody.prepare, "auth", PLAIN, error=INTERACTIVE)
    assert "Call again with interactive authorization allowed." in text
    text = refused(nobody.client.call, PATH, BROKER, "PrepareIncoming", "sa{sv}", "auth", PLAIN, error=INTERACTIVE,
                   interactive=True)
    assert "pkttyagent" in text


@pytest.mark.parametrize("says", ["yes", "no"])
def test_password_is_given(broker: SystemBroker, polkit: Polkit, nobody: User, says: str) -> None:
    with closing(Agent(nobody, says)) as agent:
        serial = post(nobody.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "auth-1", PLAIN, interactive=True)
        name, text = agent.serve(serial)
        assert agent.seen == [("org.vmferry.Broker1.prepare-incoming", agent.seen[0][1])]
        assert "virtual machine auth-1" in agent.seen[0][1], "it says what the password is for"
        if says == "no":
            assert name == DENIED and str(NOBODY) in text
            assert not broker.list()
        else:
            assert name == "" and broker.list()[0][4] == NOBODY
            gone(Migration(broker, broker.list()[0][5]))


def test_question_is_taken_back(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """The one who called has gone: nobody has to type a password any more."""
    with closing(Agent(nobody, "nothing")) as agent, User(broker, NOBODY) as caller:
        post(caller.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", "auth", PLAIN, interactive=True)
        while not agent.begun.is_set():
            message = agent.connection.receive(timeout=20)
            if message.header.message_type == MessageType.method_call:
                agent.on_call(message, message.header.fields[HeaderFields.member])
        caller.close()
        while not agent.cancelled.is_set():
            message = agent.connection.receive(timeout=20)
            if message.header.message_type == MessageType.method_call:
                agent.on_call(message, message.header.fields[HeaderFields.member])
    assert not broker.list()


# ---- All of it ----


def test_migration_of_a_user(broker: SystemBroker, polkit: Polkit, nobody: User) -> None:
    """From his own QEMU to his own QEMU, at the paths that the broker made for him."""
    incoming = nobody.prepare("own-a")
    outgoing = nobody.outgoing(incoming.ticket or "", "own-b")
    for migration in (incoming, outgoing):
        assert Path(migration.socket()).parent.stat().st_uid == NOBODY
    with being(NOBODY):
        listener = FakeQemu.listen(incoming.socket())
        source = FakeQemu.connect(outgoing.socket())
    with listener, source:
        sent = source.send_pattern(1, 1 << 20, shut=True)
        with listener.accept() as destination:
            destination.recv_pattern(1, 1 << 20)
            sent.result(20)
            assert destination.recv_until_eof() == b""
    assert incoming.wait() == outgoing.wait() == "done"
    gone(outgoing, incoming)


def test_tied_to_its_caller(broker: SystemBroker, polkit: Polkit) -> None:
    with User(broker, NOBODY) as nobody:
        tied = Migration(broker, nobody.prepare("own-tied", {**PLAIN, "tie-to-caller": ("b", True)}).path)
        free = Migration(broker, nobody.prepare("own-free", PLAIN).path)
    assert tied.wait_finished()["ErrorName"] == "org.vmferry.Error.Cancelled"
    assert free.get("State") == "waiting"
    gone(tied, free)
