"""The daemon's network side: who may ask what, with which certificate, over real TLS."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from routemesh import wire
from routemesh.api.door import Listener
from routemesh.api.rights import TABLE, Right
from routemesh.api.server import make_app, serving_network
from routemesh.ask.attempts import MOST, MOST_SOURCES, Attempts
from routemesh.ask.peer import Peers
from routemesh.cli.main import main
from routemesh.credentials import tls
from routemesh.credentials.files import Credentials, Place
from routemesh.decide import admit
from routemesh.errors import Forbidden, NotFound, Unavailable, UserError
from routemesh.loops import EndsDaemon
from routemesh.membership import Member
from routemesh.model import NodeId, Role, ServiceSpec, State, Trust
from routemesh.nodeplan.ranges import Occupied
from routemesh.options import Membership, NodeOptions
from routemesh.pki import certificates, tokens
from routemesh.pki.shapes import Join
from routemesh.pki.subject import role_name
from routemesh.store.memory import MemoryStore
from routemesh.values import replace
from tests.unit.daemon import NOW, Daemon, cluster
from tests.unit.pki import HOUR_S, Issuer, issuer

LOOPBACK = IPv4Address("127.0.0.1")
STREAM = "/services/web/logs?follow=1"


@dataclass
class Net:
    """A daemon's network side, and the credentials of those who ask it."""

    daemon: Daemon
    port: int
    issuer: Issuer
    directory: Path
    listener: Listener
    stack: AsyncExitStack

    def place(self, node: str, role: Role = Role.WORKER) -> Place:
        """Credentials as the cluster gives them."""
        return self.issuer.give(self.directory / f"{node}-{role}", f"id-{node}", role)

    def ask(self, method: str, path: str, place: Place | None, body: object = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = self.connect(place)
        try:
            connection.request(method, wire.PREFIX + path, wire.encode(body) if body is not None else None)
            answer = connection.getresponse()
            is_endless = answer.headers.get("Content-Type") == "application/jsonl"
            said = answer.readline() if is_endless else answer.read()
            return answer.status, json.loads(said) if answer.headers.get("Content-Type") == "application/json" else said
        finally:
            connection.close()

    def connect(self, place: Place | None) -> http.client.HTTPConnection:
        """A connection, with these credentials or with none."""
        context = tls.connecting(place) if place else tls.believing(self.issuer.authority.certificate)
        return Connection(self.port, context)


class Connection(http.client.HTTPConnection):
    """HTTP over TLS with whoever is a manager."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=10)
        self.context = context

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), timeout=10)
        self.sock = self.context.wrap_socket(raw, server_hostname=role_name(Role.MANAGER))


def trust(cluster_id: str, made: Issuer) -> Trust:
    return Trust(
        cluster=cluster_id,
        roots=(made.authority.certificate,),
        key=made.authority.key,
        tokens={role: tokens.new_secret() for role in Role},
    )


def worker(state: State, name: str) -> State:
    node = state.nodes[NodeId(f"id-{name}")]
    return replace(state, nodes={**state.nodes, node.id: replace(node, role=Role.WORKER)})


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with cluster(tmp_path, ("node1", "node2", "node3")) as daemons:
        daemon = daemons[0]
        assert daemon.state.cluster is not None
        made = issuer(daemon.state.cluster.id)
        daemon.run(daemon.store.update(partial(admit.begin_trust, trust=trust(made.cluster, made))))
        daemon.run(daemon.store.update(partial(worker, name="node2")))
        daemon.client.create_service(ServiceSpec(name="web", command=("serve",)))
        daemon.settle()
        own = made.give(tmp_path / "own", "id-node1", Role.MANAGER)
        stack = AsyncExitStack()
        real_time = replace(daemon.context(), now=time.time)
        door = serving_network(real_time, LOOPBACK, 0, lambda: tls.listening(own))
        listener = daemon.run(stack.enter_async_context(door))
        try:
            yield Net(daemon, listener.port, made, tmp_path, listener, stack)
        finally:
            daemon.run(stack.aclose())


def rows() -> set[str]:
    """Every path of the API as the table of rights names it."""
    context: Any = None
    routes = [route for route in make_app(context).router.routes() if route.resource and route.method != "HEAD"]
    return {f"{route.method} {route.resource.canonical.removeprefix(wire.PREFIX)}" for route in routes if route.resource}


def of(*rights: Right) -> set[str]:
    """The rows with such a right."""
    return {row for row, right in TABLE.items() if right in rights}


def refused(net: "Net", place: Place | None) -> set[str]:
    """The rows that somebody may not ask; no other is answered by a bug."""
    answers = {row: net.ask(*filled(row), place)[0] for row in sorted(TABLE)}
    assert 500 not in answers.values(), answers
    return {row for row, status in answers.items() if status == 403}


def filled(row: str) -> tuple[str, str]:
    """A row as something that can be asked."""
    method, _, path = row.partition(" ")
    return method, path.replace("{ref}", "node1" if path.startswith("/nodes") and method == "GET" else "node3").replace(
        "{name}", "x"
    ).replace("{role}", "worker")


# --- the table ---------------------------------------------------------------------------------------------------


def test_every_path_of_the_api_has_a_row_and_every_row_a_path() -> None:
    assert rows() == set(TABLE)


def test_without_a_certificate_only_what_is_for_anyone_is_answered(net: Net) -> None:
    answers = {row: net.ask(*filled(row), None)[0] for row in TABLE}
    assert {row for row, status in answers.items() if status != 403} == {
        row for row, right in TABLE.items() if right is Right.ANYONE
    }
    assert net.ask("GET", "/services", None)[1] == {
        "message": "a certificate of the cluster is needed: 'routemesh cluster join' gets one"
    }


def test_a_worker_may_ask_what_is_for_nodes_and_no_more(net: Net) -> None:
    place = net.place("node2")
    assert refused(net, place) == of(Right.MANAGERS)
    assert "node2 is a worker, and this is for managers" in net.ask("DELETE", "/services/web", place)[1]["message"]
    assert net.daemon.client.service("web").name == "web"


def test_a_managers_certificate_of_a_node_that_was_made_a_worker_is_a_workers(net: Net) -> None:
    assert net.ask("GET", "/services", net.place("node2", Role.MANAGER))[0] == 403
    assert net.ask("GET", "/services", net.place("node3", Role.WORKER))[0] == 403


def test_a_manager_may_ask_everything(net: Net) -> None:
    place = net.place("node3", Role.MANAGER)
    assert net.ask("GET", "/services", place)[1][0]["name"] == "web"
    asked = sorted(set(TABLE) - {"DELETE /nodes/{ref}"})  # node3 itself
    answers = {row: net.ask(*filled(row), place)[0] for row in asked}
    assert not {403, 500} & set(answers.values()), answers


def test_a_removed_nodes_certificate_opens_nothing(net: Net) -> None:
    place = net.place("node2")
    assert refused(net, place) == of(Right.MANAGERS)
    net.daemon.run(net.daemon.store.update(partial(admit.remove_node, ref="node2", now=NOW, force=True)))
    answers = {row: net.ask(*filled(row), place)[0] for row in TABLE}
    assert {row for row, status in answers.items() if status != 403} == {
        row for row, right in TABLE.items() if right is Right.ANYONE
    }


def test_a_certificate_of_another_cluster_of_the_same_authority_opens_nothing(net: Net) -> None:
    place = replace(net.issuer, cluster="other").give(net.directory / "other", "id-node3", Role.MANAGER)
    status, said = net.ask("GET", "/services", place)
    assert (status, said["message"].endswith("the certificate is of cluster other, which is not this one")) == (403, True)


@pytest.mark.parametrize("which", ["expired", "foreign"])
def test_an_expired_or_foreign_certificate_is_refused_on_every_path(net: Net, which: str) -> None:
    if which == "expired":
        place = net.issuer.give(net.directory / "x", "id-node3", Role.MANAGER, now=time.time() - 91 * 24 * HOUR_S)
    else:
        other, roots = issuer(net.issuer.cluster), (net.issuer.authority.certificate,)
        place = other.give(net.directory / "x", "id-node3", Role.MANAGER, roots=roots)
    for row in TABLE:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            net.ask(*filled(row), place)


def test_a_path_that_is_none_is_nobodys(net: Net) -> None:
    assert net.ask("GET", "/nothing", None)[0] == 403
    assert net.ask("GET", "/nothing", net.place("node3", Role.MANAGER))[0] == 403


def test_without_tls_nothing_is_said(net: Net) -> None:
    with socket.create_connection(("127.0.0.1", net.port), timeout=10) as plain:
        plain.sendall(b"GET /routemesh/v1/cluster/roots HTTP/1.0\r\n\r\n")
        assert b"HTTP" not in plain.recv(100)


# --- requests that last ------------------------------------------------------------------------------------------


def test_a_stream_of_a_node_that_is_removed_breaks_off(net: Net) -> None:
    connection = net.connect(net.place("node3", Role.MANAGER))
    connection.request("GET", wire.PREFIX + STREAM)
    answer = connection.getresponse()
    assert answer.status == 200
    net.daemon.run(net.daemon.store.update(partial(admit.remove_node, ref="node3", now=NOW, force=True)))
    begun = time.monotonic()
    with pytest.raises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
        answer.read()
    assert time.monotonic() - begun < 5
    connection.close()


# --- another certificate -----------------------------------------------------------------------------------------


def test_a_listener_shows_its_new_certificate_and_goes_on_with_what_is_open(net: Net, tmp_path: Path) -> None:
    def seen(connection: Connection) -> Any:
        assert isinstance(connection.sock, ssl.SSLSocket)
        return connection.sock.getpeercert()

    old = Connection(net.port, tls.connecting(net.place("node3", Role.MANAGER)))
    old.connect()
    before = seen(old)
    net.issuer.give(tmp_path / "own", "id-node1", Role.MANAGER)
    net.daemon.run(net.listener.open())
    new = Connection(net.port, tls.connecting(net.place("node3", Role.MANAGER)))
    new.connect()
    assert seen(new)["serialNumber"] != before["serialNumber"]
    old.request("GET", f"{wire.PREFIX}/_ping")
    assert old.getresponse().read() == b"OK"
    old.close()
    new.close()


def test_an_address_that_can_not_be_had_is_one_line(net: Net) -> None:
    own = net.place("node1", Role.MANAGER)

    def opened(address: str) -> Any:
        stack = AsyncExitStack()
        door = serving_network(net.daemon.context(), IPv4Address(address), net.port, lambda: tls.listening(own))
        return net.daemon.run(stack.enter_async_context(door))

    with pytest.raises(Unavailable, match=rf"^can't listen on 127.0.0.1:{net.port}: Address already in use: the address must"):
        opened("127.0.0.1")
    with pytest.raises(Unavailable, match=r"Cannot assign requested address"):
        opened("192.0.2.1")


# --- peers -------------------------------------------------------------------------------------------------------


def test_a_peer_is_asked_over_https_and_must_be_who_it_is(net: Net) -> None:
    node = replace(net.daemon.state.nodes[NodeId("id-node1")], api=f"https://127.0.0.1:{net.port}")
    peers = Peers(lambda: tls.connecting(net.place("node3", Role.MANAGER)))
    found = net.daemon.run(peers.get(node, "/nodes/id-node1/plan", wire.PlanInfo))
    assert found.namespaces
    with pytest.raises(NotFound, match="no service named 'x'"):
        net.daemon.run(peers.get(node, "/services/x", wire.ServiceInfo))
    with pytest.raises(
        Unavailable, match=r"^node node9's daemon can't be asked .*its certificate is not believed \(Hostname mismatch"
    ):
        net.daemon.run(peers.get(replace(node, id=NodeId("id-node9"), name="node9"), "/_ping", wire.PlanInfo))
    with pytest.raises(Unavailable, match="this node has no certificate of the cluster"):
        net.daemon.run(Peers().get(node, "/_ping", wire.PlanInfo))


def test_a_conversation_goes_over_https_as_well(net: Net) -> None:
    node = replace(net.daemon.state.nodes[NodeId("id-node1")], api=f"https://127.0.0.1:{net.port}")

    async def talk(place: Place) -> None:
        async with Peers(lambda: tls.connecting(place)).conversation(node, "/nodes/id-node1/watch") as talk:
            await talk.say(b"{}")
            await talk.hear()

    with pytest.raises(UserError, match="the request's body is not what this path takes"):
        net.daemon.run(talk(net.place("node3", Role.MANAGER)))
    with pytest.raises(Forbidden, match="node2 is a worker"):
        net.daemon.run(talk(net.place("node2")))


def test_a_peer_that_refuses_us_says_why(net: Net) -> None:
    node = replace(net.daemon.state.nodes[NodeId("id-node1")], api=f"https://127.0.0.1:{net.port}")
    with pytest.raises(Forbidden, match="node2 is a worker, and this is for managers"):
        net.daemon.run(Peers(lambda: tls.connecting(net.place("node2"))).get(node, "/services", list[wire.ServiceInfo]))
    expired = net.issuer.give(net.directory / "x", "id-node3", Role.MANAGER, now=time.time() - 91 * 24 * HOUR_S)
    with pytest.raises(Unavailable, match=r"node node1's daemon can't be asked at https://127.0.0.1:\d+: .*expired"):
        net.daemon.run(Peers(lambda: tls.connecting(expired)).get(node, "/services", list[wire.ServiceInfo]))


# --- joining -----------------------------------------------------------------------------------------------------


def asked(net: Net, name: str = "node9", *, secret: str = "", address: str = "192.0.2.9") -> tuple[str, Join]:
    """A key, and what a machine with it asks a manager for."""
    known, key = net.daemon.state.trust, certificates.new_key()
    assert known is not None
    request = certificates.request(key)
    return key, Join(secret=secret or known.tokens[Role.WORKER], request=request, name=name, address=address, port=2377)


def test_a_token_gets_a_certificate_and_not_twice(net: Net) -> None:
    key, body = asked(net)
    status, said = net.ask("POST", "/cluster/join", None, body)
    assert (status, said["role"]) == (201, "worker")
    place = Place(net.directory / "node9")
    place.save(Credentials(key, said["chain"], tuple(said["roots"])))
    assert net.ask("GET", "/_ping", place) == (200, b"OK")
    assert net.ask("GET", "/services", place)[0] == 403
    status, said = net.ask("POST", "/cluster/join", None, body)
    assert (status, said["message"].startswith("node name node9 is taken by the node at 192.0.2.9: choose another")) == (
        409,
        True,
    )


def test_what_can_not_join_changes_nothing(net: Net) -> None:
    before = net.daemon.state
    trust = before.trust
    assert trust is not None
    good = asked(net)[1]
    bodies = {
        "the token is not right any more": asked(net, secret=tokens.new_secret())[1],
        "node9 can't be a manager": asked(net, secret=trust.tokens[Role.MANAGER])[1],
        "address 192.168.200.11 is that of node node2": asked(net, address="192.168.200.11")[1],
        "address 'x' is not an IPv4 address": asked(net, address="x")[1],
        "is not a host name": asked(net, name="a b")[1],
        "the certificate request is not one": replace(good, request="rubbish"),
        "port 0 is none": replace(good, port=0),
        "node9 can't join: its address": replace(good, occupied=(Occupied(IPv4Network("10.0.0.0/16"), "eth1", "10.0.0.1/16"),)),
    }
    for message, body in bodies.items():
        status, said = net.ask("POST", "/cluster/join", None, body)
        assert 400 <= status < 500 and message.split(":")[0] in said["message"], said
    assert net.daemon.state == before


def test_who_guesses_tokens_has_to_wait(net: Net) -> None:
    for _ in range(MOST):
        assert net.ask("POST", "/cluster/join", None, asked(net, secret=tokens.new_secret())[1])[0] == 403
    status, said = net.ask("POST", "/cluster/join", None, asked(net)[1])
    assert (status, said["message"]) == (503, "too many wrong tokens came from 127.0.0.1 within 60 s: wait a minute")


def test_guesses_are_forgotten_after_a_minute_and_never_more_than_some_are_kept() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(MOST):
        attempts.check("a")
        attempts.wrong("a")
    attempts.check("b")
    with pytest.raises(Unavailable):
        attempts.check("a")
    now = 60.0
    attempts.check("a")
    for number in range(MOST_SOURCES):
        attempts.wrong(str(number))
    with pytest.raises(Unavailable):
        attempts.check("b")


# --- renewal -----------------------------------------------------------------------------------------------------


def member_of(net: Net, place: Place, node: str, now: float) -> Member:
    """The part of a daemon that keeps its certificate, at a moment."""
    options = NodeOptions(name=node, advertise=LOOPBACK, data_dir=place.data_dir)
    managers = (f"127.0.0.1:{net.port}",)
    return Member(options, Membership(node_id=f"id-{node}", cluster=net.issuer.cluster, managers=managers), lambda: now)


@pytest.mark.parametrize(("node", "role"), [("node3", Role.MANAGER), ("node2", Role.WORKER)])
def test_a_certificate_is_renewed_at_half_of_its_time(net: Net, node: str, role: Role) -> None:
    place, day = net.place(node, role), 24 * HOUR_S
    old = place.load()
    own = replace(net.daemon.context(), now=time.time)
    context = own if role is Role.MANAGER else replace(own, store=of_a_worker(net))

    async def look(days: float) -> None:
        member = member_of(net, place, node, time.time() + days * day)
        await member._look(context)
        await member.managers.close()

    net.daemon.run(look(44))
    assert place.load() == old
    net.daemon.run(look(46))
    new = place.load()
    assert new.key != old.key and new.roots == old.roots
    assert certificates.read(new.chain).subject == certificates.read(old.chain).subject
    assert net.ask("GET", "/_ping", place)[0] == 200
    # The manager's clock is the test's; what the node's newest certificate is, all know.
    assert net.daemon.state.nodes[NodeId(f"id-{node}")].certified_until == certificates.read(new.chain).not_after


def of_a_worker(net: Net) -> MemoryStore:
    """A store with what a worker knows: no key."""
    state, store = net.daemon.state, MemoryStore()
    assert state.trust is not None
    known = replace(state, trust=replace(state.trust, key=""))
    net.daemon.run(store.update(lambda _: known))
    return store


def test_a_manager_that_was_removed_ends(net: Net) -> None:
    place = net.place("node3", Role.MANAGER)
    net.daemon.run(net.daemon.store.update(partial(admit.remove_node, ref="node3", now=NOW, force=True)))

    async def look() -> None:
        await member_of(net, place, "node3", time.time())._look(net.daemon.context())

    with pytest.raises(EndsDaemon, match=r"^node3 is not of the cluster any more"):
        net.daemon.run(look())


def test_a_node_takes_over_the_role_that_it_was_given(net: Net) -> None:
    place = net.place("node2", Role.MANAGER)

    async def look() -> None:
        member = member_of(net, place, "node2", time.time())
        await member._look(net.daemon.context())
        await member.managers.close()

    net.daemon.run(look())
    assert certificates.read(place.load().chain).subject.role is Role.WORKER


# --- people ------------------------------------------------------------------------------------------------------


def typed(net: Net, place: Place, *words: str, ca: str = "") -> list[str]:
    """A command line that asks the daemon over the network."""
    files = ("--tlscacert", ca or str(place.roots), "--tlscert", str(place.node), "--tlskey", str(place.node))
    return ["-H", f"tcp://127.0.0.1:{net.port}", *files, *words]


def test_a_daemon_is_asked_over_the_network_with_a_managers_certificate(net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    place = net.place("node3", Role.MANAGER)
    assert main(typed(net, place, "service", "ls", "-q")) == 0
    assert capsys.readouterr().out.split() == [net.daemon.client.service("web").id]
    assert main(typed(net, net.place("node2"), "service", "ls")) == 1
    assert capsys.readouterr().err == "routemesh: node2 is a worker, and this is for managers: ask on a manager\n"
    assert main(typed(net, place, "record", "x")) == 1
    assert "is another machine: this needs the daemon of this one" in capsys.readouterr().err


def test_where_certificates_are_may_be_in_the_environment(
    net: Net, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = net.place("node3", Role.MANAGER)
    for name, source in (("ca.pem", place.roots), ("cert.pem", place.node), ("key.pem", place.node)):
        (net.directory / name).write_bytes(source.read_bytes())
    monkeypatch.setenv("ROUTEMESH_CERT_PATH", str(net.directory))
    monkeypatch.setenv("ROUTEMESH_HOST", f"tcp://127.0.0.1:{net.port}")
    assert main(["node", "ls", "-q"]) == 0
    assert capsys.readouterr().out.split() == ["id-node1", "id-node2", "id-node3"]


def test_what_keeps_a_daemon_from_being_asked_over_the_network_is_one_line(net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    place, other = net.place("node3", Role.MANAGER), issuer().give(net.directory / "x", "id-node3", Role.MANAGER)
    expired = net.issuer.give(net.directory / "y", "id-node3", Role.MANAGER, now=time.time() - 91 * 24 * HOUR_S)
    free = ["-H", "tcp://127.0.0.1:1", *typed(net, place)[2:]]
    cases = {
        f"can't read {net.directory}/none: No such file": typed(net, place, "node", "ls", ca=f"{net.directory}/none"),
        "is not believed (": typed(net, other, "node", "ls"),
        "does not take": typed(net, other, "node", "ls", ca=str(place.roots)),
        f"does not take {expired.node}, or went away: is it of its cluster": typed(net, expired, "node", "ls"),
        "no daemon answers at tcp://127.0.0.1:1: Connection refused: is it running": [*free, "node", "ls"],
        "host tcp://127.0.0.1:x is not tcp://HOST or tcp://HOST:PORT": ["-H", "tcp://127.0.0.1:x", "node", "ls"],
        "are not roots, a certificate and its key in PEM": typed(net, place, "node", "ls", ca=__file__),
    }
    for message, words in cases.items():
        assert main(words) == 1
        err = capsys.readouterr().err
        assert message in err and len(err.splitlines()) == 1, err
