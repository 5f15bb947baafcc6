"""A trace's pure parts: reading packets, and holding what was seen against what was predicted."""

import struct
from ipaddress import IPv4Address

import pytest

from routemesh.errors import UserError
from routemesh.explain.nouns import VERSION, Explanation, Kind, Outcome, Question, Step, Way
from routemesh.explain.text import Screen
from routemesh.model import Protocol
from routemesh.reasons.causes import Untold
from routemesh.reasons.events import Accepted, Bridged, Event, Rewritten, Routed, chain_of
from routemesh.reasons.named import named
from routemesh.reasons.unclear import ItemUnknown
from routemesh.reasons.words import of_event
from routemesh.sight.packets import parse
from routemesh.sightings import Headers, How, Observation, Opening, SeenPacket, Sent, Wanted
from routemesh.trace import every as every_way
from routemesh.trace.compare import compare
from routemesh.trace.nouns import Trace, Traced
from routemesh.trace.text import text
from routemesh.values import replace

CLIENT, NODE, SANDBOX = "192.168.200.100:23456", "192.168.200.10:8080", "172.18.0.2:8080"
WANTED = Wanted(protocol="tcp", port=23456, sources=("192.168.200.100",), ports=(80, 8080), published=8080)
START = 1000.0


# --- packets ------------------------------------------------------------------------------------------------------


def ip(source: str, destination: str, protocol: int, payload: bytes, number: int = 7) -> bytes:
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), number, 0, 64, protocol, 0) + ends + payload


def tcp(source: int, destination: int, flags: int = 0x02) -> bytes:
    return struct.pack(">HHIIBBHHH", source, destination, 42, 0, 0x50, flags, 0, 0, 0)


def udp(source: int, destination: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


SYN = ip("192.168.200.100", "192.168.200.10", 6, tcp(23456, 8080))


def test_the_probe_and_its_answer() -> None:
    asked, answered = parse(SYN, WANTED), parse(ip("192.168.200.10", "192.168.200.100", 6, tcp(8080, 23456, 0x12)), WANTED)
    assert asked is not None and answered is not None
    assert (asked.headers.source, asked.headers.destination) == (CLIENT, NODE)
    assert (asked.flags, asked.back, asked.first, asked.port) == ("syn", False, True, 23456)
    assert (answered.flags, answered.back, answered.first, answered.port) == ("syn ack", True, True, 23456)


@pytest.mark.parametrize(
    "data",
    [
        ip("192.168.200.100", "192.168.200.10", 6, tcp(23457, 8080)),
        ip("192.168.200.101", "192.168.200.10", 6, tcp(23456, 8080)),
        ip("192.168.200.100", "192.168.200.10", 6, tcp(23456, 443)),
        ip("192.168.200.100", "192.168.200.10", 17, udp(23456, 8080)),
        ip("192.168.200.100", "192.168.200.10", 50, bytes(20)),
        SYN[:10],
        b"\x60" + bytes(60),
    ],
)
def test_what_is_somebody_elses_is_passed_over(data: bytes) -> None:
    assert parse(data, WANTED) is None


def test_what_a_tunnel_carries_counts() -> None:
    vxlan = struct.pack(">II", 0x08000000, 4096 << 8)
    found = parse(ip("192.168.200.10", "192.168.200.11", 17, udp(50000, 4789, vxlan + bytes(14) + SYN)), WANTED)
    assert found is not None
    assert (found.headers.source, found.headers.vni, found.port, found.first) == ("192.168.200.10:50000", 4096, 23456, True)
    other = ip("192.168.200.101", "192.168.200.10", 6, tcp(23456, 8080))
    assert parse(ip("192.168.200.10", "192.168.200.11", 17, udp(50000, 4789, vxlan + bytes(14) + other)), WANTED) is None


def test_an_error_about_the_probe_is_an_answer() -> None:
    found = parse(ip("192.168.200.10", "192.168.200.100", 1, bytes((3, 3)) + bytes(6) + SYN), WANTED)
    assert found is not None
    assert (found.back, found.first, found.flags, found.headers.source) == (True, True, "icmp", NODE)


def test_of_live_connections_everybody_counts() -> None:
    assert parse(SYN, Wanted(protocol="tcp", port=0, sources=(), ports=(8080,), published=8080)) is not None


def test_what_is_waited_for_live_comes_to_the_node_itself() -> None:
    assert seen(0, "in", "eth0", (CLIENT, NODE)).opens(Opening(destination=NODE))
    assert not seen(0, "in", "eth0", (CLIENT, SANDBOX)).opens(Opening(destination=NODE))
    assert not seen(0, "in", "eth1", (CLIENT, NODE), "ingress_sbox").opens(Opening(destination=NODE))
    assert not seen(0, "out", "eth0", (NODE, CLIENT), back=True).opens(Opening(destination=NODE))


# --- beside what was predicted --------------------------------------------------------------------------------------


def headers(source: str, destination: str) -> Headers:
    return Headers(protocol="tcp", source=source, destination=destination)


def step(
    device: str, event: Event, kind: Kind, before: tuple[str, str], after: tuple[str, str] | None = None, netns: str = ""
) -> Step:
    return Step(
        node="node1",
        namespace=netns,
        place=f"node1: {netns}" if netns else "node1",
        device=device,
        what=of_event(event),
        event=named(event),
        tool="nft" if kind == "rule" else "",
        chain=chain_of(event),
        kind=kind,
        rule="",
        show="nft list chain ip routemesh x" if kind == "rule" else "",
        before=headers(*before),
        after=headers(*(after or before)),
    )


DNAT = Rewritten("nat", "DOCKER-INGRESS", "dnat", IPv4Address("172.18.0.2"), None)
THERE = (
    step(
        "eth0",
        DNAT,
        "rule",
        (CLIENT, NODE),
        (CLIENT, SANDBOX),
    ),
    step("veth1", Bridged("docker_gwbridge", "veth1"), "fdb", (CLIENT, SANDBOX)),
    step("eth1", Accepted(Protocol.TCP, 8080), "socket", (CLIENT, SANDBOX), netns="ingress_sbox"),
)
BACK = (step("eth1", Routed("eth1", IPv4Address("172.18.0.1")), "route", (SANDBOX, CLIENT), netns="ingress_sbox"),)
ARRIVES = Way(share=(1, 1), estimated=False, there=THERE, back=BACK, arrives=True, end="reaches node1", task="web.1")
FAILS = replace(ARRIVES, there=THERE[:1], back=(), arrives=False, end="ends in node1: filter forward drops it", task="")


def predicted(*ways: Way) -> Explanation:
    asked = Question(
        client="a client",
        client_node="",
        client_namespace="",
        source=CLIENT,
        destination=NODE,
        protocol="tcp",
        node="node1",
        port=8080,
        service="web",
    )
    outcome: Outcome = "reaches" if all(way.arrives for way in ways) else "broken"
    return Explanation(
        version=VERSION,
        question=asked,
        outcome=outcome,
        verdict="",
        reached=(),
        causes=(),
        ways=ways,
    )


def seen(
    at: float, how: How, device: str, ends: tuple[str, str], netns: str = "", *, back: bool = False, **more: str
) -> SeenPacket:
    return SeenPacket(
        namespace=netns,
        device=device,
        at=START + at,
        how=how,
        headers=headers(*ends),
        flags="syn ack" if back else "syn",
        back=back,
        first=True,
        identity="1",
        port=23456,
        **more,  # type: ignore[arg-type]
    )


WHOLE = (
    seen(0.001, "in", "eth0", (CLIENT, NODE)),
    seen(0.001, "hook", "eth0", (CLIENT, NODE), chain="prerouting", edge="begins"),
    seen(0.001, "rule", "eth0", (CLIENT, NODE), chain="ip routemesh DOCKER-INGRESS", rule="dnat to 172.18.0.2", verdict="accept"),
    seen(0.002, "out", "veth1", (CLIENT, SANDBOX)),
    seen(0.003, "in", "eth1", (CLIENT, SANDBOX), "ingress_sbox"),
    seen(0.004, "out", "eth1", (SANDBOX, CLIENT), "ingress_sbox", back=True),
)
ANSWERED = Sent(outcome="answered", what="the connection was accepted", at=START, took_s=0.005)
SILENCE = Sent(outcome="silence", what="nothing came within 2 s", at=START, took_s=2.0)


def traced(prediction: Explanation, sent: Sent, *found: SeenPacket, namespaces: tuple[str, ...] = ("", "ingress_sbox")) -> Trace:
    return compare(Traced(prediction, sent, (Observation(node="node1", seen=found, connections=(), namespaces=namespaces),)))


def test_all_as_predicted() -> None:
    found = traced(predicted(ARRIVES), ANSWERED, *WHOLE)
    assert [hop.mark for hop in found.hops] == ["seen"] * 4
    assert [round(hop.at_s or 0, 3) for hop in found.hops] == [0.001, 0.002, 0.003, 0.004]
    assert (found.agrees, found.arrives, found.lost, found.status) == (True, True, None, 0)
    assert found.verdict == "node1:8080/tcp reached web.1 and the answer came back in 5.000 ms, as predicted"


def test_lost_on_the_way_is_shouted_with_the_last_place_and_the_first_without_it() -> None:
    found = traced(predicted(ARRIVES), SILENCE, *WHOLE[:3])
    assert [hop.mark for hop in found.hops] == ["seen", "missing", "missing", "missing"]
    assert found.last is not None and found.lost is not None
    assert (found.last.device, found.lost.device, found.status) == ("eth0", "veth1", 3)
    assert "NOT AS PREDICTED" in found.verdict
    assert "and none of the 2 steps that follow" in text(found)


def test_a_drop_that_was_seen_is_named() -> None:
    dropped = seen(0.001, "rule", "eth0", (CLIENT, SANDBOX), chain="ip fw c", rule="tcp dport 8080 drop", verdict="drop")
    found = traced(predicted(ARRIVES), SILENCE, *WHOLE[:3], dropped)
    assert found.drops == ("node1: ip fw c: tcp dport 8080 drop",)
    assert "dropped by node1: ip fw c" in found.verdict


def test_broken_as_predicted_is_agreement() -> None:
    found = traced(predicted(FAILS), SILENCE, *WHOLE[:3])
    assert (found.agrees, found.arrives, found.status) == (True, False, 3)
    assert "fails as predicted" in found.verdict


def test_an_answer_that_was_not_to_come_is_shouted() -> None:
    found = traced(predicted(FAILS), ANSWERED, *WHOLE)
    assert (found.agrees, found.status) == (False, 3)
    assert "NOT AS PREDICTED: the connection was accepted" in found.verdict


def test_further_than_predicted_is_shouted() -> None:
    found = traced(predicted(FAILS), SILENCE, *WHOLE[:5])
    assert not found.agrees
    assert found.strays[0].namespace == "ingress_sbox"


def test_a_rule_that_did_not_act_is_missed_though_the_packet_went_on() -> None:
    found = traced(predicted(ARRIVES), ANSWERED, *WHOLE[:2], *WHOLE[3:])
    assert [hop.mark for hop in found.hops] == ["missing", "seen", "seen", "seen"]
    assert "did not happen" in found.verdict


def test_where_rules_are_not_traced_the_link_will_do() -> None:
    found = traced(predicted(ARRIVES), ANSWERED, WHOLE[0], *WHOLE[3:])
    assert (found.agrees, [hop.mark for hop in found.hops]) == (True, ["seen"] * 4)


def test_a_later_packet_is_followed_where_the_answer_is_missing() -> None:
    data = [replace(packet, first=False, flags="ack psh", identity="2") for packet in (WHOLE[0], WHOLE[3])]
    found = traced(predicted(ARRIVES), SILENCE, *WHOLE, *data)
    assert (found.agrees, found.lost) == (False, None)
    assert "a later packet was last seen in node1 veth1 after 2.000 ms" in found.verdict


def test_where_rules_are_not_traced_a_predicted_drop_leaves_nothing_to_see() -> None:
    dropped = replace(THERE[1], what="dropped: filter FORWARD drops it", kind="rule", failed=True)
    fails = replace(FAILS, there=(THERE[0], replace(THERE[1], what="route dev veth1", kind="route"), dropped))
    found = traced(predicted(fails), SILENCE, WHOLE[0])
    assert (found.agrees, [hop.mark for hop in found.hops]) == (True, ["seen", "unwatched", "unwatched"])
    assert not traced(predicted(fails), SILENCE).agrees


def test_an_answer_that_never_left_is_the_tasks_own() -> None:
    found = traced(predicted(ARRIVES), SILENCE, *WHOLE[:5])
    assert "it got to node1: ingress_sbox, out of which no answer came" in found.verdict


def test_where_nobody_looked_nothing_is_missed() -> None:
    found = traced(predicted(ARRIVES), ANSWERED, *WHOLE[:4], namespaces=("",))
    assert [hop.mark for hop in found.hops] == ["seen", "seen", "unwatched", "unwatched"]
    assert found.agrees


def test_the_way_is_the_one_that_was_taken() -> None:
    other = replace(ARRIVES, there=(*THERE[:2], replace(THERE[2], namespace="elsewhere")), back=(), task="web.2")
    assert traced(predicted(other, ARRIVES), ANSWERED, *WHOLE).way == 1
    assert traced(predicted(ARRIVES, other), ANSWERED, *WHOLE).way == 0


def test_text_is_plain_and_fits_the_screen() -> None:
    found = traced(predicted(ARRIVES), ANSWERED, *WHOLE)
    assert "\x1b" not in text(found)
    assert "\x1b[32;1m✓" in text(found, Screen(colour=True, width=100))


# --- what can't be predicted, and several ways ------------------------------------------------------------------------


UNTOLD = replace(
    FAILS,
    there=(replace(THERE[0], failed=True),),
    end="can't be told in node1: a rule with -m carrots",
    reason=named(Untold(ItemUnknown("carrots"))),
)


@pytest.mark.parametrize(("sent", "status"), [(ANSWERED, 4), (SILENCE, 3)])
def test_what_was_not_predicted_is_neither_as_predicted_nor_not(sent: Sent, status: int) -> None:
    found = traced(predicted(UNTOLD), sent, *WHOLE[:2])
    assert (found.agrees, found.status) == (None, status)
    assert "AS PREDICTED" not in found.verdict and "as predicted" not in found.verdict
    assert found.verdict.startswith(f"node1:8080/tcp: {sent.what}, and it was last seen in node1 eth0 after")
    assert found.verdict.endswith("what becomes of it was not predicted: it can't be told in node1: a rule with -m carrots")


def test_what_was_lost_before_anything_became_unclear_is_not_as_predicted() -> None:
    found = traced(predicted(replace(UNTOLD, there=(*THERE[:2], replace(THERE[2], failed=True)))), SILENCE, WHOLE[0])
    assert (found.agrees, found.status) == (False, 3)
    assert "NOT AS PREDICTED" in found.verdict


def test_where_it_was_seen_off_its_way_is_told_and_not_nowhere() -> None:
    """As where a rule takes it out of connection tracking: no predicted step is met."""
    elsewhere = seen(0.001, "in", "eth0", (CLIENT, "192.168.200.99:1"))
    found = traced(predicted(ARRIVES), SILENCE, elsewhere)
    assert found.last is not None and found.last.device == "eth0"
    assert "nowhere" not in text(found) and "last seen in node1 eth0 after 1.000 ms" in found.verdict
    assert "it was seen nowhere" in traced(predicted(ARRIVES), SILENCE).verdict


def test_all_ways_together_are_one_table_and_the_worst_status() -> None:
    other = replace(ARRIVES, there=(*THERE[:2], replace(THERE[2], namespace="elsewhere")), back=(), task="web.2")
    good, lost = traced(predicted(ARRIVES, other), ANSWERED, *WHOLE), traced(predicted(ARRIVES, other), SILENCE, *WHOLE[:3])
    every = every_way.together([good, good], every_way.sought(good.prediction, ""))
    assert (every.missed, every.status) == (("web.2",), 4)
    assert every.verdict == "node1:8080/tcp: web.1 answered, as predicted; web.2 not met by 2 connections"
    assert [row[0] for row in every_way.rows(every)] == ["web.1", "web.2"]
    bad = every_way.together([good, lost], every_way.sought(good.prediction, "web.1"))
    assert (bad.missed, bad.status, [each.arrives for each in bad.traces]) == ((), 3, [False])
    assert list(every_way.amiss(bad)) == [lost.verdict]


def test_a_task_to_which_no_way_leads_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"no way from node1:8080/tcp leads to a task web\.7; they lead to web\.1$"):
        every_way.sought(predicted(ARRIVES), "web.7")
    assert every_way.sought(predicted(FAILS), "web.7") == {FAILS.end}, "where no task is chosen, what there is"
