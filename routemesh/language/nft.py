"""nftables items and operations in nft's own language. PURE.

A transaction keeps the order in which diff puts operations. Within a run of creations and changes, chains are declared, and
emptied if they change, before any rule is added, since they may jump to one another; within a run of deletions, chains are
emptied before anything goes. Elements of one map are one command: 10,000 of them load in about 60 ms.

No command makes libnftables (1.0.6, 1.1.3) load the elements of our maps, so their cost does not depend on how many there are.
Commands on elements make it load everybody's interval sets, though: 100 ms on a host that has a blocklist of 20,000 ranges.
Source: nft(8); nftables src/cache.c, src/parser_bison.y.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import groupby
from typing import assert_never, get_args

from routemesh import names
from routemesh.language import values
from routemesh.language.canonical import l4proto
from routemesh.nodeplan import (
    OUR_FAMILIES,
    Assign,
    Chain,
    Change,
    ClampMss,
    Counter,
    Create,
    CtTimeouts,
    Delete,
    Dnat,
    Element,
    Family,
    Field,
    Hook,
    Index,
    InSet,
    Item,
    Jhash,
    Key,
    Learn,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Op,
    Redirect,
    Reject,
    Rule,
    Scalar,
    SetTimeouts,
    Snat,
    Statement,
    Table,
    Verdict,
    VerdictLookup,
    item_of,
)

NftItem = Table | CtTimeouts | Map | Chain | Element
NFT_ITEMS = (Table, CtTimeouts, Map, Chain, Element)

ANY_PORT_PROTOCOL = "meta l4proto { tcp, udp }"

_TYPES: Mapping[str, str] = {
    "proto": "inet_proto",
    "port": "inet_service",
    "mark": "mark",
    "mac": "ether_addr",
    "ip": "ipv4_addr",
    "link": "ifname",
    "verdict": "verdict",
}
_TYPEOF: Mapping[str, str] = {
    "proto": "meta l4proto",
    "port": "th dport",
    "mark": "meta mark",
    "index": "numgen inc mod 2",
    "mac": "ether saddr",
    "ip": "ip daddr",
    "link": "iifname",
    "zone": "ct zone",
    "verdict": "verdict",
}
"""`index` and `zone` have no type by name: a map with one is declared by examples of its parts (the modulus has no effect)."""

Script = Iterator[str]
"""Commands, one a line."""


# --- whole tables ------------------------------------------------------------------------------------------------


def ruleset(items: Iterable[Item]) -> str:
    """The tables of one namespace as `nft list ruleset` would show them; other kinds of items are passed over."""
    found = [item for item in items if isinstance(item, NFT_ITEMS)]
    return "\n".join(line for item in found if isinstance(item, Table) for line in _table(item, found)) + "\n" * bool(found)


def _table(table: Table, items: Sequence[Item]) -> Iterator[str]:
    yield f"table {table.family} {names.TABLE} {{"
    elements: dict[str, list[Element]] = {}
    for item in items:
        if isinstance(item, Element) and item.family == table.family:
            elements.setdefault(item.map, []).append(item)
    for item in items:
        if isinstance(item, CtTimeouts) and item.family == table.family:
            yield f"\tct timeout {values.name(item.name)} {{"
            yield from (f"\t\t{line}" for line in _timeouts(item))
            yield "\t}"
    for item in items:
        if isinstance(item, Map) and item.family == table.family:
            yield from _map(item, elements.get(item.name, ()))
    for item in items:
        if isinstance(item, Chain) and item.family == table.family:
            yield from _chain(item)
    yield "}"


def _map(item: Map, elements: Sequence[Element]) -> Iterator[str]:
    yield f"\t{_kind(item)} {values.name(item.name)} {{"
    yield from (f"\t\t{line}" for line in _map_type(item))
    if elements:
        yield "\t\telements = {"
        yield from (f"\t\t\t{_element(element, item)}," for element in elements)
        yield "\t\t}"
    yield "\t}"


def _chain(item: Chain) -> Iterator[str]:
    yield f"\tchain {values.name(item.name)} {{"
    if item.hook is not None:
        yield f"\t\t{_hook(item.hook)}"
    yield from (f"\t\t{rule_text(rule)}" for rule in item.rules)
    yield "\t}"


# --- transactions ------------------------------------------------------------------------------------------------


def transaction(ops: Iterable[Op]) -> str:
    """Commands that carry out `ops` of one namespace, all or none of them; ops on other kinds of items are passed over."""
    mine = [op for op in ops if isinstance(item_of(op), NFT_ITEMS)]
    runs = (list(run) for _, run in groupby(mine, lambda op: isinstance(op, Delete)))
    return "".join(f"{line}\n" for run in runs for line in _run(run))


def _run(run: Sequence[Op]) -> Script:
    deleted = [op.item for op in run if isinstance(op, Delete) and isinstance(op.item, NFT_ITEMS)]
    return _deletion(deleted) if deleted else _creation(run)


def _creation(run: Sequence[Op]) -> Script:
    made: list[NftItem] = []
    outdated: list[Element] = []
    for op in run:
        match op:
            case Create(_, item) if isinstance(item, NFT_ITEMS):
                made.append(item)
            case Change(_, old, new) if isinstance(new, NFT_ITEMS):
                made.append(new)
                if isinstance(old, Element):
                    outdated.append(old)
            case Create() | Change() | Delete():
                raise AssertionError(f"{op} is in a run of its own")
            case _:
                assert_never(op)
    for item in made:
        yield from _declaration(item)
    for item in made:
        if isinstance(item, Chain):
            start = f"add rule {_place(item.family)} {values.name(item.name)} "
            yield from (start + rule_text(rule) for rule in item.rules)
    yield from _elements("delete", outdated, element_key)
    yield from _elements("add", (item for item in made if isinstance(item, Element)), _element)


def _declaration(item: NftItem) -> Script:
    match item:
        case Table(family):
            yield f"add table {_place(family)}"
        case CtTimeouts(family, name):
            yield f"add ct timeout {_place(family)} {values.name(name)} {{ {'; '.join(_timeouts(item))}; }}"
        case Map(family, name):
            yield f"add {_kind(item)} {_place(family)} {values.name(name)} {{ {'; '.join(_map_type(item))}; }}"
        case Chain(family, name, hook):
            chain = f"chain {_place(family)} {values.name(name)}"
            yield f"add {chain} {{ {_hook(hook)} }}" if hook is not None else f"add {chain}"
            yield f"flush {chain}"
        case Element():
            pass  # comes when all chains and maps are there
        case _:
            assert_never(item)


def _deletion(items: Sequence[NftItem]) -> Script:
    for item in items:
        if isinstance(item, Chain):
            yield f"flush chain {_place(item.family)} {values.name(item.name)}"
    yield from _elements("delete", (item for item in items if isinstance(item, Element)), element_key)
    for item in items:
        match item:
            case Chain(family, name):
                yield f"delete chain {_place(family)} {values.name(name)}"
            case CtTimeouts(family, name):
                yield f"delete ct timeout {_place(family)} {values.name(name)}"
            case Map(family, name):
                yield f"delete {_kind(item)} {_place(family)} {values.name(name)}"
            case Table(family):
                yield f"delete table {_place(family)}"
            case Element():
                pass  # gone already
            case _:
                assert_never(item)


def _elements(verb: str, elements: Iterable[Element], spell: Callable[[Element], str]) -> Script:
    by_map: dict[tuple[Family, str], list[str]] = {}
    for element in elements:
        by_map.setdefault((element.family, element.map), []).append(spell(element))
    for (family, name), texts in by_map.items():
        yield f"{verb} element {_place(family)} {values.name(name)} {{ {', '.join(texts)} }}"


# --- parts of items ----------------------------------------------------------------------------------------------


def _place(family: Family) -> str:
    if family not in OUR_FAMILIES:
        raise ValueError(f"{family!r} is not a family of tables of ours")
    return f"{family} {names.TABLE}"


def _kind(item: Map) -> str:
    return "set" if item.value is None else "map"


def _timeouts(item: CtTimeouts) -> Script:
    yield f"protocol {values.protocol(item.protocol)}"
    yield "l3proto ip"
    seconds = ", ".join(f"{values.word(state)} : {values.number(time)}" for state, time in item.seconds)
    yield f"policy = {{ {seconds} }}"


def _map_type(item: Map) -> Script:
    parts = [*item.key, *(() if item.value is None else (item.value,))]
    word, spelling = ("type", _TYPES) if _TYPES.keys() >= set(parts) else ("typeof", _TYPEOF)
    try:
        key = " . ".join(spelling[part] for part in item.key)
        yield f"{word} {key}" + (f" : {spelling[item.value]}" if item.value is not None else "")
    except KeyError as exc:
        raise ValueError(f"map {item.name} has a type of part that is not ours: {exc}") from exc
    if item.learns:
        yield f"size {values.number(item.learns)}"
        yield "flags dynamic,timeout"


def _hook(hook: Hook) -> str:
    words = [values.word(hook.type), "hook", values.word(hook.hook)]
    device = [] if hook.device is None else ["device", f'"{values.link(hook.device)}"']
    return f"type {' '.join(words + device)} priority {int(hook.priority)}; policy accept;"


def _element(element: Element, of: Map | None = None) -> str:
    """KEY : VALUE. Without its map a mark is spelled as a plain number, which nft takes as well."""
    key = element_key(element, of)
    kind = of.value if of is not None else None
    match element.value:
        case None:
            return key
        case Verdict() as verdict:
            return f"{key} : {_verdict(verdict)}"
        case value:
            return f"{key} : {_scalar(value, kind)}"


def element_key(element: Element, of: Map | None = None) -> str:
    """An element's key as nft spells it. Raises ValueError for one that none of our maps could have."""
    kinds = of.key if of is not None else (None,) * len(element.key)
    return " . ".join(map(_scalar, element.key, kinds))


def _scalar(value: Scalar, kind: str | None) -> str:
    match value:
        case IPv4Address():
            return str(value)
        case int():
            return values.mark(value) if kind == "mark" else str(values.number(value))
        case str():
            return _word(value)


def _word(value: str) -> str:
    if ":" in value:
        return values.mac(value)
    return values.protocol(value) if value.isdigit() or value in values.PROTOCOLS.values() else f'"{values.link(value)}"'


# --- rules -------------------------------------------------------------------------------------------------------


def rule_text(rule: Rule) -> str:
    """One rule. Before `redirect to :MAP` nft wants to know the protocol, so where the rule does not say, it is tcp or udp."""
    words = []
    demands = False
    for statement in rule:
        if isinstance(statement, Redirect) and not demands:
            words.append(ANY_PORT_PROTOCOL)
        words.append(statement_text(statement))
        demands |= l4proto(statement) is not None
    return " ".join(words)


def statement_text(statement: Statement) -> str:
    """One statement; ValueError for Unknown, which is only read."""
    match statement:
        case Match() | MarkMatch() | InSet():
            return _condition(statement)
        case Verdict():
            return _verdict(statement)
        case Dnat() | Snat() | Redirect() | Masquerade():
            return _translation(statement)
        case _:
            return _action(statement)


def _action(statement: Statement) -> str:
    match statement:
        case Counter():
            return "counter"
        case Reject(with_) if with_ in ("tcp reset", "icmp port-unreachable"):
            return f"reject with {with_}"
        case Assign(field, value):
            return f"{_field(field)} set {_assigned(value)}"
        case SetTimeouts(name):
            return f'ct timeout set "{values.name(name)}"'
        case ClampMss(size):
            return f"tcp option maxseg size set {values.port(size)}"
        case VerdictLookup(key, name):
            return f"{_key(key)} vmap @{values.name(name)}"
        case Learn():
            entry = f"{_key(statement.key)} timeout {values.number(statement.timeout_s)}s : {_field(statement.value)}"
            return f"update @{values.name(statement.map)} {{ {entry} }}"
        case _:
            raise ValueError(f"no rule can be made of {statement!r}")


def _condition(statement: Match | MarkMatch | InSet) -> str:
    match statement:
        case Match(field, value, negate):
            text = values.match_value(field, value)
            quoted = f'"{text}"' if field in ("iifname", "oifname") else text
            return f"{field} {'!= ' * negate}{quoted}"
        case MarkMatch(field, value, values.MAX_U32):
            return f"{_field(field)} {values.mark(value)}"
        case MarkMatch(field, value, mask):
            return f"{_field(field)} & {values.mark(mask)} == {values.mark(value)}"
        case InSet(key, name):
            return f"{_key(key)} @{values.name(name)}"


def _translation(statement: Dnat | Snat | Redirect | Masquerade) -> str:
    match statement:
        case Dnat(Lookup() as lookup, None):
            return f"dnat to {_lookup(lookup)}"
        case Dnat(IPv4Address() as address, None):
            return f"dnat to {values.address(address)}"
        case Snat(address):
            return f"snat to {values.address(address)}"
        case Redirect(Lookup() as lookup):
            return f"redirect to :{_lookup(lookup)}"
        case Masquerade():
            return "masquerade"
        case _:
            raise ValueError(f"{statement!r} is iptables' alone")


def _verdict(verdict: Verdict) -> str:
    if verdict.kind in ("jump", "goto"):
        return f"{verdict.kind} {values.name(verdict.chain)}"
    return values.word(verdict.kind)


def _assigned(value: int | Field | Lookup) -> str:
    match value:
        case Lookup():
            return _lookup(value)
        case int():
            return values.mark(value)
        case _:
            return _field(value)


def _lookup(lookup: Lookup) -> str:
    return f"{_key(lookup.key)} map @{values.name(lookup.map)}"


def _key(key: Key) -> str:
    return " . ".join(_field(part) for part in key)


def _field(field: Field | Index) -> str:
    match field:
        case Numgen(modulus, mode):
            return f"numgen {values.word(mode)} mod {values.number(modulus)}"
        case Jhash():
            return f"jhash {_field(field.field)} mod {values.number(field.modulus)} seed {values.number(field.seed):#x}"
        case _:
            pass
    if field not in get_args(Field):
        raise ValueError(f"{field!r} is not an expression of ours")
    return field
