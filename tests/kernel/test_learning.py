"""What packets teach a map, in a real kernel: who is remembered, for how long, and what the daemon makes of it."""

import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from routemesh import names
from routemesh.errors import KernelError
from routemesh.kernel.tables.nft import Nft
from routemesh.labels.balance import MAX_AFFINITY_S
from routemesh.language.nft import NFT_ITEMS
from routemesh.model import Balancing, Scheduler, Weights
from routemesh.nodeplan import (
    HOST,
    Assign,
    Chain,
    Create,
    Element,
    Hook,
    Item,
    Jhash,
    Learn,
    Lookup,
    Map,
    Match,
    Numgen,
    Rule,
    Table,
)
from routemesh.plan import plan
from routemesh.plan.engines import nftbalance
from routemesh.plan.view import view
from routemesh.sight import rulesets
from routemesh.values import replace
from routemesh.walk import jhash
from tests.kernel.private import Private, private_netns
from tests.property.clusters import CAPABILITIES
from tests.property.removal import two_nodes
from tests.support import wait_until

PORT = 5000
WAYS = 7
HASH = Jhash(field="ip saddr", modulus=WAYS, seed=0x1234)
TURNS = Numgen(WAYS)
CLIENTS = Map("ip", "clients", ("ip", "mark"), "mark", learns=100)
CHOICES = Map("ip", "choices", ("index",), "mark")
ONLY_OURS = Match("ip saddr", "127.1.0.0/16")
FIRST = IPv4Address("127.1.0.1")


def learning(number: Jhash | Numgen, *, most: int = CLIENTS.learns, timeout_s: int = 3600) -> list[Item]:
    """A table that remembers the number drawn for each source address in 127.1.0.0/16."""
    rules: tuple[Rule, ...] = (
        (ONLY_OURS, Assign("ct mark", Lookup((number,), "choices"))),
        (ONLY_OURS, Learn(map="clients", key=("ip saddr", "meta mark"), value="ct mark", timeout_s=timeout_s)),
    )
    choices = [Element("ip", "choices", (way,), way + 1) for way in range(WAYS)]
    return [
        Table("ip"),
        replace(CLIENTS, learns=most),
        CHOICES,
        Chain("ip", "input", Hook("filter", "input", 0), rules),
        *choices,
    ]


@pytest.fixture
def space() -> Iterator[Private]:
    with private_netns() as made:
        yield made


@pytest.fixture
def nft(space: Private) -> Iterator[Nft]:
    with closing(Nft(space.name, space.enter)) as opened:
        yield opened


def create(nft: Nft, items: list[Item]) -> None:
    assert nft.apply([Create(HOST, item) for item in items]) == ()


def call(space: Private, *sources: IPv4Address) -> None:
    """A datagram from each address, from a port of its own."""
    with space.enter():
        for source in sources:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((str(source), 0))
                sender.sendto(b"hello", ("127.0.0.1", PORT))


def clients(nft: Nft) -> dict[IPv4Address, int]:
    found = {element.key[0]: element.value for element in nft.learned()}
    assert all(isinstance(who, IPv4Address) and isinstance(what, int) for who, what in found.items())
    return found  # type: ignore[return-value]


def test_the_walker_hashes_as_the_kernel_does(space: Private, nft: Nft) -> None:
    create(nft, learning(HASH))
    sources = [FIRST + number * 259 for number in range(90)]
    call(space, *sources)
    assert clients(nft) == {source: jhash.index(source.packed, WAYS, HASH.seed) + 1 for source in sources}


def test_who_is_known_stays_and_who_is_not_is_learned(space: Private, nft: Nft) -> None:
    create(nft, learning(TURNS))
    call(space, FIRST, FIRST + 1, FIRST, FIRST + 2)
    assert clients(nft) == {FIRST: 1, FIRST + 1: 2, FIRST + 2: 4}


def test_what_was_learned_is_no_part_of_what_is_read(space: Private, nft: Nft, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = learning(HASH)
    create(nft, wanted)
    call(space, FIRST)
    with closing(Nft(space.name, space.enter)) as fresh:
        assert set(fresh.read()) == set(wanted)
        assert clients(fresh).keys() == {FIRST}
    assert capfd.readouterr() == ("", "")


def test_who_looks_at_everything_sees_what_was_learned_too(space: Private, nft: Nft, capfd: pytest.CaptureFixture[str]) -> None:
    create(nft, learning(TURNS))
    call(space, FIRST)
    with space.enter():
        found = rulesets.everything(nf_tables=True)
    assert {*learning(TURNS), Element("ip", "clients", (FIRST, 0), 1)} <= set(found.items)
    assert (found.unread, capfd.readouterr()) == ([], ("", ""))


@pytest.mark.parametrize("affinity_s", [0, 1, 93_784, MAX_AFFINITY_S])
@pytest.mark.parametrize("scheduler", sorted(nftbalance.SCHEDULERS))
def test_every_way_of_balancing_reads_back_as_planned(space: Private, nft: Nft, scheduler: Scheduler, affinity_s: int) -> None:
    state = two_nodes()
    how = Balancing(scheduler=scheduler, affinity_s=affinity_s, weights=Weights(slots={1: 3}))
    services = {key: replace(one, spec=replace(one.spec, balancing=how)) for key, one in state.services.items()}
    seen = view(replace(state, services=services), min(state.nodes))
    planned: list[Item] = [
        item for item in plan(seen, CAPABILITIES).namespaces[names.SANDBOX].values() if isinstance(item, NFT_ITEMS)
    ]
    assert {item.name for item in planned if isinstance(item, Chain)} >= {"FWM-256", "FWM-257"}
    create(nft, planned)
    with closing(Nft(space.name, space.enter)) as fresh:
        assert set(fresh.read()) == set(planned)


def test_a_full_map_learns_nobody_and_stops_nothing(space: Private, nft: Nft) -> None:
    create(nft, learning(TURNS, most=2))
    call(space, *(FIRST + number for number in range(5)))
    assert clients(nft) == {FIRST: 1, FIRST + 1: 2}
    call(space, FIRST)
    assert clients(nft) == {FIRST: 1, FIRST + 1: 2}


def test_who_is_silent_is_forgotten(space: Private, nft: Nft) -> None:
    create(nft, learning(TURNS, timeout_s=1))
    call(space, FIRST)
    wait_until(lambda: not clients(nft), 10, "the end of the time-out")


def test_entries_are_taken_out_one_by_one_and_all_else_stays(space: Private, nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, learning(HASH))
    call(space, FIRST, FIRST + 1, FIRST + 2)
    nft.read()
    monkeypatch.setattr(nft, "_list", lambda _: pytest.fail("our own deletion is known, nothing need be read"))
    gone = [element for element in nft.learned() if element.key[0] == FIRST]
    nft.unlearn(gone)
    assert clients(nft).keys() == {FIRST + 1, FIRST + 2}
    nft.unlearn(())


def test_entries_that_are_gone_already_do_not_keep_the_others(space: Private, nft: Nft) -> None:
    create(nft, learning(HASH))
    call(space, FIRST, FIRST + 1, FIRST + 2)
    known = nft.learned()
    space.run("nft", "delete", "element", "ip", "routemesh", "clients", f"{{ {FIRST} . 0 }}")
    nft.unlearn(known)
    assert nft.learned() == ()


def test_an_entry_that_can_not_be_taken_out_is_an_error(space: Private, nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, learning(HASH))
    call(space, FIRST)
    monkeypatch.setattr(nft, "_execute", lambda _: "no such luck")
    with pytest.raises(KernelError, match=r"delete element ip routemesh clients .*: no such luck"):
        nft.unlearn(nft.learned())


def test_a_map_of_another_type_that_learns_is_read_as_such_and_has_no_entries(space: Private, nft: Nft) -> None:
    space.nft("add table ip routemesh\nadd map ip routemesh other { type inet_service : mark; size 5; flags dynamic,timeout; }")
    assert set(nft.read()) == {Table("ip"), Map("ip", "other", ("port",), "mark", learns=5)}
    assert nft.learned() == ()
