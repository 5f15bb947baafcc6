"""Every reason has words of its own, and a name with fields in JSON."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from routemesh.model import Protocol
from routemesh.reasons import words
from routemesh.reasons.causes import AnswerLost, ByOthers, Lost, NotLed, Reason, WrongTaker, end_of
from routemesh.reasons.ends import End, NobodyListens, NoFdbEntry, RuleDrops, TooLarge, Unheard, root
from routemesh.reasons.events import Event, Stopped, chain_of
from routemesh.reasons.named import Named, kind_of, named
from routemesh.reasons.unclear import Doubt
from routemesh.snapshot import Endpoint, Place

MAC = "02:42:0a:00:00:05"
DROPPED = RuleDrops("filter", "input")


def sample(hint: Any, number: int) -> Any:
    """A value of a type hint; those of another number differ."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return (
            DROPPED
            if DROPPED.__class__ in get_args(hint)
            else sample(next(a for a in get_args(hint) if a is not NoneType), number)
        )
    if origin is Literal:
        return get_args(hint)[number % len(get_args(hint))]
    if origin is tuple:
        return (sample(get_args(hint)[0], number), sample(get_args(hint)[0], number + 1))
    values = {
        str: f"word{number}",
        int: 1000 + number,
        bool: bool(number % 2),
        IPv4Address: IPv4Address(number),
        IPv4Network: IPv4Network((number, 32)),
        Endpoint: Endpoint(IPv4Address(number), 80),
        Place: Place("node1", f"netns{number}"),
        Protocol: Protocol.TCP,
    }
    return values[hint] if hint in values else made(hint)


def made(kind: type[msgspec.Struct]) -> Any:
    hints = get_type_hints(kind, vars(__import__(kind.__module__, fromlist=["_"])))
    return kind(**{name: sample(hints[name], number) for number, name in enumerate(kind.__struct_fields__)})


def kinds() -> Iterator[tuple[Any, Any]]:
    for tell, union in ((words.of_end, End), (words.of_doubt, Doubt), (words.of_event, Event), (words.of_cause, Reason)):
        yield from ((tell, kind) for kind in get_args(union))


def test_every_reason_is_told_in_words_of_its_own() -> None:
    told: dict[str, str] = {}
    for tell, kind in kinds():
        text = tell(made(kind))
        assert text
        assert "None" not in text, text
        assert told.setdefault(text, kind.__name__) == kind.__name__, text
    assert len(told) > 70


@pytest.mark.parametrize("kind", [kind for _, kind in kinds()])
def test_json_has_the_name_and_every_field(kind: type[msgspec.Struct]) -> None:
    reason = made(kind)
    raw = json.loads(msgspec.json.encode(named(reason)))
    assert raw["name"] == kind.__name__
    assert raw["fields"].keys() == set(kind.__struct_fields__)
    assert msgspec.convert(raw, Named) == named(reason)
    assert named(reason).is_a(kind, str)


def test_what_is_within_a_reason_is_named_too() -> None:
    lost = AnswerLost(TooLarge(1500, "eth0", 1400))
    assert named(lost).fields == {"end": {"name": "TooLarge", "fields": {"size_bytes": 1500, "link": "eth0", "mtu_bytes": 1400}}}


def test_reasons_that_differ_in_numbers_and_macs_alone_are_of_one_kind() -> None:
    assert kind_of(Lost(NoFdbEntry(MAC, "vxlan0"))) == kind_of(Lost(NoFdbEntry("02:42:0a:00:00:09", "vxlan0")))
    assert kind_of(Lost(NoFdbEntry(MAC, "vxlan0"))) != kind_of(Lost(NoFdbEntry(MAC, "vxlan1")))
    assert kind_of(Lost(NobodyListens(Protocol.TCP, 80))) == kind_of(Lost(NobodyListens(Protocol.TCP, 81)))
    assert kind_of(Lost(NobodyListens(Protocol.TCP, 80))) != kind_of(Lost(NobodyListens(Protocol.UDP, 80)))


def test_the_end_is_found_whatever_stands_around_it() -> None:
    nobody = NobodyListens(Protocol.TCP, 80)
    assert root(Unheard(Unheard(nobody, None), None)) == nobody
    assert end_of(NotLed(80, Protocol.TCP, ByOthers(Lost(Unheard(nobody, None)), "ufw", "iptables filter", ""))) == nobody
    assert end_of(WrongTaker("sshd", "web")) is None
    assert (chain_of(Stopped(DROPPED, refused=False)), chain_of(Stopped(nobody, refused=True))) == ("input", "")


PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"


def rows(union: Any) -> Iterator[str]:
    """A line of the page's tables for each kind."""
    for kind in get_args(union):
        said = " ".join((kind.__doc__ or "").split())
        yield f"| `{kind.__name__}` | {', '.join(f'`{name}`' for name in kind.__struct_fields__)} | {said} |"


@pytest.mark.parametrize("union", [Reason, End, Doubt, Event])
def test_the_page_has_every_reason_with_its_fields(union: Any) -> None:
    page = PAGE.read_text()
    missing = [row for row in rows(union) if row not in page]
    assert not missing, "add to docs/reasons.md:\n" + "\n".join(missing)
