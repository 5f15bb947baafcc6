"""Names and values as nft prints them; a ValueError for everything that is none. PURE."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from routemesh.nodeplan import Field

MAX_U32 = 0xFFFFFFFF

PROTOCOLS: Mapping[int, str] = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}
"""Layer-4 protocols that bear a name; the others go by their number, lest the spelling depend on /etc/protocols."""

_CT_STATES = ("invalid", "established", "related", "new", "untracked")
_CT_STATUS = ("expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying")
_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
"""In the order of their bits, in which nft lists them."""

_NAME = re.compile(r"[A-Za-z0-9_./-]+")
_LINK = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_WORD = re.compile(r"[a-z_]+")


def name(text: str) -> str:
    """A chain's, map's or set's name. nft allows a slash; we make none."""
    return _matching(_NAME, text, "a name")


def link(text: str) -> str:
    """A network device's name."""
    return _matching(_LINK, text, "a link's name")


def mac(text: str) -> str:
    """A hardware address."""
    return _matching(_MAC, text.lower(), "a MAC address")


def word(text: str) -> str:
    """A plain lower-case word of nft's language."""
    return _matching(_WORD, text, "a word")


def number(value: object, top: int = MAX_U32) -> int:
    """A number between 0 and `top`; text may be decimal or 0x…"""
    found = int(value, 0) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= top:
        raise ValueError(f"{value!r} is not a number from 0 to {top}")
    return found


def port(value: object) -> str:
    """A TCP or UDP port."""
    return str(number(value, 0xFFFF))


def mark(value: object) -> str:
    """A packet or connection mark, 0x00000100."""
    return f"0x{number(value):08x}"


def protocol(value: object) -> str:
    """A layer-4 protocol: by name if it is one of PROTOCOLS, else by number."""
    text = str(value)
    if text in PROTOCOLS.values():
        return text
    found = number(text, 0xFF)
    return PROTOCOLS.get(found, str(found))


def address(value: object) -> str:
    """An IPv4 address."""
    return str(IPv4Address(value) if isinstance(value, str) else _instance(value))


def match_value(field: Field, text: str) -> str:
    """What `field` is compared with, as nft prints it."""
    try:
        return _MATCH_VALUES[field](text)
    except (KeyError, ValueError) as exc:
        raise ValueError(f"{field} can't be matched with {text!r}") from exc


def _instance(value: object) -> IPv4Address:
    if not isinstance(value, IPv4Address):
        raise ValueError(f"{value!r} is not an IPv4 address")
    return value


def _matching(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not {what}")
    return text


def _link_pattern(text: str) -> str:
    return link(text.removesuffix("*")) + "*" * text.endswith("*")


def _network(text: str) -> str:
    return str(IPv4Network(text)).removesuffix("/32")


def _one_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(f"{text!r} is not one of {', '.join(words)}")
    return text


def _flags(words: tuple[str, ...], text: str) -> str:
    return ",".join(sorted({_one_of(words, word) for word in text.split(",")}, key=words.index))


def _tcp_flags(text: str) -> str:
    """syn (any of these is set), or syn / fin,syn (of those after the slash, these and no others are set)."""
    wanted, slash, among = (part.strip() for part in text.partition("/"))
    flags = _flags(_TCP_FLAGS, wanted)
    if not slash:
        return flags
    mask = _flags(_TCP_FLAGS, among)
    return flags if flags == mask and "," not in mask else f"{flags} / {mask}"


_MATCH_VALUES: Mapping[Field, Callable[[str], str]] = {
    "iifname": _link_pattern,
    "oifname": _link_pattern,
    "meta l4proto": protocol,
    "meta mark": mark,
    "ct mark": mark,
    "ip saddr": _network,
    "ip daddr": _network,
    "th sport": port,
    "th dport": port,
    "ether saddr": mac,
    "ether daddr": mac,
    "arp saddr ether": mac,
    "arp saddr ip": _network,
    "ct state": partial(_flags, _CT_STATES),
    "ct status": partial(_flags, _CT_STATUS),
    "ct direction": partial(_one_of, ("original", "reply")),
    "tcp flags": _tcp_flags,
    "fib saddr type": word,
    "fib daddr type": word,
}
