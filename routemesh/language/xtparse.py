"""One rule as iptables-save prints it, as our statements. PURE.

A rule is cut into parts: an address, interface or protocol (`! -o eth0`), a match with its options (`-m tcp --dport 80`), the
target with its own (`-j SNAT --to-source 10.0.0.2`). Each part becomes what it says in our vocabulary, or as a whole an Unknown
with its text. The marking of the module that belongs to a protocol (`-m tcp` without an option) says nothing.

Source: iptables(8), iptables-extensions(8); libxtables/xtables.c (xtables_chain_protos).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import lru_cache, partial
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Literal, NamedTuple

from routemesh.language.values import MAX_U32, mark, match_value, number, port
from routemesh.language.xtrule import REJECTIONS, tokens, unquoted
from routemesh.nodeplan import (
    Assign,
    ClampMss,
    Dnat,
    Field,
    IpvsMatch,
    MarkMatch,
    Masquerade,
    Match,
    Redirect,
    Reject,
    Rule,
    Snat,
    Statement,
    Unknown,
    Verdict,
)

_BASIC = ("-s", "-d", "-i", "-o", "-p", "-f")
_BEGINS = (*_BASIC, "-m", "-j", "-g")
_PROTOCOL_NUMBERS: Mapping[str, int] = {
    "igmp": 2, "ipencap": 4, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58,
    "ospf": 89, "pim": 103, "vrrp": 112, "ipv6-mh": 135, "mh": 135, "udplite": 136,
}  # fmt: skip
_STATES = ("invalid", "new", "related", "established", "untracked")
_TRANSLATED = ("snat", "dnat")
_STATUS = {"expected": "expected", "seen_reply": "seen-reply", "assured": "assured", "confirmed": "confirmed"}
_REJECTIONS = {text: with_ for with_, text in REJECTIONS.items()}


class ParsedRule(NamedTuple):
    """A rule's statements and its comment, "" for none."""

    rule: Rule
    comment: str


class _Option(NamedTuple):
    """`! --dport 80`."""

    name: str
    values: Sequence[str]
    negate: bool

    def value(self) -> str:
        """The only one; raises ValueError."""
        (value,) = self.values
        return value

    def affirmed(self) -> "_Option":
        """Itself; raises ValueError for a negation."""
        if self.negate:
            raise ValueError("a negation")
        return self


_Options = Sequence[_Option]


@lru_cache(maxsize=1 << 13)
def parse_rule(text: str, chains: Set[str]) -> ParsedRule:
    """What follows `-A CHAIN` in iptables-save's output; `chains` are the names of the table's chains.

    Remembered, since after a change nearly all rules are what they were: parsing one takes 70 µs.
    """
    found: list[Statement] = []
    comments = []
    for part in _parts(tokens(text)):
        match part:
            case ["-m", "comment", "--comment", comment]:
                comments.append(unquoted(comment))
            case ["-j" | "-g" as option, target, *rest]:
                found += _known(part, partial(_target, option, target, rest, chains))
            case ["-m", module, *rest]:
                found += _known(part, partial(_matches, module, rest))
            case _:
                found += _known(part, partial(_basic, part))
    return ParsedRule(tuple(found), " ".join(comments))


def _parts(line: Sequence[str]) -> Iterator[Sequence[str]]:
    """Each begins with an option of iptables itself, or with its negation."""
    for start, end in pairwise(sorted({0, *_starts(line), len(line)})):
        yield line[start:end]


def _starts(line: Sequence[str]) -> Iterator[int]:
    place = 0
    while place < len(line):
        if line[place] in _BEGINS:
            yield place - 1 if place and line[place - 1] == "!" else place
            place += line[place] != "-f"  # what follows is its value, whatever it looks like: a device may be called -m
        place += 1


def _known(part: Sequence[str], read: Callable[[], Sequence[Statement]]) -> Sequence[Statement]:
    try:
        return read()
    except (KeyError, ValueError):
        return [Unknown(" ".join(part))]


def _options(given: Sequence[str]) -> _Options:
    found: list[_Option] = []
    negate = False
    for token in given:
        if token == "!":
            negate = True
        elif token.startswith("--"):
            found.append(_Option(token, [], negate))
            negate = False
        elif found:
            found[-1] = _Option(found[-1].name, (*found[-1].values, unquoted(token)), found[-1].negate)
        else:
            raise ValueError(token)
    return found


# --- addresses, interfaces, protocol -----------------------------------------------------------------------------


def _basic(part: Sequence[str]) -> Sequence[Statement]:
    negate = part[0] == "!"
    option, value = part[negate:]
    match option:
        case "-s" | "-d":
            return [_comparison("ip saddr" if option == "-s" else "ip daddr", value, negate)]
        case "-i" | "-o":
            pattern = value[:-1] + "*" if value.endswith("+") else value
            return [_comparison("iifname" if option == "-i" else "oifname", pattern, negate)]
        case "-p":
            return [_comparison("meta l4proto", str(_PROTOCOL_NUMBERS.get(value, value)), negate)]
        case _:
            raise ValueError(option)


def _comparison(field: Field, value: str, negate: bool) -> Match:
    return Match(field, match_value(field, value), negate)


# --- matches -----------------------------------------------------------------------------------------------------


def _matches(module: str, given: Sequence[str]) -> Sequence[Statement]:
    """Raises KeyError or ValueError for what we have no word for."""
    known = _MODULES[module]
    return [known[option.name](option) for option in _options(given)]


def _simple(field: Field) -> Callable[[_Option], Statement]:
    return lambda option: _comparison(field, option.value(), option.negate)


def _word(field: Field) -> Callable[[_Option], Statement]:
    return lambda option: _comparison(field, option.value().lower(), option.negate)


def _tcp_flags(option: _Option) -> Statement:
    """`--tcp-flags MASK FLAGS`: of those in MASK, FLAGS are set and no others."""
    mask, flags = option.values
    return _comparison("tcp flags", f"{flags} / {mask}".lower(), option.negate)


def _ct_state(option: _Option) -> Statement:
    """One option for two things: how a connection stands, and whether it is translated. Not both at once."""
    words = option.value().lower().split(",")
    if all(word in _STATES for word in words):
        return _comparison("ct state", ",".join(words), option.negate)
    if all(word in _TRANSLATED for word in words):
        return _comparison("ct status", ",".join(words), option.negate)
    raise ValueError(option)


def _ct_status(option: _Option) -> Statement:
    words = option.value().lower().split(",")
    return _comparison("ct status", ",".join(_STATUS[word] for word in words), option.negate)


def _marked(field: Literal["meta mark", "ct mark"]) -> Callable[[_Option], Statement]:
    def read(option: _Option) -> Statement:
        value, mask = _masked(option.value())
        if not option.negate:
            return MarkMatch(field, value, mask)
        if mask != MAX_U32:
            raise ValueError(option)
        return Match(field, mark(value), True)

    return read


def _masked(text: str) -> tuple[int, int]:
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else MAX_U32


def _ipvs(option: _Option) -> Statement:
    if option.affirmed().values:
        raise ValueError(option)
    return IpvsMatch()


_PORTS = {"--sport": _simple("th sport"), "--dport": _simple("th dport")}
_MODULES: Mapping[str, Mapping[str, Callable[[_Option], Statement]]] = {
    "tcp": {**_PORTS, "--tcp-flags": _tcp_flags},
    "udp": _PORTS,
    "sctp": _PORTS,
    "state": {"--state": _ct_state},
    "conntrack": {"--ctstate": _ct_state, "--ctstatus": _ct_status, "--ctdir": _word("ct direction")},
    "mark": {"--mark": _marked("meta mark")},
    "connmark": {"--mark": _marked("ct mark")},
    "mac": {"--mac-source": _word("ether saddr")},
    "addrtype": {"--src-type": _word("fib saddr type"), "--dst-type": _word("fib daddr type")},
    "ipvs": {"--ipvs": _ipvs},
}


MODULES = frozenset(_MODULES)
"""The matches that are read as our own statements, most of their options at least."""

# --- targets -----------------------------------------------------------------------------------------------------


def _target(option: str, target: str, given: Sequence[str], chains: Set[str]) -> Sequence[Statement]:
    """Raises KeyError or ValueError for what we have no word for. A chain may bear the name of an extension."""
    options = [each.affirmed() for each in _options(given)]
    if option == "-g" or target in chains:
        _nothing(options)
        return [Verdict("goto" if option == "-g" else "jump", target)]
    return [_TARGETS[target](options)]


def _nothing(options: _Options) -> None:
    if options:
        raise ValueError(options)


def _only(options: _Options, name: str) -> str:
    """The value of the one option that is to be there."""
    (option,) = options
    if option.name != name:
        raise ValueError(option)
    return option.value()


def _verdict(kind: Literal["accept", "drop", "return"]) -> Callable[[_Options], Statement]:
    def read(options: _Options) -> Statement:
        _nothing(options)
        return Verdict(kind)

    return read


def _whole_mark(options: _Options) -> int:
    value, mask = _masked(_only(options, "--set-xmark"))
    if mask != MAX_U32:
        raise ValueError(options)
    return value


def _mark(options: _Options) -> Statement:
    return Assign("meta mark", _whole_mark(options))


def _connmark(options: _Options) -> Statement:
    how, *masks = options
    if how.name == "--set-xmark":
        return Assign("ct mark", _whole_mark(options))
    if [mask.name for mask in masks] != ["--nfmask", "--ctmask"] or any(number(mask.value()) != MAX_U32 for mask in masks):
        raise ValueError(options)
    return _COPIES[how.name]


def _dnat(options: _Options) -> Statement:
    address, colon, to_port = _only(options, "--to-destination").partition(":")
    return Dnat(IPv4Address(address), int(port(to_port)) if colon else None)


def _snat(options: _Options) -> Statement:
    return Snat(IPv4Address(_only(options, "--to-source")))


def _masquerade(options: _Options) -> Statement:
    _nothing(options)
    return Masquerade()


def _redirect(options: _Options) -> Statement:
    return Redirect(int(port(_only(options, "--to-ports"))))


def _reject(options: _Options) -> Statement:
    return Reject(_REJECTIONS[_only(options, "--reject-with")])


def _clamp(options: _Options) -> Statement:
    return ClampMss(int(port(_only(options, "--set-mss"))))


_COPIES: Mapping[str, Statement] = {
    "--save-mark": Assign("ct mark", "meta mark"),
    "--restore-mark": Assign("meta mark", "ct mark"),
}
_TARGETS: Mapping[str, Callable[[_Options], Statement]] = {
    "ACCEPT": _verdict("accept"),
    "DROP": _verdict("drop"),
    "RETURN": _verdict("return"),
    "MARK": _mark,
    "CONNMARK": _connmark,
    "DNAT": _dnat,
    "SNAT": _snat,
    "MASQUERADE": _masquerade,
    "REDIRECT": _redirect,
    "REJECT": _reject,
    "TCPMSS": _clamp,
}
TARGETS = frozenset(_TARGETS)
"""The targets that are read as our own statements, likewise."""
