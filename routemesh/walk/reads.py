"""What a rule reads: fields of the packet, entries of maps and sets, and what rules have put there on this walk. PURE.

Source: nft(8); the kernel's nft_lookup.c, nft_dynset.c, nft_numgen.c, nft_hash.c.
"""

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import msgspec

from routemesh.language import nftjson
from routemesh.nodeplan import Element, Field, Item, Jhash, Key, Learn, Lookup, Map, Numgen
from routemesh.reasons.unclear import Doubt, FieldUnknown, LearningUnknown, MapUnknown, MatchUnknown
from routemesh.walk import jhash, nftvalues
from routemesh.walk.chains import RuleChain
from routemesh.walk.fields import FIELDS, Reading
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import UnknownRule

_NOT_BELOW_IP = ("ct", "fib")


class Reads(msgspec.Struct, frozen=True):
    """One packet, as the rules of one chain see it."""

    flight: Flight
    at: RuleChain

    def unknown(self, kind: Callable[..., Doubt], *fields: object) -> UnknownRule:
        """The error for what can't be evaluated in the chain, which is the first two fields of its kind (reasons.unclear)."""
        return UnknownRule(self.flight.stack.place, kind(self.at.space, self.at.name, *fields))

    def field(self, field: Field) -> Reading:
        """How a field is read; raises UnknownRule where this chain has no such thing."""
        reading = FIELDS.get(field)
        if reading is None or (self.at.family in ("netdev", "bridge") and field.startswith(_NOT_BELOW_IP)):
            raise self.unknown(FieldUnknown, field)
        return reading

    def value(self, source: int | IPv4Address | Field | Lookup) -> tuple[Any, Item | None]:
        """A value and the map's element that gave it; None where a map has no entry or the packet no such field."""
        if isinstance(source, str):
            return self.field(source).read(self.flight), None
        if not isinstance(source, Lookup):
            return source, None
        element = self.element(source.key, source.map)
        return (None, None) if element is None else (element.value, element)

    def element(self, key: Key, name: str) -> Element | None:
        """The entry that a map or set has for the packet."""
        space, stack = self.at.space, self.flight.stack
        found = stack.maps.get((space, name))
        if found is not None and (found.listed or (stack.place, space, name) in self.flight.trip.learned):
            return self._of_others(found, key)
        readings = [None if isinstance(part, Numgen | Jhash) else self.field(part) for part in key]
        if found is None or found.key != tuple("index" if reading is None else reading.part for reading in readings):
            raise self.unknown(MapUnknown, str(key), name)
        values = self._values(key)
        return stack.elements.get((space, name, values)) or self.flight.trip.learned.get((stack.place, space, name, values))

    def _of_others(self, of: Map, key: Key) -> Element | None:
        """The same for one of which more is to be understood than our own have, or into which a rule puts what can't be told."""
        flight, values = self.flight, self._values(key)
        if None in values or (held := nftvalues.holds(flight, of.name, values)) is False:
            return None
        found = nftvalues.members(of.listed) if of.listed else ()
        raw = next((each for each in found if nftvalues.is_member(flight, values, of, each)), (None, None))
        try:
            value = None if of.value is None else nftjson.value_of(of.value, raw[1])
        except (KeyError, ValueError, TypeError):
            held = None
        if held is None:
            raise self.unknown(MapUnknown, str(key), of.name)
        return Element(of.family, of.name, values, value, of.table)

    def learned(self, statement: Learn) -> tuple[Element | None, bool]:
        """The entry that a rule puts there, and whether it is new; one that is there stays as it is. None where none is made.

        Later rules of this walk see it.
        """
        reading = self.field(statement.value)
        value, present = reading.read(self.flight), self.element(statement.key, statement.map)
        space, stack = self.at.space, self.flight.stack
        learning = stack.maps[space, statement.map]
        if not learning.learns or learning.value != reading.part:
            raise self.unknown(LearningUnknown, str(statement))
        known = sum(name[:2] == (space, statement.map) for name in stack.elements)
        if value is None or (present is None and known >= learning.learns):
            return None, False
        if present is not None:
            return present, False
        element = Element(learning.family, learning.name, self._values(statement.key), value, learning.table)
        self.flight.trip.learned[stack.place, space, learning.name, element.key] = element
        return element, True

    def _values(self, key: Key) -> tuple[Any, ...]:
        """What the packet has in place of a key's parts."""
        return tuple(map(self._part, key))

    def _part(self, part: Field | Numgen | Jhash) -> Any:
        match part:
            case Numgen():
                return self.flight.trip.choose((1,) * part.modulus)
            case Jhash():
                hashed = self.field(part.field).read(self.flight)
                if not isinstance(hashed, IPv4Address):
                    raise self.unknown(MatchUnknown, str(part))
                return jhash.index(hashed.packed, part.modulus, part.seed)
            case _:
                return FIELDS[part].read(self.flight)
