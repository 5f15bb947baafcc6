"""A rule in iptables' language, as iptables-save prints it. PURE.

iptables prints addresses, interfaces and protocol first, in this order, then matches in the order in which they were given, and
the target last. A plan's rules should have that order, else they are replaced after every reading.

Source: iptables(8), iptables-extensions(8); libxtables/xtables.c (xtables_save_string).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from routemesh.language import values
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
    RejectWith,
    Rule,
    Snat,
    Statement,
    Unknown,
    Verdict,
)

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
_ESCAPED = re.compile(r"\\(.)")
_CHAIN = re.compile(r"[^\s\"'\\!-][^\s\"'\\]{0,27}")

_WITH_PORTS = ("tcp", "udp", "sctp")
_CT_STATES = ("invalid", "new", "related", "established", "untracked", "snat", "dnat")
_CT_STATUS = ("expected", "seen-reply", "assured", "confirmed")
_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg")
"""In the order in which iptables prints them."""

_WHOLE = f"--nfmask {values.MAX_U32:#x} --ctmask {values.MAX_U32:#x}"
_MARKS = {"meta mark": "mark", "ct mark": "connmark"}
REJECTIONS: Mapping[RejectWith, str] = {
    "tcp reset": "tcp-reset",
    "icmp net-unreachable": "icmp-net-unreachable",
    "icmp host-unreachable": "icmp-host-unreachable",
    "icmp prot-unreachable": "icmp-proto-unreachable",
    "icmp port-unreachable": "icmp-port-unreachable",
    "icmp net-prohibited": "icmp-net-prohibited",
    "icmp host-prohibited": "icmp-host-prohibited",
    "icmp admin-prohibited": "icmp-admin-prohibited",
}
"""What iptables calls what a refused sender gets."""


def rule_text(rule: Rule, comment: str = "", *, present: bool = False) -> str:
    """What follows `-A CHAIN`. Raises ValueError for what iptables has no word for.

    `present`: the rule is one that was read, to be deleted: what is Unknown of it goes back word for word.
    """
    conditions, target = _split(rule)
    parts = [*_conditions(conditions, present=present)]
    if comment:
        parts.append(f"-m comment --comment {values.name(comment)}")
    if target is not None:
        parts.append(_target(target))
    return " ".join(parts)


def chain_name(text: str) -> str:
    """A chain's name, which may be one that somebody else gave."""
    if _CHAIN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a chain's name")
    return text


def words(text: str) -> list[str]:
    """The words of a line in iptables-save's output."""
    return [unquoted(token) for token in tokens(text)]


def tokens(text: str) -> list[str]:
    """The words as they stand there; with quotes, if they have any."""
    return _TOKEN.findall(text)


def unquoted(token: str) -> str:
    """What a word means."""
    return _ESCAPED.sub(r"\1", token[1:-1]) if token.startswith('"') else token


def _split(rule: Rule) -> tuple[Rule, Statement | None]:
    last = rule[-1] if rule else None
    if last is None or isinstance(last, Match | MarkMatch | IpvsMatch | Unknown):
        return rule, None
    return rule[:-1], last


# --- conditions --------------------------------------------------------------------------------------------------


def _conditions(conditions: Rule, *, present: bool) -> Iterator[str]:
    protocol = ""
    for condition in conditions:
        match condition:
            case Match("meta l4proto", value, False):
                protocol = values.protocol(value)
                yield f"-p {protocol}"
            case Match("th sport" | "th dport" | "tcp flags" as field, value, negate):
                yield _of_protocol(field, value, negate, protocol)
            case Match(field, value, negate):
                yield _MATCHES[field](values.match_value(field, value), "! " * negate)
            case MarkMatch(field, value, mask):
                masked = "" if mask == values.MAX_U32 else f"/{values.number(mask):#x}"
                yield f"-m {_MARKS[field]} --mark {values.number(value):#x}{masked}"
            case IpvsMatch():
                yield "-m ipvs --ipvs"
            case Unknown(text) if present:
                yield text
            case _:
                raise _not_iptables(condition)


def _of_protocol(field: Field, value: str, negate: bool, protocol: str) -> str:
    if protocol not in _WITH_PORTS or (field == "tcp flags" and protocol != "tcp"):
        raise ValueError(f"{field} needs a protocol before it that has such a thing")
    spelled = values.match_value(field, value)
    option = f"--tcp-flags {_tcp_flags(spelled)}" if field == "tcp flags" else f"--{field.removeprefix('th ')} {spelled}"
    return f"-m {protocol} {'! ' * negate}{option}"


def _tcp_flags(text: str) -> str:
    """`syn` alone means itself among itself; several without a mask, any of which is enough, iptables can't ask for."""
    flags, slash, mask = text.partition(" / ")
    if not slash and "," in flags:
        raise ValueError(f"iptables can't match any of the flags {text}")
    return f"{_listed(_TCP_FLAGS, mask or flags)} {_listed(_TCP_FLAGS, flags)}"


def _listed(known: Sequence[str], text: str) -> str:
    """Words in iptables' order and spelling. Raises ValueError for one that it does not have."""
    return ",".join(sorted(text.split(","), key=known.index)).upper().replace("-", "_")


def _address(option: str) -> Callable[[str, str], str]:
    def text(value: str, negated: str) -> str:
        network = IPv4Network(value)
        if network.prefixlen == 0:
            raise ValueError("iptables forgets a condition that every address meets")
        return f"{negated}{option} {network}"

    return text


def _link(option: str) -> Callable[[str, str], str]:
    return lambda value, negated: f"{negated}{option} {value.replace('*', '+')}"


def _ct_status(value: str, negated: str) -> str:
    translated = set(value.split(",")) <= {"snat", "dnat"}
    return (
        f"-m conntrack {negated}--ctstate {_listed(_CT_STATES, value)}"
        if translated
        else f"-m conntrack {negated}--ctstatus {_listed(_CT_STATUS, value)}"
    )


def _ct_direction(value: str, negated: str) -> str:
    if negated:
        raise ValueError("iptables can't negate a connection's direction")
    return f"-m conntrack --ctdir {value.upper()}"


def _mark(field: str) -> Callable[[str, str], str]:
    return lambda value, negated: f"-m {_MARKS[field]} {negated}--mark {values.number(value):#x}"


def _nothing(value: str, negated: str) -> str:
    raise ValueError("iptables can't match a destination MAC address, ARP or a connection's original zone")


_MATCHES: Mapping[Field, Callable[[str, str], str]] = {
    "ip saddr": _address("-s"),
    "ip daddr": _address("-d"),
    "iifname": _link("-i"),
    "oifname": _link("-o"),
    "meta l4proto": lambda value, negated: f"{negated}-p {value}",
    "meta mark": _mark("meta mark"),
    "ct mark": _mark("ct mark"),
    "ct state": lambda value, negated: f"-m conntrack {negated}--ctstate {_listed(_CT_STATES, value)}",
    "ct status": _ct_status,
    "ct direction": _ct_direction,
    "ether saddr": lambda value, negated: f"-m mac {negated}--mac-source {value}",
    "ether daddr": _nothing,
    "arp saddr ether": _nothing,
    "arp saddr ip": _nothing,
    "ct original zone": _nothing,
    "fib saddr type": lambda value, negated: f"-m addrtype {negated}--src-type {value.upper()}",
    "fib daddr type": lambda value, negated: f"-m addrtype {negated}--dst-type {value.upper()}",
}


# --- targets -----------------------------------------------------------------------------------------------------


def _target(statement: Statement) -> str:
    match statement:
        case Verdict("jump" | "goto" as kind, chain):
            return f"{'-j' if kind == 'jump' else '-g'} {chain_name(chain)}"
        case Verdict(kind):
            return f"-j {values.word(kind).upper()}"
        case Assign():
            return _assignment(statement)
        case Dnat(IPv4Address() as address, port):
            return f"-j DNAT --to-destination {address}" + ("" if port is None else f":{values.port(port)}")
        case Snat(address):
            return f"-j SNAT --to-source {values.address(address)}"
        case Redirect(int(port)):
            return f"-j REDIRECT --to-ports {values.port(port)}"
        case Masquerade():
            return "-j MASQUERADE"
        case Reject(with_):
            return f"-j REJECT --reject-with {REJECTIONS[with_]}"
        case ClampMss(size):
            return f"-j TCPMSS --set-mss {values.port(size)}"
        case _:
            raise _not_iptables(statement)


def _assignment(statement: Assign) -> str:
    match statement:
        case Assign("meta mark", int(value)):
            return f"-j MARK --set-xmark {values.number(value):#x}/{values.MAX_U32:#x}"
        case Assign("ct mark", int(value)):
            return f"-j CONNMARK --set-xmark {values.number(value):#x}/{values.MAX_U32:#x}"
        case Assign("meta mark", "ct mark"):
            return f"-j CONNMARK --restore-mark {_WHOLE}"
        case Assign("ct mark", "meta mark"):
            return f"-j CONNMARK --save-mark {_WHOLE}"
        case _:
            raise _not_iptables(statement)


def _not_iptables(statement: Statement) -> ValueError:
    return ValueError(f"iptables can't do this, or not here in a rule: {statement!r}")
