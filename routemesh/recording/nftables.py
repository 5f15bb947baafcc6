"""`nft list ruleset`, with -j and without, in one namespace. PURE.

The JSON has everything but the devices of netdev chains (nft 1.0.6), which only the text names. Tables that iptables-nft keeps
are left out: nft can't tell their matches, and iptables-save has them.

Source: nft(8), libnftables-json(5); nftables' src/rule.c (chain_print).
"""

import json
import re
from collections.abc import Set

from routemesh.language import nftjson
from routemesh.nodeplan import BUILT_IN, Item
from routemesh.recording.source import Source

Table = tuple[str, str]
"""A table's family and name."""

_TABLE = re.compile(r"table (?P<family>\w+) (?P<name>\S+) \{")
_CHAIN = re.compile(r"\tchain (?P<name>\S+) \{")
_HOOK = re.compile(r"\t\ttype \w+ hook \w+ devices? =? ?(?P<devices>\S+|\{[^}]*\}) priority .*")
_WARNING = re.compile(r"# Warning: table (?P<family>\w+) (?P<name>\S+) is managed by iptables-nft, do not touch!")
_NOT_IPV4 = frozenset({"ip6", "arp"})


def kept_by_iptables(saved: str, hidden: Set[str]) -> Set[Table]:
    """The tables of which iptables-save has printed the rules, where it is the variant that keeps them in nftables.

    `hidden`: those of which it could not print all.
    """
    names = BUILT_IN.keys() - hidden if "(nf_tables)" in saved else ()
    return {("ip", name) for name in names if f"\n*{name}\n" in saved}


def read(as_json: Source | None, as_text: Source | None, kept: Set[Table]) -> tuple[Item, ...]:
    """Every table of nftables' own. Without the JSON only their names can be told, which is taken down."""
    if as_json is None:
        if as_text is not None:
            _tell_tables(as_text, kept)
        return ()
    if not as_json.text.strip():
        return ()
    try:
        document = json.loads(as_json.text)
        return nftjson.parse_everything(document, {} if as_text is None else _devices(as_text), kept)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        as_json.broken(f"not understood ({type(error).__name__}: {error})")
        return ()


def _tell_tables(source: Source, kept: Set[Table]) -> None:
    warned = {(found["family"], found["name"]) for _, line in source.lines() if (found := _WARNING.match(line))}
    for number, line in source.lines():
        found = _TABLE.fullmatch(line)
        if found is not None and found["family"] not in _NOT_IPV4 and (found["family"], found["name"]) not in kept | warned:
            source.odd(number, line)


def _devices(source: Source) -> nftjson.Devices:
    """The devices of each netdev chain, several separated by commas."""
    table = chain = ""
    found = {}
    for _, line in source.lines():
        if (head := _TABLE.fullmatch(line)) is not None:
            table = head["name"]
        elif (head := _CHAIN.fullmatch(line)) is not None:
            chain = head["name"]
        elif (hook := _HOOK.fullmatch(line)) is not None:
            found[table, chain] = ",".join(re.findall(r'[^\s{},"]+', hook["devices"]))
    return found
