"""What nftables' and iptables' rules do to a packet: one base chain with all that it jumps to. PURE.

Every statement of nodeplan has its row in `_STATEMENTS`; whatever has none, and every use of one that the kernel would not
accept, is an UnknownRule, if the packet meets it: not behind a condition that fails. An iptables rule's conditions have no order.
Source: nft(8), iptables-extensions(8); the kernel's nf_tables_core.c, nft_nat.c, nft_masq.c, nf_nat_redirect.c, ip_tables.c.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from ipaddress import IPv4Interface
from typing import Any

from routemesh.nodeplan import (
    Assign,
    ClampMss,
    Counter,
    Dnat,
    Hook,
    InSet,
    IpvsMatch,
    Item,
    Learn,
    MarkMatch,
    Masquerade,
    Match,
    Redirect,
    Reject,
    Rule,
    SetTimeouts,
    Snat,
    Statement,
    Unknown,
    Verdict,
    VerdictLookup,
)
from routemesh.reasons.ends import NothingToMasquerade, PolicyDrops, RedirectedNowhere, RuleDrops, RuleRejects
from routemesh.reasons.events import Assigned, Clamped, Event, How, Learned, Led, Rewritten
from routemesh.reasons.unclear import ChainUnknown, MatchUnknown, NoVerdict, StatementUnknown, TranslationUnknown
from routemesh.snapshot import Endpoint
from routemesh.walk.chains import RuleChain
from routemesh.walk.conntrack import End
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import UnknownRule
from routemesh.walk.reads import Reads

_NAT_HOOKS: Mapping[End, tuple[str, ...]] = {"destination": ("prerouting", "output"), "source": ("postrouting", "input")}
_LOOPBACK = IPv4Interface("127.0.0.1/8")
_ONLY_TELLING = ("-j LOG", "-j NFLOG", "-j ULOG", "-j AUDIT", "-j TRACE", '{"log":')
"""What is written down about a packet, and what that depends on, changes nothing about its way."""

_VNI = re.compile(
    r'-m u32 --u32 "?(0|0x0)>>(22|0x16)&0x3c@(12|0xc)&0xffffff00=(?P<shifted>\d+|0x[0-9a-f]+)"?', re.ASCII | re.IGNORECASE
)
"""Behind the IP header, whatever its length, and the UDP header: the second word of VXLAN's (moby, encryption.go, matchVXLAN)."""
_ASSIGNED = {"meta mark": "mark", "ether daddr": "destination_mac"}


class Then(Enum):
    """What follows a statement."""

    STATEMENT = auto()
    RULE = auto()
    CALLER = auto()
    ACCEPT = auto()


def traverse(flight: Flight, base: RuleChain) -> None:
    """Let a packet through a base chain; raises Ended where it is dropped or refused, UnknownRule rather than guess."""
    evaluation = Evaluation(flight, base)
    if evaluation.chain(base) is not Then.ACCEPT and base.drops:
        flight.drop(PolicyDrops(evaluation.kind, base.name), base.item)


class Evaluation:
    """One packet in one base chain."""

    def __init__(self, flight: Flight, base: RuleChain) -> None:
        assert base.hook is not None
        self.flight = flight
        self.hook: Hook = base.hook
        self.kind: str = base.space if base.iptables else base.hook.type
        self.at = base
        self.by: tuple[Rule, Item] | None = None

    def chain(self, chain: RuleChain) -> Then:
        """ACCEPT when a rule took the packet, otherwise RULE: the caller's next one follows."""
        caller = self.at, self.by
        self.at = chain
        for self.by in chain.rules:
            then = self.rule(self.by[0])
            if then is Then.ACCEPT:
                return then
            if then is Then.CALLER:
                break
        self.at, self.by = caller
        return Then.RULE

    def rule(self, rule: Rule) -> Then:
        if self.at.iptables and rule and isinstance(rule[-1], Unknown) and rule[-1].json.startswith(_ONLY_TELLING):
            return Then.RULE
        for number, statement in enumerate(rule, start=1):
            try:
                then = self.statement(statement)
            except UnknownRule:
                if (self.at.iptables or _is_condition(statement)) and any(map(self.fails, rule[number:])):
                    return Then.RULE
                raise
            if then is not Then.STATEMENT:
                return then
        return Then.RULE

    def statement(self, statement: Statement) -> Then:
        evaluate = _STATEMENTS.get(type(statement))
        if isinstance(statement, Unknown) and statement.json.startswith(_ONLY_TELLING):
            return Then.STATEMENT
        if isinstance(statement, Unknown) and self.is_of_another_tunnel(statement):
            return Then.RULE
        if evaluate is None:
            raise self.reads.unknown(StatementUnknown, statement.json if isinstance(statement, Unknown) else str(statement))
        return evaluate(self, statement)

    def is_of_another_tunnel(self, statement: Unknown) -> bool:
        """Whether it is u32's test for a VNI that the packet does not carry: how Docker tells its encrypted networks apart."""
        found = _VNI.fullmatch(statement.json)
        inner = self.flight.packet.inner
        return found is not None and inner is not None and int(found["shifted"], 0) >> 8 != inner.vni

    def fails(self, statement: Statement) -> bool:
        """Whether it is a condition that is known not to hold."""
        if isinstance(statement, Unknown):
            return self.is_of_another_tunnel(statement)
        if not isinstance(statement, Match | MarkMatch | IpvsMatch):
            return False
        try:
            return self.statement(statement) is Then.RULE
        except UnknownRule:
            return False

    # --- statements ---

    def match(self, statement: Match) -> Then:
        reading = self.reads.field(statement.field)
        if statement.negate and reading.flags and not self.at.iptables:
            raise self.reads.unknown(MatchUnknown, str(statement))  # nft compares some negated flags as a whole, some bit by bit
        value = reading.read(self.flight)
        if value is None:
            return Then.RULE
        try:
            matches = reading.test(value, statement.value) != statement.negate
        except ValueError as error:
            raise self.reads.unknown(MatchUnknown, str(statement), str(error)) from error
        return Then.STATEMENT if matches else Then.RULE

    def mark_match(self, statement: MarkMatch) -> Then:
        value = self.reads.field(statement.field).read(self.flight)
        return Then.STATEMENT if value is not None and value & statement.mask == statement.value else Then.RULE

    def ipvs_match(self, _: IpvsMatch) -> Then:
        return Then.STATEMENT if self.flight.balanced else Then.RULE

    def in_set(self, statement: InSet) -> Then:
        return Then.RULE if self.reads.element(statement.key, statement.set) is None else Then.STATEMENT

    def assign(self, statement: Assign) -> Then:
        value, item = self.reads.value(statement.value)
        if value is None:
            return Then.RULE
        event = Assigned(self.kind, self.at.name, statement.field, _shown(value))
        if statement.field == "ct original zone":
            self.flight.zone = value
            self.note(event, item)
        elif statement.field == "ct mark":
            if self.flight.connection is None:
                return Then.RULE
            self.flight.connection.mark = value
            self.note(event, item)
        else:
            self.note(event, item, **{_ASSIGNED[statement.field]: value})
        return Then.STATEMENT

    def learn(self, statement: Learn) -> Then:
        element, is_new = self.reads.learned(statement)
        if element is not None and is_new:
            self.note(Learned(self.kind, self.at.name, element.map, _shown(element.value)), element)
        return Then.RULE if element is None else Then.STATEMENT

    def clamp(self, statement: ClampMss) -> Then:
        mss = self.flight.packet.mss_bytes
        self.note(Clamped(self.kind, self.at.name, statement.bytes), mss_bytes=min(mss, statement.bytes))
        return Then.STATEMENT

    def count(self, _: Counter) -> Then:
        return Then.STATEMENT

    def set_timeouts(self, _: SetTimeouts) -> Then:
        return Then.STATEMENT

    def dnat(self, statement: Dnat) -> Then:
        address, item = self.reads.value(statement.to)
        if address is None:
            return Then.RULE
        port = self.flight.packet.destination.port if statement.port is None else statement.port
        return self.translate("destination", Endpoint(address, port), "dnat", item)

    def redirect(self, statement: Redirect) -> Then:
        port, item = self.reads.value(statement.to)
        if port is None:
            return Then.RULE
        flight = self.flight
        addresses = [_LOOPBACK] if self.hook.hook == "output" else flight.stack.addresses_on(flight.incoming)
        if not addresses:
            flight.drop(RedirectedNowhere(flight.incoming), *self.decided_by())
        return self.translate("destination", Endpoint(addresses[0].ip, port), "redirect", item)

    def snat(self, statement: Snat) -> Then:
        return self.translate("source", Endpoint(statement.to, self.flight.packet.source.port), "snat", None)

    def masquerade(self, _: Masquerade) -> Then:
        flight = self.flight
        address = flight.stack.source_on(flight.outgoing, flight.next_hop)
        if address is None:
            flight.drop(NothingToMasquerade(), *self.decided_by())
        return self.translate("source", Endpoint(address, flight.packet.source.port), "masquerade", None)

    def reject(self, statement: Reject) -> Then:
        end = RuleRejects(self.kind, self.at.name, statement.with_)
        self.flight.refuse(end, *self.decided_by(), reset=statement.with_ == "tcp reset")

    def verdict(self, statement: Verdict, item: Item | None = None) -> Then:
        match statement.kind:
            case "accept":
                return Then.ACCEPT
            case "return":
                return Then.CALLER
            case "drop":
                self.flight.drop(RuleDrops(self.kind, self.at.name), *self.decided_by(item))
            case "jump" | "goto":
                target = self.flight.stack.chains.get((self.at.space, statement.chain))
                if target is None:
                    raise self.reads.unknown(ChainUnknown, statement.kind, statement.chain)
                if item is not None:
                    self.note(Led(self.kind, self.at.name, statement.kind, statement.chain), item)
                then = self.chain(target)
                return then if then is Then.ACCEPT or statement.kind == "jump" else Then.CALLER

    def verdict_lookup(self, statement: VerdictLookup) -> Then:
        element = self.reads.element(statement.key, statement.map)
        if element is None:
            return Then.RULE
        if not isinstance(element.value, Verdict):
            raise self.reads.unknown(NoVerdict, str(element))
        return self.verdict(element.value, element)

    # --- what they have in common ---

    @property
    def reads(self) -> Reads:
        """What the present chain can read."""
        return Reads(self.flight, self.at)

    def note(self, event: Event, item: Item | None = None, **changes: Any) -> None:
        """Record an effect on the packet, which `item` decided, or else the chain."""
        after = replace(self.flight.packet, **changes) if changes else None
        self.flight.note(event, *self.decided_by(item), after=after)

    def decided_by(self, item: Item | None = None) -> tuple[Item, Rule]:
        """What a hop names: the element that decided, or else the chain or rule of ours; and the rule in any case."""
        assert self.by is not None
        rule, where = self.by
        return item or where, rule

    def translate(self, end: End, to: Endpoint, how: How, item: Item | None) -> Then:
        connection = self.flight.connection
        if connection is None or self.hook.type != "nat" or self.hook.hook not in _NAT_HOOKS[end]:
            raise self.reads.unknown(TranslationUnknown, how, to, f"{self.hook.type} {self.hook.hook}")
        self.flight.trip.conntrack(self.flight.stack.place).translate(connection, end, to)
        address = None if how == "redirect" else to.address
        port = to.port if address is None or to.port != getattr(self.flight.packet, end).port else None
        self.note(Rewritten(self.kind, self.at.name, how, address, port), item, **{end: to})
        return Then.ACCEPT


def _is_condition(statement: Statement) -> bool:
    """Whether it can do no more than end its rule: nftables' conditions have no effects, so what is not met does not matter."""
    return isinstance(statement, Unknown) and statement.json.startswith('{"match":')


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


_STATEMENTS: Mapping[type, Callable[[Evaluation, Any], Then]] = {
    Match: Evaluation.match,
    MarkMatch: Evaluation.mark_match,
    IpvsMatch: Evaluation.ipvs_match,
    InSet: Evaluation.in_set,
    Assign: Evaluation.assign,
    ClampMss: Evaluation.clamp,
    Learn: Evaluation.learn,
    Counter: Evaluation.count,
    SetTimeouts: Evaluation.set_timeouts,
    Dnat: Evaluation.dnat,
    Redirect: Evaluation.redirect,
    Snat: Evaluation.snat,
    Masquerade: Evaluation.masquerade,
    Reject: Evaluation.reject,
    Verdict: Evaluation.verdict,
    VerdictLookup: Evaluation.verdict_lookup,
}
"""Without Unknown, on purpose."""
