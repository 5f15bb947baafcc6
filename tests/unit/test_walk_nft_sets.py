"""What named sets and maps of somebody else's hold, in nft 1.0.6's own JSON, and the packet that meets rules with them."""

from ipaddress import IPv4Address
from typing import Any

import pytest

from routemesh.language.nftdevices import named
from routemesh.language.nftjson import parse_everything
from routemesh.model import Protocol
from routemesh.nodeplan import HOST, NodePlan, namespace
from routemesh.walk import OUTSIDE, Delivered, Endpoint, Host, Network, Packet, UnknownRule, walk

NODE, PORT = IPv4Address("192.0.2.1"), 80
CLIENT = Endpoint(IPv4Address("198.51.100.7"), 40000)
Json = Any

SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}
DROP: list[Json] = [{"drop": None}]


def share(*rules: list[Json], sets: list[Json] | None = None) -> float:
    """How many of the packets get to the socket."""
    head = {"family": "inet", "table": "fw"}
    listed = [{kind: {**head, "name": "s", **content}} for each in sets or [] for kind, content in each.items()]
    base = {"chain": {**head, "name": "c", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}
    other = {"chain": {**head, "name": "gone"}}
    drops = {"rule": {**head, "chain": "gone", "handle": 9, "expr": DROP}}
    made = [{"rule": {**head, "chain": "c", "handle": number, "expr": rule}} for number, rule in enumerate(rules)]
    items = parse_everything({"nftables": [{"table": {"family": "inet", "name": "fw"}}, *listed, base, other, drops, *made]}, {})
    network = Network({"node1": Host(NodePlan({HOST: namespace(items)}), (NODE,))}, {("node1", HOST): {(Protocol.TCP, PORT)}})
    found = walk(network, Packet(protocol=Protocol.TCP, source=CLIENT, destination=Endpoint(NODE, PORT)), OUTSIDE)
    return float(sum(branch.share for branch in found if isinstance(branch.outcome, Delivered)))


def match(left: Json, right: Json, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def intervals(kind: Json, *elements: Json) -> Json:
    return {"set": {"type": kind, "flags": ["interval"], "elem": list(elements)}}


def prefix(address: str, length: int) -> Json:
    return {"prefix": {"addr": address, "len": length}}


ADDRESSES = intervals("ipv4_addr", {"range": ["1.2.3.4", "1.2.3.9"]}, prefix("198.51.100.0", 24))
ELSEWHERE = intervals("ipv4_addr", prefix("10.0.0.0", 8))
PORTS = intervals("inet_service", 443, {"range": [80, 90]})
BOTH = intervals(["ipv4_addr", "inet_service"], {"concat": [prefix("198.51.0.0", 16), {"range": [80, 90]}]})
FOR_AN_HOUR = {
    "set": {
        "type": "ipv4_addr",
        "flags": ["timeout"],
        "elem": [{"elem": {"val": "198.51.100.7", "timeout": 3600, "expires": 9}}],
    }
}
PLAIN = {"set": {"type": "inet_service", "elem": [443]}}
VERDICTS = {
    "map": {
        "type": "ipv4_addr",
        "map": "verdict",
        "flags": ["interval"],
        "elem": [[prefix("198.51.100.0", 24), {"jump": {"target": "gone"}}]],
    }
}
OF_TWO = {
    "map": {
        "type": ["ipv4_addr", "inet_service"],
        "map": "verdict",
        "flags": ["interval"],
        "elem": [[{"concat": [prefix("198.51.100.0", 24), 80]}, {"drop": None}]],
    }
}
STATES = {
    "map": {"type": "ct_state", "map": "verdict", "elem": [["established", {"accept": None}], ["new", {"drop": None}]]},
}


@pytest.mark.parametrize(
    ("sets", "rule", "passed"),
    [
        ([ADDRESSES], [match(SADDR, "@s"), *DROP], 0),
        ([ELSEWHERE], [match(SADDR, "@s"), *DROP], 1),
        ([ADDRESSES], [match(SADDR, "@s", "!="), *DROP], 1),
        ([ELSEWHERE], [match(SADDR, "@s", "!="), *DROP], 0),
        ([PORTS], [match(DPORT, "@s"), *DROP], 0),
        ([PLAIN], [match(DPORT, "@s"), *DROP], 1),
        ([PLAIN], [match(DPORT, "@s", "!="), *DROP], 0),
        ([BOTH], [match({"concat": [SADDR, DPORT]}, "@s"), *DROP], 0),
        ([FOR_AN_HOUR], [match(SADDR, "@s"), *DROP], 0),
        ([VERDICTS], [{"vmap": {"key": SADDR, "data": "@s"}}], 0),
        ([OF_TWO], [{"vmap": {"key": {"concat": [SADDR, DPORT]}, "data": "@s"}}], 0),
        ([STATES], [{"vmap": {"key": {"ct": {"key": "state"}}, "data": "@s"}}], 0),
        ([], [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", {"continue": None}]]}}}], 1),
        ([], [match({"&": [FLAGS, ["fin", "syn", "rst", "ack"]]}, "syn", "!="), *DROP], 1),
        ([], [match({"&": [FLAGS, {"|": ["fin", "syn"]}]}, "syn", "!="), *DROP], 1),
        ([], [match({"&": [FLAGS, ["syn", "ack"]]}, ["syn", "ack"], "!="), *DROP], 0),
        ([], [match({"ct": {"key": "ip daddr", "dir": "original"}}, "192.0.2.1"), *DROP], 0),
        ([], [match({"ct": {"key": "proto-dst", "dir": "original"}}, 81), *DROP], 1),
        ([], [match({"meta": {"key": "skuid"}}, 0), *DROP], 1),
        ([], [match({"numgen": {"mode": "random", "mod": 100, "offset": 0}}, 30, "<"), *DROP], 0.7),
        ([], [match({"numgen": {"mode": "inc", "mod": 4, "offset": 0}}, {"set": [0, 1]}), *DROP], 0.5),
        ([], [match({"numgen": {"mode": "inc", "mod": 4, "offset": 5}}, 4), *DROP], 1),
    ],
)
def test_rules_of_others_with_sets_and_lots(sets: list[Json], rule: list[Json], passed: float) -> None:
    assert share(rule, sets=sets) == pytest.approx(passed)


BANNED = {"set": {"type": "ipv4_addr", "flags": ["timeout", "dynamic"], "size": 9}}
ADD = {"set": {"op": "add", "elem": SADDR, "set": "@s"}}


def test_what_a_rule_adds_the_next_finds() -> None:
    assert share([match(SADDR, "@s"), *DROP], sets=[BANNED]) == 1
    assert share([ADD], [match(SADDR, "@s"), *DROP], sets=[BANNED]) == 0
    assert share([match(SADDR, "@s"), *DROP], [ADD], sets=[BANNED]) == 1


@pytest.mark.parametrize(
    ("sets", "rules"),
    [
        (
            [BANNED],
            [[{"set": {"op": "add", "elem": SADDR, "set": "@s", "stmt": [{"limit": {"rate": 1, "per": "second"}}]}}, *DROP]],
        ),
        ([BANNED], [[{"set": {"op": "add", "elem": {"osf": {}}, "set": "@s"}}], [match(SADDR, "@s"), *DROP]]),
        (
            [{"set": {"type": "ipv4_addr", "elem": ["198.51.100.7"], "stmt": [{"limit": {"rate": 1}}]}}],
            [[match(SADDR, "@s"), *DROP]],
        ),
        ([ADDRESSES], [[match({"osf": {}}, "@s"), *DROP]]),
        ([], [[match(SADDR, "@absent"), *DROP]]),
        ([], [[match({"fib": {"result": "oif", "flags": ["daddr"]}}, False), *DROP]]),
    ],
)
def test_what_can_not_be_told_is_said(sets: list[Json], rules: list[list[Json]]) -> None:
    with pytest.raises(UnknownRule):
        share(*rules, sets=sets)


def test_a_counter_of_each_element_does_not_matter() -> None:
    counted = {"set": {"type": "ipv4_addr", "elem": [{"elem": {"val": "198.51.100.7", "counter": {"packets": 1}}}]}}
    assert share([match(SADDR, "@s"), *DROP], sets=[{"set": {**counted["set"], "stmt": [{"counter": None}]}}]) == 0


IIF = {"meta": {"key": "iif"}}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"left": IIF, "right": "9"}, {"left": IIF, "right": "eth0"}),
        ({"left": IIF, "right": {"set": ["9", "3"]}}, {"left": IIF, "right": {"set": ["eth0", "3"]}}),
        ({"left": DPORT, "right": 9}, {"left": DPORT, "right": 9}),
        (
            {"left": {"concat": [IIF, DPORT]}, "right": {"set": [{"concat": ["9", 9]}]}},
            {"left": {"concat": [IIF, DPORT]}, "right": {"set": [{"concat": ["eth0", 9]}]}},
        ),
        (
            {"vmap": {"key": IIF, "data": {"set": [[9, {"drop": None}]]}}},
            {"vmap": {"key": IIF, "data": {"set": [["eth0", {"drop": None}]]}}},
        ),
        (
            {"type": "iface_index", "elem": [{"elem": {"val": "9", "timeout": 9}}]},
            {"type": "iface_index", "elem": [{"elem": {"val": "eth0", "timeout": 9}}]},
        ),
    ],
)
def test_devices_get_their_names(raw: Json, told: Json) -> None:
    assert named(raw, {"9": "eth0"}) == told
