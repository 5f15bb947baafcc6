"""What nftables' and iptables' rules do to a packet: one base chain with all that it jumps to. PURE.

Every statement of nodeplan has its row in `_STATEMENTS`; whatever has none, and every use of one that the kernel would not
accept, is an UnknownRule, if the packet meets it: not behind a condition that fails. An iptables rule's conditions have no order.
Source: nft(8), iptables-extensions(8); the kernel's nf_tables_core.c, nft_nat.c, nft_masq.c, nf_nat_redirect.c, ip_tables.c.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from ipaddress import IPv4Interface
from typing import Any, Literal, assert_never

from routemesh.nodeplan import (
    Assign,
    ClampMss,
    Counter,
    Dnat,
    Element,
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
from routemesh.reasons.events import Assigned, Clamped, Event, How, Learned, Led, Rewritten, Untracked
from routemesh.reasons.unclear import ChainUnknown, MatchUnknown, NoVerdict, StatementUnknown, TranslationUnknown
from routemesh.snapshot import Endpoint
from routemesh.values import replace
from routemesh.walk import nftwords, xtwords
from routemesh.walk.chains import RuleChain
from routemesh.walk.conntrack import End
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import TCP_AND_IP_HEADER_BYTES, UnknownRule
from routemesh.walk.reads import Reads
from routemesh.walk.words import Adds, ClampToPath, Condition, CopyMark, Does, Nothing, SetMark, Untrack, Word

_NAT_HOOKS: Mapping[End, tuple[str, ...]] = {"destination": ("prerouting", "output"), "source": ("postrouting", "input")}
_LOOPBACK = IPv4Interface("127.0.0.1/8")
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
        self.at, self.flight.space = chain, chain.space
        for self.by in chain.rules:
            then = self.rule(self.by[0])
            if then is Then.ACCEPT:
                return then
            if then is Then.CALLER:
                break
        self.at, self.by = caller
        return Then.RULE

    def rule(self, rule: Rule) -> Then:
        if self.does_nothing(rule):
            return Then.RULE
        for number, statement in enumerate(rule, start=1):
            if isinstance(statement, Unknown) and _draws(statement) and any(map(self.fails, rule[number:])):
                return Then.RULE
            try:
                then = self.statement(statement)
            except UnknownRule:
                if (self.at.iptables or self.is_condition(statement)) and any(map(self.fails, rule[number:])):
                    return Then.RULE
                raise
            if then is not Then.STATEMENT:
                return then
        return Then.RULE

    def does_nothing(self, rule: Rule) -> bool:
        """Whether all that it would do is to write something down: then what it depends on does not matter."""
        unknown = [statement for statement in rule if isinstance(statement, Unknown)]
        acting = [each for each in rule if not isinstance(each, Match | MarkMatch | IpvsMatch | InSet | Counter | Unknown)]
        return bool(unknown) and not acting and all(isinstance(self.word(each), Condition | Nothing) for each in unknown)

    def statement(self, statement: Statement) -> Then:
        if isinstance(statement, Unknown):
            return self.foreign(statement)
        return _STATEMENTS[type(statement)](self, statement)

    def is_condition(self, statement: Statement) -> bool:
        return isinstance(statement, Unknown) and isinstance(self.word(statement), Condition)

    def fails(self, statement: Statement) -> bool:
        """Whether it is a condition that is known not to hold."""
        if isinstance(statement, Unknown):
            word = self.word(statement)
            return isinstance(word, Condition) and not _draws(statement) and word.test(self.flight) is False
        if not isinstance(statement, Match | MarkMatch | IpvsMatch):
            return False
        try:
            return self.statement(statement) is Then.RULE
        except UnknownRule:
            return False

    # --- what is beyond our own vocabulary ---

    def word(self, statement: Unknown) -> Word | None:
        """What it means. A match that is not known by name is a condition all the same."""
        if not self.at.iptables:
            return nftwords.word(statement.json)
        found = xtwords.word(statement.json)
        return Condition(lambda _: None) if found is None and xtwords.is_match(statement.json) else found

    def foreign(self, statement: Unknown) -> Then:
        word, doubt = self.word(statement), StatementUnknown(self.at.space, self.at.name, statement.json)
        flight = self.flight
        match word:
            case Condition(test):
                held = test(flight)
                if held is None:
                    held = flight.trip.suppose(flight.stack.place, doubt, flight.packet)
                return Then.STATEMENT if held else Then.RULE
            case Does(found):
                does = found(flight) if callable(found) else found
                if does is False:
                    return Then.STATEMENT
                if not isinstance(does, bool) and does is not None:
                    return self.statement(does)
            case SetMark(field, value, mask):
                return self.set_mark(field, value, mask)
            case CopyMark(save, nfmask, ctmask):
                return self.copy_mark(save=save, nfmask=nfmask, ctmask=ctmask)
            case ClampToPath():
                return self.clamp(ClampMss(flight.stack.mtu(flight.outgoing) - TCP_AND_IP_HEADER_BYTES))
            case Adds() | Untrack() | Nothing():
                return self.take_down(word)
            case None:
                pass
            case _:
                assert_never(word)
        raise UnknownRule(flight.stack.place, doubt)

    def set_mark(self, field: Literal["meta mark", "ct mark"], value: int, mask: int) -> Then:
        before = self.reads.field(field).read(self.flight)
        return Then.STATEMENT if before is None else self.assign(Assign(field, (before & ~mask) ^ value))

    def copy_mark(self, *, save: bool, nfmask: int, ctmask: int) -> Then:
        connection, mark = self.flight.connection, self.flight.packet.mark
        if connection is None:
            return Then.STATEMENT
        if save:
            return self.assign(Assign("ct mark", (connection.mark & ~ctmask) ^ (mark & nfmask)))
        return self.assign(Assign("meta mark", (mark & ~nfmask) ^ (connection.mark & ctmask)))

    def take_down(self, word: Adds | Untrack | Nothing) -> Then:
        """What leaves the packet as it is. Later rules of this walk find what is added; what can't be told can't be found."""
        flight = self.flight
        if isinstance(word, Untrack):
            flight.untrack()
            self.note(Untracked(self.kind, self.at.name))
        elif isinstance(word, Adds):
            values, of = word.key(flight), (flight.stack.place, self.at.space, word.set)
            entry = Element(self.at.family or "ip", word.set, values or ())
            flight.trip.learned[of if values is None else (*of, values)] = entry
        return Then.STATEMENT

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
                self.flight.drop(RuleDrops(self.kind, self.at.name, self.is_lot()), *self.decided_by(item))
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

    def is_lot(self) -> bool:
        """Whether the present rule draws lots."""
        return self.by is not None and any(isinstance(each, Unknown) and _draws(each) for each in self.by[0])

    def translate(self, end: End, to: Endpoint, how: How, item: Item | None) -> Then:
        connection = self.flight.connection
        if connection is None or self.hook.type != "nat" or self.hook.hook not in _NAT_HOOKS[end]:
            raise self.reads.unknown(TranslationUnknown, how, to, f"{self.hook.type} {self.hook.hook}")
        self.flight.trip.conntrack(self.flight.stack.place).translate(connection, end, to)
        address = None if how == "redirect" else to.address
        port = to.port if address is None or to.port != getattr(self.flight.packet, end).port else None
        self.note(Rewritten(self.kind, self.at.name, how, address, port), item, **{end: to})
        return Then.ACCEPT


def _draws(statement: Unknown) -> bool:
    """Whether to ask it draws a lot, which must not be done ahead of its turn."""
    return "statistic" in statement.json or "numgen" in statement.json


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
