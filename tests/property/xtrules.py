"""Random rules and chains that iptables can have, in the form in which iptables-save lists them."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from routemesh.nodeplan import (
    BUILT_IN,
    Assign,
    ClampMss,
    Dnat,
    IpvsMatch,
    MarkMatch,
    Masquerade,
    Match,
    Redirect,
    Reject,
    Rule,
    Snat,
    Statement,
    Verdict,
    XtChain,
    XtRule,
    XtTable,
)

ports = st.integers(0, 0xFFFF)
marks = st.integers(0, 0xFFFFFFFF)
addresses = st.integers(0, 0xFFFFFFFF).map(IPv4Address)
networks = st.tuples(addresses, st.integers(1, 32)).map(lambda drawn: str(IPv4Network(drawn, strict=False)).removesuffix("/32"))
links = st.from_regex(r"[a-zA-Z0-9_.-]{1,14}\*?", fullmatch=True)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
NAMES = ("A", "DOCKER-INGRESS", "a.b_c/d")


def listed(words: Sequence[str]) -> st.SearchStrategy[str]:
    """Some of `words`, in their order."""
    return st.sets(st.sampled_from(words), min_size=1).map(lambda drawn: ",".join(sorted(drawn, key=words.index)))


@st.composite
def flags(draw: st.DrawFn) -> str:
    known = ("fin", "syn", "rst", "psh", "ack", "urg")
    mask = draw(listed(known))
    wanted = draw(listed(mask.split(",")))
    return wanted if wanted == mask and "," not in mask else f"{wanted} / {mask}"


def compared(field: str, values: st.SearchStrategy[str], *, negate: bool = True) -> st.SearchStrategy[Statement]:
    return st.builds(Match, st.just(field), values, st.booleans() if negate else st.just(False))


BASIC = (
    compared("ip saddr", networks),
    compared("ip daddr", networks),
    compared("iifname", links),
    compared("oifname", links),
)
OF_A_PORT = (
    compared("th sport", ports.map(str)),
    compared("th dport", ports.map(str)),
)
CONDITIONS: tuple[st.SearchStrategy[Statement], ...] = (
    compared("ct state", listed(("invalid", "established", "related", "new", "untracked"))),
    compared("ct status", listed(("snat", "dnat"))),
    compared("ct status", listed(("expected", "seen-reply", "assured", "confirmed"))),
    compared("ct direction", st.sampled_from(["original", "reply"]), negate=False),
    compared("ether saddr", macs),
    compared("fib saddr type", st.sampled_from(["local", "unicast", "multicast"])),
    compared("fib daddr type", st.sampled_from(["local", "unicast", "multicast"])),
    st.builds(MarkMatch, st.sampled_from(["meta mark", "ct mark"]), marks, marks),
    marks.map(lambda value: Match("meta mark", f"0x{value:08x}", True)),
    st.just(IpvsMatch()),
)
TARGETS: tuple[st.SearchStrategy[Statement], ...] = (
    st.builds(Verdict, st.sampled_from(["accept", "drop", "return"])),
    st.builds(Verdict, st.sampled_from(["jump", "goto"]), st.sampled_from(NAMES)),
    st.builds(Assign, st.sampled_from(["meta mark", "ct mark"]), marks),
    st.sampled_from([Assign("meta mark", "ct mark"), Assign("ct mark", "meta mark")]),
    st.builds(Dnat, addresses, st.none() | ports),
    st.builds(Snat, addresses),
    st.just(Masquerade()),
    st.builds(Redirect, ports),
    st.builds(Reject, st.sampled_from(["tcp reset", "icmp port-unreachable"])),
    st.builds(ClampMss, st.integers(0, 65515)),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Rules as iptables-save would list their parts."""
    found: list[Statement] = [part for each in BASIC if (part := draw(st.none() | each)) is not None]
    protocol = draw(st.sampled_from(["", "tcp", "udp", "sctp", "icmp", "99"]))
    more = list(CONDITIONS)
    if protocol:
        negate = draw(st.booleans())
        found.append(Match("meta l4proto", protocol, negate))
        if not negate and protocol in ("tcp", "udp", "sctp"):
            more += OF_A_PORT
        if not negate and protocol == "tcp":
            more.append(compared("tcp flags", flags()))
    found += draw(st.lists(st.one_of(more), max_size=4))
    return (*found, *draw(st.lists(st.one_of(TARGETS), max_size=1)))


@st.composite
def chains(draw: st.DrawFn) -> XtChain:
    table: XtTable = draw(st.sampled_from(["raw", "mangle", "nat", "filter"]))
    name = draw(st.sampled_from([*BUILT_IN[table], *NAMES]))
    inside = tuple(draw(st.lists(rules(), max_size=3)))
    if name in NAMES:
        return XtChain(table, name, inside)
    return XtChain(table, name, inside, draw(st.sampled_from(["ACCEPT", "DROP"])) if inside else "DROP")


@st.composite
def among_others(draw: st.DrawFn) -> XtRule:
    """A rule of ours in a built-in chain of a node's."""
    table: XtTable = draw(st.sampled_from(["mangle", "nat", "filter"]))
    jump = (Verdict("jump", "DOCKER-INGRESS"),)
    rule = draw(rules().filter(lambda rule: not any(isinstance(part, Verdict) and part.chain for part in rule)))
    inside = jump if table != "mangle" and draw(st.booleans()) else rule
    return XtRule(table, draw(st.sampled_from(BUILT_IN[table])), inside, head=draw(st.booleans()))
