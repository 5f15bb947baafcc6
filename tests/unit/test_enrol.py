"""`routemesh cluster` from the words typed: what is printed, what is refused before anything is asked."""

import asyncio
import time
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest

from routemesh import enrol
from routemesh.cli.main import main
from routemesh.credentials import member
from routemesh.credentials.files import Place
from routemesh.decide import admit
from routemesh.errors import Conflict, Unavailable
from routemesh.model import Node, NodeId, Role, State
from routemesh.options import Membership, NodeOptions
from routemesh.pki import certificates, tokens
from routemesh.pki.subject import Subject
from routemesh.store import Change
from routemesh.store.opening import open_store
from tests.unit.daemon import NOW, Type, cluster, modules_after, typist
from tests.unit.test_door import Net, net

__all__ = ["net"]
MEMBER = member.Member(
    name="node9",
    advertise=IPv4Address("192.0.2.9"),
    role=Role.WORKER,
    store="",
    engine="auto",
    membership=Membership(node_id="id9", cluster="cluster1", managers=("192.0.2.1:2377",)),
    labels={"disk": "fast"},
)


@pytest.fixture
def type_(net: Net, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    return typist(net.daemon.socket, capfd, monkeypatch)


def test_the_token_is_printed_with_the_command_to_join(type_: Type, net: Net) -> None:
    status, out, _ = type_("cluster", "token", "-q", "worker")
    trust = net.daemon.state.trust
    assert trust is not None
    assert (status, out.strip()) == (0, f"RMTKN-1-{tokens.digest(trust.roots[0])}-{trust.tokens[Role.WORKER]}")
    assert f"    routemesh cluster join --token {out.strip()} HOST\n" in type_("cluster", "token", "worker")[1]
    rotated = type_("cluster", "token", "-q", "--rotate", "worker")[1]
    assert rotated != out and rotated == type_("cluster", "token", "-q", "worker")[1]


def test_the_members_and_their_certificates(type_: Type) -> None:
    out = type_("cluster", "status")[1]
    assert out.splitlines()[1].startswith("root certificate ")
    assert out.splitlines()[-1].split() == ["node3", "192.168.200.12", "manager", "Ready", "0", "none"]


def test_a_cluster_that_was_not_made_to_be_joined(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path) as (daemon,):
        type_ = typist(daemon.socket, capfd, monkeypatch)
        assert "nobody can join over the network: it was not made by 'routemesh cluster init'" in type_("cluster", "status")[1]
        for words in (("token", "worker"), ("ca", "rotate")):
            status, _, err = type_("cluster", *words)
            assert (status, err) == (
                1,
                "routemesh: this cluster can't be joined over the network: it was not made by 'routemesh cluster init'\n",
            )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("token boss", 2, "'boss' is not one of manager, worker"),
        ("token manager", 1, "others can join as workers only"),
        ("join 192.0.2.1", 2, "missing option '--token'"),
        ("join --token x 192.0.2.1:", 2, "'192.0.2.1:' is not HOST or HOST:PORT"),
        ("join --token x 192.0.2.1:99999", 2, "'192.0.2.1:99999' is not HOST or HOST:PORT"),
        ("join --token x --advertise-addr 192.0.2.9 192.0.2.1", 1, "the token is not a join token"),
        ("init", 2, "missing option '--advertise-addr'"),
        ("init --advertise-addr here", 2, "'here' is not an IPv4 address"),
        ("init --advertise-addr 192.0.2.1 --listen-port 0", 2, "invalid value for '--listen-port'"),
    ],
)
def test_wrong_words_about_clusters(type_: Type, words: str, status: int, message: str) -> None:
    found, _, err = type_("cluster", *words.split())
    assert (found, message in err, len(err.splitlines())) == (status, True, 1), err


def test_nodes_are_removed_and_change_roles(type_: Type) -> None:
    assert type_("node", "demote", "node3") == (0, "node3 is a worker now\n", "")
    assert type_("node", "promote", "node3") == (0, "node3 is a manager now\n", "")
    status, _, err = type_("node", "rm", "node3", "node9")
    assert status == 1
    assert err.splitlines()[0] == (
        "routemesh: node node3 is up: stop its daemon first, or use --force, which ends its part of the cluster at once"
    )
    assert "no node named 'node9'" in err.splitlines()[1]
    assert type_("node", "rm", "--force", "node3") == (0, "node3\n", "")
    assert "node3" not in type_("node", "ls")[1]


# --- the manager that is asked -----------------------------------------------------------------------------------


def test_a_clock_an_hour_off_is_named_before_anything_is_sent(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = net.daemon.state.trust
    assert trust is not None
    token = tokens.Token(tokens.digest(trust.roots[0]), "x")
    at = enrol.Manager("127.0.0.1", net.port)

    def set_clock(off_s: float) -> None:
        monkeypatch.setattr("routemesh.enrol.time", SimpleNamespace(time=lambda: time.time() + off_s))

    for off_s, said in ((3600, "ahead of"), (-3600, "behind")):
        set_clock(off_s)
        with pytest.raises(Conflict, match=rf"^this machine's clock is 60 min {said} node1's: timedatectl set-ntp true$"):
            enrol._known_root(at, token)
    set_clock(60)
    assert enrol._known_root(at, token) == trust.roots[0]


# --- what a node keeps -------------------------------------------------------------------------------------------


def test_a_member_starts_with_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member.save(MEMBER, tmp_path)
    assert (tmp_path / "node.json").stat().st_mode & 0o777 == 0o600
    assert member.member(tmp_path) == MEMBER
    started: list[object] = []
    monkeypatch.setattr("routemesh.start.run", started.append)
    assert main(["node", "--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]) == 0
    assert started == [member.options_of(MEMBER, tmp_path / "run", tmp_path)]


def test_a_member_takes_no_other_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member.save(MEMBER, tmp_path)
    assert main(["node", "--data-dir", str(tmp_path), "--advertise", "192.0.2.1", "--role", "manager"]) == 1
    said = "routemesh: this machine is node9 of cluster cluster1, which says what its daemon starts with: "
    assert capsys.readouterr().err == f"{said}leave out --advertise, --role\n"


def test_where_the_managers_are_is_kept(tmp_path: Path) -> None:
    member.know(tmp_path, ("192.0.2.1:2377",))
    assert member.member(tmp_path) is None
    member.save(MEMBER, tmp_path)
    member.know(tmp_path, ())
    assert member.member(tmp_path) == MEMBER
    member.know(tmp_path, ("192.0.2.2:2377",))
    kept = member.member(tmp_path)
    assert kept is not None and kept.membership.managers == ("192.0.2.2:2377",)
    member.forget(tmp_path)
    member.forget(tmp_path)
    assert member.member(tmp_path) is None


@pytest.mark.parametrize(("text", "said"), [("rubbish", "is damaged"), ('{"format": 2}', "is of a newer version of routemesh")])
def test_a_file_that_says_something_else(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(Unavailable, match=said):
        member.member(tmp_path)


def test_to_ask_about_a_cluster_loads_no_cryptography() -> None:
    loaded = modules_after("import routemesh.cli.cluster, routemesh.cli.node, routemesh.credentials.member, routemesh.pki.shapes")
    assert not {"cryptography", "aiohttp", "asyncio", "ssl"} & loaded


# --- the first machine -------------------------------------------------------------------------------------------


def made(tmp_path: Path, change: Change) -> tuple[NodeOptions, State]:
    """A machine that was alone so far, and the state of its store after a change."""
    options = NodeOptions(
        name="node1",
        advertise=IPv4Address("192.0.2.1"),
        store=f"sqlite:{tmp_path / 'cluster.db'}",
        data_dir=tmp_path,
        run_dir=tmp_path,
    )
    return options, asyncio.run(changed(options, change))


async def changed(options: NodeOptions, change: Change) -> State:
    store = await open_store(options.place)
    try:
        return await store.update(change)
    finally:
        await store.close()


def test_what_one_machine_has_becomes_the_cluster(tmp_path: Path) -> None:
    alone = Node(id=NodeId("idof1"), name="node1", address=IPv4Address("192.0.2.1"))
    options, before = made(tmp_path, lambda state: admit.join(state, alone, NOW))
    assert before.cluster is not None
    token = tokens.parse(asyncio.run(enrol._found(options, 2377)))
    after = asyncio.run(changed(options, lambda state: state))
    trust, kept, known = after.trust, Place(tmp_path).load(), member.member(tmp_path)
    assert trust is not None and known is not None
    assert (after.cluster, after.nodes, trust.cluster) == (before.cluster, before.nodes, before.cluster.id)
    assert (token.secret, tokens.is_of(token, kept.roots[0])) == (trust.tokens[Role.WORKER], True)
    assert certificates.read(kept.chain).subject == Subject("idof1", Role.MANAGER, before.cluster.id)
    assert (known.role, known.store, known.membership.node_id) == (Role.MANAGER, options.store, "idof1")

    with pytest.raises(Conflict, match=f"^the store holds cluster {trust.cluster}, which can be joined already$"):
        asyncio.run(enrol._found(options, 2377))
    assert Place(tmp_path).load() == kept
    asyncio.run(enrol._end_trust(options))
    assert asyncio.run(changed(options, lambda state: state)).trust is None


def test_a_new_cluster_bears_the_id_that_its_certificates_name(tmp_path: Path) -> None:
    options, _ = made(tmp_path, lambda state: state)
    asyncio.run(enrol._found(options, 2377))
    known = member.member(tmp_path)
    assert known is not None
    node = Node(id=NodeId(known.membership.node_id), name="node1", address=IPv4Address("192.0.2.1"))
    state = asyncio.run(changed(options, lambda state: admit.join(state, node, NOW)))
    assert state.cluster is not None and state.cluster.id == known.membership.cluster
