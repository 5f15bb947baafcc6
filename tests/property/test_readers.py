"""Every reader of what others made: whatever the bytes are, it gives nouns that can be stored and shown, or says that it can't.

The samples are well made, and then damaged: bits flipped, pieces cut out, put in twice, made longer, or made of bytes that are no
text. What a reader may raise is its own error; anything else would end or stall the loop that asked.
"""

import errno
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from routemesh import recording
from routemesh.codec import encoded
from routemesh.codec.plain import plain
from routemesh.kernel import listeners
from routemesh.kernel.netlink import (
    Reply,
    as_text,
    attribute,
    conntrack,
    entries,
    entryreader,
    ipvs,
    links,
    nest,
    parse,
    parse_list,
    replies,
    text,
    u8,
    u32,
)
from routemesh.kernel.tables import learned, nft
from routemesh.language import nftjson, xtsave
from routemesh.legible import decoded, one_line, storable, visible, visible_json
from routemesh.model import Protocol
from routemesh.nodeplan import Map
from routemesh.runtime.process.supervision import Init
from routemesh.sight import packets
from routemesh.sightings import Wanted

NAMES = {1: "lo", 3: "br0", 7: "eth0"}
RECORDINGS = Path(__file__).parents[1] / "data" / "swarm"
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


# --- damage ------------------------------------------------------------------------------------------------------

pieces = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x04\0\0\0", b"\x03\0", b"\xff", b"\x1b[2J", b"\xc3\x28", b"\0" * 16]),
)


@st.composite
def damaged(draw: st.DrawFn, sample: bytes) -> bytes:
    """The sample with up to four places changed."""
    found = bytearray(sample)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(found)))
        end = min(len(found), start + draw(st.integers(0, 9)))
        found[start:end] = draw(pieces)
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.booleans()) else found)


def from_samples(samples: Mapping[str, bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(sorted(samples)).flatmap(lambda name: damaged(samples[name]))


# --- netlink -----------------------------------------------------------------------------------------------------

ADDRESS = bytes((10, 0, 0, 2))
TUPLE = nest(1, attribute(1, ADDRESS), attribute(2, ADDRESS)) + nest(
    2, u8(1, 6), attribute(2, b"\x1f\x90"), attribute(3, b"\0\x50")
)
LINK = struct.pack("=BxHiII", 0, 1, 7, 1, 0)
MESSAGES: Mapping[str, bytes] = {
    "link": LINK
    + text(3, "eth0")
    + u32(4, 1500)
    + attribute(1, bytes(6))
    + nest(18, text(1, "vxlan"), nest(2, u32(1, 4096), attribute(4, ADDRESS), attribute(15, b"\x12\xb5")))
    + nest(26, nest(2, attribute(1, b"".join(struct.pack("=I", each) for each in range(33)))))
    + nest(12, u8(8, 1), u8(9, 1))
    + u32(5, 3),
    "address": struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 7) + attribute(1, ADDRESS) + attribute(2, ADDRESS),
    "route": struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, 254, 82, 0, 1, 0)
    + attribute(1, bytes((10, 0, 0, 0)))
    + u32(4, 7)
    + attribute(5, ADDRESS),
    "rule": struct.pack("=BBBBBxxBI", socket.AF_INET, 24, 24, 0, 254, 1, 0)
    + attribute(1, ADDRESS)
    + text(3, "eth0")
    + u32(6, 82)
    + u8(21, 82),
    "neighbour": struct.pack("=BxxxiHBB", socket.AF_INET, 7, 0x80, 0, 1) + attribute(1, ADDRESS) + attribute(2, bytes(6)),
    "fdb": struct.pack("=BxxxiHBB", 7, 7, 0x80, 0, 1) + attribute(1, ADDRESS) + attribute(2, bytes(6)) + u32(9, 3),
    "connection": nest(1, TUPLE) + nest(2, TUPLE) + attribute(3, bytes(4)) + nest(4, nest(1, u8(1, 3))) + attribute(12, bytes(4)),
    "service": attribute(1, b"\x02\0")
    + u32(5, 256)
    + text(6, "rr")
    + attribute(7, bytes(8))
    + u32(8, 0)
    + attribute(9, b"\xff" * 4),
    "destination": attribute(1, ADDRESS.ljust(16, b"\0"))
    + attribute(2, b"\0\x50")
    + b"".join(u32(kind, 0) for kind in (3, 4, 5, 6)),
    "chain": bytes(4) + text(1, "routemesh") + text(3, "egress") + nest(4, text(3, "eth0")),
    "element": nest(1, attribute(1, ADDRESS + bytes(4))) + nest(2, attribute(1, ADDRESS)),
    "socket": struct.pack("=4x2s2x16s44xI", b"\x1f\x90", ADDRESS.ljust(16, b"\0"), 4711) + u8(11, 0),
}  # fmt: skip
KINDS = (
    entries.NEW_ADDRESS, entries.DELETE_ADDRESS, entries.NEW_ROUTE, entries.DELETE_ROUTE, entries.NEW_NEIGHBOUR,
    entries.DELETE_NEIGHBOUR, entries.NEW_RULE, entries.DELETE_RULE,
)  # fmt: skip
LEARNING = Map("ip", "clients", ("ip", "mark"), "mark", learns=1000)

READERS: Mapping[str, Callable[[bytes], object]] = {
    "links.read_row": links.read_row,
    "links.read_settings": links.read_settings,
    "links.read_port": links.read_port,
    "links.link_of": links.link_of,
    "entryreader.address": lambda data: entryreader.address(data, NAMES),
    "entryreader.route": lambda data: entryreader.route(data, NAMES),
    "entryreader.rule": entryreader.rule,
    "entryreader.neighbour": lambda data: entryreader.neighbour(data, NAMES),
    "entries.read": lambda data: [entries.read(Reply(kind, 0, 0, 0, data), NAMES, 82) for kind in KINDS],
    "entries.link_of": lambda data: [entries.link_of(Reply(kind, 0, 0, 0, data)) for kind in KINDS],
    "conntrack": lambda data: conntrack._entry(parse(data)),
    "conntrack to flush": lambda data: conntrack._flow(parse(data), 6),
    "ipvs service": lambda data: ipvs._service(parse(data)),
    "ipvs destination": lambda data: ipvs._destination(256, parse(data)),
    "nft chain": nft.chain_device,
    "nft map": lambda data: learned._learning(parse(data)),
    "nft element": lambda data: learned._element(LEARNING, parse(data)),
    "sock_diag": lambda data: [listeners._waiting(Protocol.TCP, family, data) for family in (2, 10)],
}


@pytest.mark.parametrize("reader", READERS)
@MANY
@given(st.one_of(from_samples(MESSAGES), st.binary(max_size=80)))
def test_a_reader_of_netlink_gives_what_can_be_told_or_says_that_it_does_not_understand(reader: str, data: bytes) -> None:
    try:
        found = READERS[reader](data)
    except OSError as refusal:
        assert refusal.errno == errno.EBADMSG
        assert "is not understood" in str(refusal.strerror)
        encoded(str(refusal))
    else:
        can_be_told(found)


@pytest.mark.parametrize(
    ("reader", "sample"),
    [
        ("links.read_row", "link"), ("entryreader.address", "address"), ("entryreader.route", "route"),
        ("entryreader.rule", "rule"),
        ("entryreader.neighbour", "neighbour"), ("entryreader.neighbour", "fdb"), ("conntrack", "connection"),
        ("ipvs service", "service"), ("ipvs destination", "destination"), ("nft chain", "chain"), ("nft element", "element"),
        ("sock_diag", "socket"),
    ],
)  # fmt: skip
def test_the_samples_are_well_made(reader: str, sample: str) -> None:
    assert READERS[reader](MESSAGES[sample])


@MANY
@given(st.binary(max_size=200))
@example(struct.pack("=HH", 4, 1) + struct.pack("=HH", 0xFFFF, 2))
@example(b"\x01\0\x02\0")
def test_attributes_are_pieces_of_what_was_sent(data: bytes) -> None:
    """The reader ends, invents nothing, and finds what is well made in front of what is not."""
    for value in (*parse(data).values(), *parse_list(data)):
        assert value in data
    before = attribute(5, b"first") + attribute(6, b"second")
    found = parse(before + data)
    assert found.keys() >= {5, 6}
    assert list(parse_list(before + data))[:2] == [b"first", b"second"]
    encoded(as_text(data))


@MANY
@given(st.lists(st.binary(max_size=40), max_size=4), st.binary(max_size=30))
def test_messages_are_told_apart_until_one_is_no_message(bodies: list[bytes], rest: bytes) -> None:
    sent = b"".join(
        struct.pack("=IHHII", 16 + len(body), 20, 0, number, 0) + body + b"\0" * (-len(body) % 4)
        for number, body in enumerate(bodies)
    )
    found = list(replies(sent + rest))
    assert [reply.body for reply in found[: len(bodies)]] == bodies
    assert sum(16 + len(reply.body) for reply in found) <= len(sent + rest)


WANTED = Wanted(protocol="tcp", port=0, sources=(), ports=(80, 8080), published=8080)
PACKET = bytes((0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0)) + ADDRESS * 2 + b"\x80\0\0\x50" + bytes(8) + b"\x50\x02" + bytes(6)
TUNNELLED = bytes((0x45, 0, 0, 90, 0, 1, 0, 0, 64, 17, 0, 0)) + ADDRESS * 2 + b"\x80\0\x12\xb5" + bytes(12) + bytes(14) + PACKET
ERROR = bytes((0x45, 0, 0, 56, 0, 1, 0, 0, 64, 1, 0, 0)) + ADDRESS * 2 + b"\x03\x03" + bytes(6) + PACKET


@MANY
@given(from_samples({"plain": PACKET, "tunnelled": TUNNELLED, "error": ERROR}))
def test_any_packet_is_one_of_the_wanted_or_none(data: bytes) -> None:
    found = packets.parse(data, WANTED)
    if found is not None:
        can_be_told(found.seen("node1", "eth0", "in"))


# --- text --------------------------------------------------------------------------------------------------------

SAVED = b"""*nat
:PREROUTING ACCEPT [1:60]
:DOCKER-INGRESS - [0:0]
[1:60] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER-INGRESS -m comment --comment "it's \\"quoted\\""
[0:0] -A DOCKER-INGRESS -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080
-A DOCKER-INGRESS -j RETURN
COMMIT
"""


@MANY
@given(damaged(SAVED))
def test_what_iptables_save_prints_is_chains_or_a_line_that_is_named(data: bytes) -> None:
    try:
        found = xtsave.parse(data.decode(errors="replace"))
    except ValueError as refusal:
        encoded(str(refusal))
        assert str(refusal)
    else:
        can_be_told([chain.item() for chain in found])
        can_be_told(list(xtsave.every_chain(found)))
        can_be_told(list(xtsave.ours_on_a_node(found)))


LISTED: dict[str, Any] = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "routemesh", "handle": 1}},
        {"map": {"family": "ip", "name": "marks", "table": "routemesh", "type": ["inet_proto", "inet_service"], "map": "mark",
                 "elem": [[{"concat": ["tcp", 8080]}, 256]]}},
        {"chain": {"family": "ip", "table": "routemesh", "name": "c", "type": "nat", "hook": "prerouting", "prio": -100,
                   "policy": "accept"}},
        {"rule": {"family": "ip", "table": "routemesh", "chain": "c", "handle": 4, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}},
            {"counter": {"packets": 0, "bytes": 0}},
            {"dnat": {"addr": "172.18.0.2", "port": 80}}]}},
    ]
}  # fmt: skip
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def put(value: Any, at: tuple[Any, ...], what: Any) -> Any:
    """A copy of `value` with `what` at that place."""
    if not at:
        return what
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[at[0]] = put(value[at[0]], at[1:], what)
    return copied


@MANY
@given(st.sampled_from([place for place in places(LISTED) if len(place) > 1]), anything)
def test_what_nft_prints_is_items_or_one_of_the_errors_that_its_callers_expect(place: tuple[Any, ...], what: Any) -> None:
    for read in (nftjson.parse, nftjson.parse_everything):
        try:
            found = read(put(LISTED, place, what), {})
        except (LookupError, TypeError, ValueError, AttributeError):
            continue  # of which nft.py and rulesets.py make a KernelError
        can_be_told(list(found))


@MANY
@given(damaged(b"7d2b5f6e-boot\n4711 (a b) c) S 1 4711" + b" 1" * 40))
def test_any_stat_is_a_process_or_none(data: bytes) -> None:
    found = Init.parse(data.decode(errors="replace"))
    assert found is None or "\n" not in found.boot


def recorded() -> dict[str, bytes]:
    node = next(path for path in sorted(RECORDINGS.rglob("host")) if path.is_dir()).parent
    files = (path for path in sorted(node.rglob("*")) if path.suffix in {".txt", ".json"})
    return {str(path.relative_to(node)): path.read_bytes() for path in files}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_recording_is_read_as_far_as_it_goes(data: st.DataObject) -> None:
    files = recorded()
    for name in data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=3, unique=True)):
        files[name] = data.draw(damaged(files[name][:6000]))
    found = recording.cluster({"node1": {name: raw.decode(errors="replace") for name, raw in files.items()}})
    assert len(found.nodes) == 1
    can_be_told(found)


def can_be_told(found: object) -> None:
    """It goes into JSON, and so into the store, an answer and a recording; and a terminal only shows it."""
    told = encoded(plain(found) if hasattr(found, "__struct_fields__") else found)
    assert is_harmless(visible_json(told.decode()))
    json.loads(visible_json(told.decode()))


# --- what is shown -----------------------------------------------------------------------------------------------


def is_harmless(text: str) -> bool:
    return not any(
        (ord(each) < 0x20 and each not in "\n\t") or 0x7F <= ord(each) < 0xA0 or each in "\u202e\u2066" for each in text
    )


@given(st.binary())
def test_bytes_have_a_text_that_everything_holds_and_different_bytes_have_different_ones(data: bytes) -> None:
    found = decoded(data)
    encoded({"name": found})
    assert decoded(b"\xff" + data) != decoded(b"\xfe" + data)
    assert is_harmless(one_line(found))


@given(st.text(alphabet=st.characters()))
@example("\x1b[2J\x9b31m\x07\u202eabc\r\n\ud800")
def test_what_is_shown_is_only_shown(said: str) -> None:
    assert is_harmless(visible(said))
    assert is_harmless(one_line(said))
    assert "\n" not in one_line(said)
    visible(said).encode()
    encoded(storable(said))
    assert storable(said) == said or "\\ud" in storable(said)


@given(
    st.recursive(
        st.one_of(st.text(), st.integers()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
    )
)
def test_json_made_visible_means_the_same(value: Any) -> None:
    shown = visible_json(encoded(value).decode())
    assert is_harmless(shown)
    assert json.loads(shown) == json.loads(encoded(value))


def test_a_value_with_surrogates_has_a_json_text() -> None:
    assert json.loads(encoded({"a\udcff": ["b\ud800", 1, IPv4Address("10.0.0.1")]})) == {"a\\udcff": ["b\\ud800", 1, "10.0.0.1"]}
