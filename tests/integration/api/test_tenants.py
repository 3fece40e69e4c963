# SPDX-License-Identifier: LGPL-2.1-or-later
"""Users of one broker: what one of them does, with names and ids that all can see, is no hindrance to the others."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmlib import polkit as harness
from vmlib.broker import BROKER, MIGRATION, PATH, BusError, Client, Migration
from vmlib.calls import gone, refused
from vmlib.ctl import Result, ctl
from vmlib.polkit import Polkit, SystemBroker
from vmlib.users import DAEMON, NOBODY, User
from vmlib.wire import Ticket

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root and polkitd")

LONG: dict[str, tuple[str, Any]] = {"expire-usec": ("t", 86_400_000_000)}
BUSY = "org.vmferry.Error.VmBusy"
USED = "org.vmferry.Error.TicketUsed"


class Tenants:
    """Root's connection is the broker's own."""

    def __init__(self, broker: SystemBroker, polkit: Polkit, mallory: User, victim: User) -> None:
        self.broker, self.polkit, self.mallory, self.victim = broker, polkit, mallory, victim

    def ctl(self, *words: str, stdin: str = "") -> Result:
        return ctl(None, *words, stdin=stdin, env=self.broker.environment())


@pytest.fixture
def tenants(workdir: Path) -> Iterator[Tenants]:
    workdir.chmod(0o755)
    with SystemBroker(workdir, "a") as broker, Polkit(workdir, broker.bus) as polkit, \
            User(broker, NOBODY) as mallory, User(broker, DAEMON) as victim:
        yield Tenants(broker, polkit, mallory, victim)


def a_ticket(**changes: Any) -> Ticket:
    """Of a destination that is not there, and without endpoints: it waits for AddPeerConnection."""
    return Ticket(security=1, expiry=time.time_ns() // 1000 + 3_000_000_000).but(**changes)


def found_by(client: Client, ticket: Ticket) -> str:
    return str(client.call(PATH, BROKER, "GetMigration", "ss", "outgoing", f"{ticket.id:016x}")[0])


def test_a_name_is_busy_for_its_owner_alone(tenants: Tenants) -> None:
    theirs = tenants.mallory.prepare("own-web1", LONG)
    assert theirs.id in refused(tenants.mallory.prepare, "own-web1", LONG, error=BUSY)
    mine = tenants.victim.prepare("own-web1", LONG)
    roots = tenants.broker.prepare("own-web1", LONG)
    assert roots.id in refused(tenants.broker.prepare, "own-web1", LONG, error=BUSY)
    assert f"uid {DAEMON} makes an incoming migration of VM 'own-web1'; uid {NOBODY} has one" in tenants.broker.log()
    gone(*(Migration(tenants.broker, one.path) for one in (theirs, mine, roots)))


def test_vmferryctl_says_that_another_user_has_one_of_that_name(tenants: Tenants) -> None:
    theirs = tenants.mallory.prepare("own-web1", LONG)
    result = tenants.ctl("receive", "own-web1")
    assert result.status == 0 and "Another user has a migration" in result.err, result
    assert f"incoming/{theirs.id} (of user {NOBODY}, waiting)" in result.err
    assert "Another user" not in tenants.ctl("receive", "alone").err
    assert "Another user" not in tenants.ctl("--quiet", "receive", "own-web1b").err


def test_an_id_that_was_seen_is_no_lever(tenants: Tenants) -> None:
    """Mallory has seen the id, and makes a ticket of it: the true one is good for the victim, for root, and once."""
    true = a_ticket()
    theirs = tenants.mallory.outgoing(a_ticket(id=true.id).encode(), "own-a", LONG)
    mine = tenants.victim.outgoing(true.encode(), "own-web1", LONG)
    for user, vm in ((tenants.mallory, "own-b"), (tenants.victim, "own-web2"), (tenants.broker, "own-web1")):
        assert theirs.id in refused(user.outgoing, true.encode(), vm, LONG, error=USED)
    roots = tenants.broker.outgoing(a_ticket(id=true.id).encode(), "own-web1", LONG)
    assert theirs.path == f"{PATH}/outgoing/{true.id:016x}"
    assert (mine.path, roots.path) == (f"{theirs.path}_1", f"{theirs.path}_2")
    assert {m.get("Id") for m in (mine, theirs, roots)} == {f"{true.id:016x}"}
    assert len({Migration(tenants.broker, m.path).socket() for m in (mine, theirs, roots)}) == 3
    assert found_by(tenants.mallory.client, true) == theirs.path
    assert found_by(tenants.victim.client, true) == mine.path
    assert found_by(tenants.broker.client, true) == roots.path
    with User(tenants.broker, 2) as stranger:
        assert found_by(stranger.client, true) == theirs.path
    refused(tenants.mallory.client.call, mine.path, MIGRATION, "Cancel")
    # vmferryctl takes the caller's own of an id, and each by the last part of its path.
    assert tenants.ctl("cancel", theirs.id).status == 0
    Migration(tenants.broker, roots.path).wait_finished()
    states = {entry[5]: entry[3] for entry in tenants.broker.list()}
    assert states == {theirs.path: "waiting", mine.path: "waiting", roots.path: "finished"}
    assert tenants.ctl("cancel", mine.id).status == 0
    Migration(tenants.broker, mine.path).wait_finished()
    assert Migration(tenants.broker, theirs.path).get("State") == "waiting"
    gone(Migration(tenants.broker, theirs.path))


def test_the_object_stays_that_of_the_id_where_nothing_collides(tenants: Tenants) -> None:
    """Both roles of one id, as on a broker that migrates to itself."""
    incoming = tenants.victim.prepare("own-web1", LONG)
    outgoing = tenants.victim.outgoing(incoming.ticket or "", "own-web1", LONG)
    assert incoming.path == f"{PATH}/incoming/{incoming.id}" and outgoing.path == f"{PATH}/outgoing/{incoming.id}"
    with pytest.raises(BusError):
        tenants.victim.client.call(PATH, BROKER, "GetMigration", "ss", "outgoing", incoming.id + "_1")
    gone(*(Migration(tenants.broker, one.path) for one in (outgoing, incoming)))


def test_a_connection_to_elsewhere_is_asked_about(tenants: Tenants) -> None:
    """Polkit's yes was for the endpoints; where there were none the answer was for a connection that is brought."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # one that refused would end the migration
        assert_asked_about_elsewhere(tenants, f"tcp:127.0.0.1:{silent.getsockname()[1]}")


def assert_asked_about_elsewhere(tenants: Tenants, there: str) -> None:
    for vm, endpoints, asked in (("peer-a", (there,), True), ("peer-b", (), False), ("own-c", (there,), True)):
        mine = tenants.victim.outgoing(a_ticket(endpoints=endpoints).encode(), vm, LONG)
        one, other = socket.socketpair()
        with one, other:
            call = (mine.path, MIGRATION, "AddPeerConnection", "h", one.fileno())
            count = len(tenants.polkit.asked())
            if vm == "peer-a":
                text = refused(tenants.victim.client.call, *call)
                assert "permitted for its endpoints" in text and "start-outgoing" in text
            else:
                tenants.victim.client.call(*call)
            asked_now = tenants.polkit.asked()[count:]
            assert asked_now == ([("start-outgoing", vm, "outgoing", "supplied", "daemon")] if asked else [])
        Migration(tenants.broker, mine.path).cancel()


@pytest.mark.parametrize("endpoint", ["tcp:10.0.0.8:16520 tcp:10.0.0.9:16520", "unix:/tmp/a b", "nonsense", "tcp:"])
def test_what_is_no_endpoint_is_not_asked_about(tenants: Tenants, endpoint: str) -> None:
    count = len(tenants.polkit.asked())
    text = refused(tenants.victim.outgoing, a_ticket(endpoints=(endpoint,)).encode(), "own-a", LONG,
                   error="org.vmferry.Error.InvalidTicket")
    assert endpoint in text and len(tenants.polkit.asked()) == count
