"""What nftables does to a packet: one base chain with all that it jumps to. PURE.

Every statement of nodeplan has its row in `_STATEMENTS`; whatever has none, and every use of one that the kernel would not
accept, is an UnknownRule. Source: nft(8); the kernel's nf_tables_core.c, nft_nat.c, nft_masq.c, nf_nat_redirect.c.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from routemesh.nodeplan import (
    Assign,
    Chain,
    ClampMss,
    Counter,
    Dnat,
    Element,
    Field,
    Hook,
    InSet,
    Item,
    Key,
    Lookup,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Redirect,
    Reject,
    Rule,
    Snat,
    Verdict,
    VerdictLookup,
)
from routemesh.snapshot import Endpoint
from routemesh.walk.conntrack import End
from routemesh.walk.fields import FIELDS, Reading
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import UnknownRule

_NAT_HOOKS: Mapping[End, tuple[str, ...]] = {"destination": ("prerouting", "output"), "source": ("postrouting", "input")}
_LOOPBACK = IPv4Interface("127.0.0.1/8")
_NOT_IN_NETDEV = ("ct", "fib")
_ASSIGNED = {"meta mark": "mark", "ether daddr": "destination_mac"}


class Then(Enum):
    """What follows a statement."""

    STATEMENT = auto()
    RULE = auto()
    CALLER = auto()
    ACCEPT = auto()


def traverse(flight: Flight, base: Chain) -> None:
    """Let a packet through a base chain; raises Ended where it is dropped or refused, UnknownRule rather than guess."""
    Evaluation(flight, base).chain(base)


class Evaluation:
    """One packet in one base chain. Every method below `chain` is one statement's meaning."""

    def __init__(self, flight: Flight, base: Chain) -> None:
        assert base.hook is not None
        self.flight = flight
        self.hook: Hook = base.hook
        self.at = base

    def chain(self, chain: Chain) -> Then:
        """ACCEPT when a rule took the packet, otherwise RULE: the caller's next one follows."""
        caller, self.at = self.at, chain
        for rule in chain.rules:
            then = self.rule(rule)
            if then is Then.ACCEPT:
                return then
            if then is Then.CALLER:
                break
        self.at = caller
        return Then.RULE

    def rule(self, rule: Rule) -> Then:
        for statement in rule:
            evaluate = _STATEMENTS.get(type(statement))
            if evaluate is None:
                raise self.unknown(statement)
            then = evaluate(self, statement)
            if then is not Then.STATEMENT:
                return then
        return Then.RULE

    # --- statements ---

    def match(self, statement: Match) -> Then:
        reading = self.reading(statement.field)
        if statement.negate and reading.flags:
            raise self.unknown(statement)  # nft compares some negated flags as a whole, some bit by bit
        value = reading.read(self.flight)
        if value is None:
            return Then.RULE
        try:
            matches = reading.test(value, statement.value) != statement.negate
        except ValueError as error:
            raise self.unknown(f"{statement} ({error})") from error
        return Then.STATEMENT if matches else Then.RULE

    def mark_match(self, statement: MarkMatch) -> Then:
        value = self.reading(statement.field).read(self.flight)
        return Then.STATEMENT if value is not None and value & statement.mask == statement.value else Then.RULE

    def in_set(self, statement: InSet) -> Then:
        return Then.RULE if self.element(statement.key, statement.set) is None else Then.STATEMENT

    def assign(self, statement: Assign) -> Then:
        value, item = self.value(statement.value)
        if value is None:
            return Then.RULE
        shown = f"{value:#x}" if isinstance(value, int) else str(value)
        what = f"{statement.field} set {shown}"
        if statement.field == "ct original zone":
            self.note(what, item)  # keeps equal connections apart; one packet's way is the same in every zone
        elif statement.field == "ct mark":
            if self.flight.connection is None:
                return Then.RULE
            self.flight.connection.mark = value
            self.note(what, item)
        else:
            self.note(what, item, **{_ASSIGNED[statement.field]: value})
        return Then.STATEMENT

    def clamp(self, statement: ClampMss) -> Then:
        self.note(f"maxseg at most {statement.bytes}")
        return Then.STATEMENT

    def count(self, _: Counter) -> Then:
        return Then.STATEMENT

    def dnat(self, statement: Dnat) -> Then:
        address, item = self.value(statement.to)
        if address is None:
            return Then.RULE
        return self.translate("destination", Endpoint(address, self.flight.packet.destination.port), "dnat to", item)

    def redirect(self, statement: Redirect) -> Then:
        port, item = self.value(statement.to)
        if port is None:
            return Then.RULE
        flight = self.flight
        addresses = [_LOOPBACK] if self.hook.hook == "output" else flight.stack.addresses_on(flight.incoming)
        if not addresses:
            flight.drop(f"redirected, but {flight.incoming} has no address", self.at)
        return self.translate("destination", Endpoint(addresses[0].ip, port), "redirect to", item)

    def snat(self, statement: Snat) -> Then:
        return self.translate("source", Endpoint(statement.to, self.flight.packet.source.port), "snat to", None)

    def masquerade(self, _: Masquerade) -> Then:
        flight = self.flight
        address = flight.stack.source_on(flight.outgoing, flight.next_hop)
        if address is None:
            flight.drop("masqueraded, but this namespace has no address", self.at)
        return self.translate("source", Endpoint(address, flight.packet.source.port), "masquerade as", None)

    def reject(self, statement: Reject) -> Then:
        why = f"{self.hook.type} {self.at.name} rejects with {statement.with_}"
        self.flight.refuse(why, self.at, reset=statement.with_ == "tcp reset")

    def verdict(self, statement: Verdict, item: Item | None = None) -> Then:
        match statement.kind:
            case "accept":
                return Then.ACCEPT
            case "return":
                return Then.CALLER
            case "drop":
                self.flight.drop(f"{self.hook.type} {self.at.name} drops it", item or self.at)
            case "jump" | "goto":
                target = self.flight.stack.chains.get((self.at.family, statement.chain))
                if target is None:
                    raise self.unknown(f"{statement.kind} {statement.chain}, a chain that is not there,")
                if item is not None:
                    self.note(f"{statement.kind} {statement.chain}", item)
                then = self.chain(target)
                return then if then is Then.ACCEPT or statement.kind == "jump" else Then.CALLER

    def verdict_lookup(self, statement: VerdictLookup) -> Then:
        element = self.element(statement.key, statement.map)
        if element is None:
            return Then.RULE
        if not isinstance(element.value, Verdict):
            raise self.unknown(f"{element}, which holds no verdict,")
        return self.verdict(element.value, element)

    # --- what they have in common ---

    def unknown(self, what: object) -> UnknownRule:
        """The error for something in the present chain that can't be evaluated."""
        return UnknownRule(self.flight.stack.place, f"{what} in chain {self.at.family} {self.at.name}")

    def note(self, what: str, item: Item | None = None, **changes: Any) -> None:
        """Record an effect on the packet, which `item` decided, or else the chain."""
        after = replace(self.flight.packet, **changes) if changes else None
        self.flight.note(f"{self.hook.type} {self.at.name} {what}", item or self.at, after)

    def reading(self, field: Field) -> Reading:
        reading = FIELDS.get(field)
        if reading is None or (self.at.family == "netdev" and field.startswith(_NOT_IN_NETDEV)):
            raise self.unknown(f"'{field}'")
        return reading

    def value(self, source: int | IPv4Address | Field | Lookup) -> tuple[Any, Item | None]:
        """A value and the map's element that gave it; None where a map has no entry or the packet no such field."""
        if isinstance(source, str):
            return self.reading(source).read(self.flight), None
        if not isinstance(source, Lookup):
            return source, None
        element = self.element(source.key, source.map)
        return (None, None) if element is None else (element.value, element)

    def element(self, key: Key, name: str) -> Element | None:
        """The entry that a map or set has for the packet."""
        family, stack = self.at.family, self.flight.stack
        found = stack.maps.get((family, name))
        readings = [None if isinstance(part, Numgen) else self.reading(part) for part in key]
        if found is None or found.key != tuple("index" if reading is None else reading.part for reading in readings):
            raise self.unknown(f"a look-up of {key} in @{name}, which is of another type or not there,")
        values = tuple(
            self.flight.trip.choose(part.modulus) if isinstance(part, Numgen) else FIELDS[part].read(self.flight) for part in key
        )
        return stack.elements.get((family, name, values))

    def translate(self, end: End, to: Endpoint, what: str, item: Item | None) -> Then:
        connection = self.flight.connection
        if connection is None or self.hook.type != "nat" or self.hook.hook not in _NAT_HOOKS[end]:
            raise self.unknown(f"'{what} {to}' at hook {self.hook.type} {self.hook.hook}")
        if not self.flight.trip.conntrack(self.flight.stack.place).translate(connection, end, to):
            raise self.unknown(f"'{what} {to}', where the kernel would have to choose another port,")
        shown = to.address if what != "redirect to" else f":{to.port}"
        self.note(f"{what} {shown}", item, **{end: to})
        return Then.ACCEPT


_STATEMENTS: Mapping[type, Callable[[Evaluation, Any], Then]] = {
    Match: Evaluation.match,
    MarkMatch: Evaluation.mark_match,
    InSet: Evaluation.in_set,
    Assign: Evaluation.assign,
    ClampMss: Evaluation.clamp,
    Counter: Evaluation.count,
    Dnat: Evaluation.dnat,
    Redirect: Evaluation.redirect,
    Snat: Evaluation.snat,
    Masquerade: Evaluation.masquerade,
    Reject: Evaluation.reject,
    Verdict: Evaluation.verdict,
    VerdictLookup: Evaluation.verdict_lookup,
}
"""Without Unknown, on purpose."""
