"""Rules as other tools write them: each is parsed, and met by a packet; what can't be told of it is told as such.

tests/data/rules names each project and where in it the lines are made; nft's are there as its JSON, too, as nft 1.0.6 lists them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Literal

import pytest

from routemesh.language import nftjson
from routemesh.language.xtparse import parse_rule
from routemesh.language.xtrule import words
from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Address, Chain, Hook, Item, Link, NodePlan, Rule, XtChain, namespace
from routemesh.reasons.ends import RuleDrops, RuleRejects
from routemesh.reasons.unclear import ChainUnknown
from routemesh.snapshot import Endpoint, Place
from routemesh.values import replace
from routemesh.walk import Host, Network, Packet, UnknownRule
from routemesh.walk.chains import of_iptables, of_nftables
from routemesh.walk.flight import Ended, Flight, Trip
from routemesh.walk.lots import Lots
from routemesh.walk.nouns import Encapsulated
from routemesh.walk.rules import Evaluation, Then

DATA = Path(__file__).parent.parent / "data" / "rules"
NODE = IPv4Address("192.0.2.1")
LINKS = ("lo", "eth0", "docker0", "docker_gwbridge", "br-1", "cali12ab", "vxlan.calico")


@dataclass(frozen=True)
class Row:
    project: str
    table: str
    chain: str
    packet: str
    becomes: str
    rule: str

    def __str__(self) -> str:
        return f"{self.project}: {self.rule} [{self.packet}]"


def rows() -> Iterator[Row]:
    project = ""
    for line in (DATA / "iptables.txt").read_text().splitlines():
        if line.startswith("## "):
            project = line[3:].split(":")[0]
        elif line and not line.startswith("#"):
            place, packet, becomes, rule = (part.strip() for part in line.split(" | ", 3))
            table, chain = place.split()
            yield Row(project, table, chain, packet, becomes, rule)


ROWS = tuple(rows())


def flight(row: Row) -> Flight:
    """The packet at the hook of the rule's chain, in a node with these links."""
    first, *rest = row.packet.split()
    protocol, _, port = first.partition(":")
    told = {name: value for name, _, value in (each.partition("=") for each in rest)}
    links = [Link(name=name, kind="veth", mtu=1500) for name in LINKS]
    own = [Address("eth0", IPv4Interface(f"{NODE}/24")), Address("docker0", IPv4Interface("172.17.0.1/16"))]
    items: tuple[Item, ...] = (*links, *own)
    network = Network({"node1": Host(NodePlan({HOST: namespace(items)}), (NODE,))})
    stack = network.stack(Place("node1", HOST))
    assert stack is not None
    packet = Packet(
        protocol=Protocol(protocol),
        source=Endpoint(IPv4Address(told.get("src", "198.51.100.7")), int(told.get("sport", "40000"))),
        destination=Endpoint(IPv4Address(told.get("dst", str(NODE))), int(port)),
        mark=int(told.get("mark", "0"), 0),
        flags=frozenset(filter(None, told.get("flags", "syn" if protocol == "tcp" else "").split(","))),
    )
    if "vni" in told:
        packet = replace(packet, inner=Encapsulated(int(told["vni"]), packet))
    found = Flight(Trip(network, Lots().draw), stack, packet, incoming=told.get("in", "eth0"), outgoing=told.get("out", ""))
    found.next_hop = packet.destination.address
    state = told.get("state", "new")
    if state != "invalid":
        found.connection = found.trip.conntrack(stack.place).new(packet)
        found.connection.answered = state == "established"
        found.connection.mark = int(told.get("ctmark", "0"), 0)
    return found


def met(row: Row) -> str:
    """What becomes of the packet by the rule alone."""
    tokens = words(row.rule)
    targets = {tokens[place + 1] for place, word in enumerate(tokens) if word in ("-j", "-g")}
    chains = frozenset(name for name in targets if not name.isupper() or "-" in name or "_" in name or name == "DOCKER")
    rule = parse_rule(row.rule, chains).rule
    (chain,) = of_iptables([XtChain(row.table, row.chain, (rule,), "ACCEPT")])  # type: ignore[arg-type]  # the data's own
    packet = flight(row)
    lots = Lots()
    packet.trip.choose = lots.draw
    return _told(packet, Evaluation(packet, chain), rule, lots, chain.rules[0])


def nft_rows() -> Iterator[tuple[Row, Rule]]:
    project = ""
    for entry in json.loads((DATA / "nftables.json").read_text()):
        if "project" in entry:
            project = entry["project"].split(":")[0]
        else:
            table, chain = entry["place"].split()
            yield Row(project, table, chain, entry["packet"], entry["becomes"], entry["rule"]), nftjson.rule(entry["expr"])


NFT_ROWS = tuple(nft_rows())


def met_in_nftables(row: Row, rule: Rule) -> str:
    kind: Literal["nat", "filter"] = "nat" if row.table == "nat" else "filter"
    hook = Hook(kind, row.chain.lower(), 0)  # type: ignore[arg-type]  # the data's own
    chain = of_nftables(Chain("inet", "base", hook, (rule,), table="theirs"))
    packet, lots = flight(row), Lots()
    packet.trip.choose = lots.draw
    return _told(packet, Evaluation(packet, chain), rule, lots, chain.rules[0])


def _told(packet: Flight, evaluation: Evaluation, rule: Rule, lots: Lots, by: object) -> str:
    before, tracked = packet.packet, packet.connection
    evaluation.by = by  # type: ignore[assignment]  # the one rule, with its chain
    try:
        then = evaluation.rule(rule)
    except Ended as ended:
        reason = ended.outcome.reason
        if lots.drawn:
            return f"share {lots.share}"
        assert isinstance(reason, RuleDrops | RuleRejects)
        return "drop" if isinstance(reason, RuleDrops) else f"reject {reason.answer}"
    except UnknownRule as unknown:
        doubt = unknown.unclear.reason
        led = f"{doubt.verdict} {doubt.target}" if isinstance(doubt, ChainUnknown) else "open"
        return f"share {lots.share}" if lots.drawn else led
    if packet.packet.mark != before.mark:
        return f"mark {packet.packet.mark:#x}"
    if tracked is not None and packet.untracked:
        return "untrack"
    if then is Then.ACCEPT:
        return _translated(packet.packet, before, packet)
    return "return" if then is Then.CALLER else "next" if before.mark == packet.packet.mark else "mark"


def _translated(after: Packet, before: Packet, packet: Flight) -> str:
    events = [type(hop.event).__name__ for hop in packet.trip.hops]
    if "Rewritten" not in events:
        return "accept"
    event = packet.trip.hops[-1].event
    how = event.how  # type: ignore[union-attr]  # Rewritten
    if how == "masquerade":
        return how
    if how == "redirect":
        return f"redirect {after.destination.port}"
    return f"dnat {after.destination}" if how == "dnat" else f"snat {after.source.address}"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_packet_meets_a_real_rule_of_iptables(row: Row) -> None:
    assert met(row) == row.becomes


@pytest.mark.parametrize(("row", "rule"), NFT_ROWS, ids=[str(row) for row, _ in NFT_ROWS])
def test_a_packet_meets_a_real_rule_of_nftables(row: Row, rule: Rule) -> None:
    assert met_in_nftables(row, rule) == row.becomes


def test_there_are_enough_of_them_and_of_every_project() -> None:
    assert len(ROWS) + len(NFT_ROWS) >= 200
    projects = {row.project.split()[0].rstrip(",") for row in ROWS}
    assert projects == {"Docker", "Docker's", "firewalld", "ufw", "fail2ban", "kube-proxy", "Calico"}
