"""What iptables' matches and targets of others mean for a packet, beyond what our own rules have. PURE.

A match says of a packet yes, no, or None: that depends on what nobody can see here (a rate, a clock, a set's contents), and then
both are supposed. `MATCHES` and `TARGETS` are the vocabulary that docs/vocabulary.md lists.

Source: iptables-extensions(8); the kernel's xt_*.c.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Literal, NamedTuple

from routemesh.language.values import MAX_U32, number
from routemesh.language.xtrule import tokens, unquoted
from routemesh.model import Protocol
from routemesh.nodeplan import Dnat, Masquerade, Redirect, Snat
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import Packet
from routemesh.walk.words import ClampToPath, Condition, CopyMark, Does, Nothing, SetMark, Test, Untrack, Word


class Option(NamedTuple):
    """`! --dport 80`."""

    name: str
    values: Sequence[str]
    negate: bool


Options = Sequence[Option]


@lru_cache(maxsize=1 << 12)
def word(text: str) -> Word | None:
    """What a part of a rule, as iptables-save prints it, means; None for what is not understood at all."""
    found = [unquoted(token) for token in tokens(text)]
    try:
        match found:
            case ["-m", module, *rest] if module in MATCHES:
                return Condition(MATCHES[module](_options(rest)))
            case ["-j", target, *rest] if target in TARGETS:
                return TARGETS[target](_options(rest))
            case ["-f"]:
                return Condition(lambda _: False)
            case ["!", "-f"]:
                return Condition(lambda _: True)
            case _:
                return None
    except (ValueError, KeyError, IndexError):
        return None


def is_match(text: str) -> bool:
    """Whether it is a condition, of whatever kind."""
    return text.startswith(("-m ", "! ", "-f"))


def _options(given: Sequence[str]) -> Options:
    found: list[Option] = []
    negate = False
    for token in given:
        if token == "!":
            negate = True
        elif token.startswith("--"):
            found.append(Option(token, [], negate))
            negate = False
        else:
            found[-1] = Option(found[-1].name, (*found[-1].values, token), found[-1].negate)
    return found


# --- conditions ---------------------------------------------------------------------------------------------------


def _either(test: Test, negate: bool) -> Test:
    def negated(flight: Flight) -> bool | None:
        held = test(flight)
        return None if held is None else held is not negate

    return negated


def _all(tests: Sequence[Test]) -> Test:
    def every(flight: Flight) -> bool | None:
        found = [test(flight) for test in tests]
        return False if False in found else None if None in found else True

    return every


def _each(by_option: Mapping[str, Callable[[Sequence[str]], Test]]) -> Callable[[Options], Test]:
    """Each option is a condition of its own; all must hold."""

    def read(options: Options) -> Test:
        return _all([_either(by_option[option.name](option.values), option.negate) for option in options])

    return read


def _with_ports(packet: Packet) -> bool:
    return not packet.error and not packet.arp


def _ranges(text: str) -> list[tuple[int, int]]:
    parts = (part.partition(":") for part in text.split(","))
    return [(int(low or 0), int(high or 65535) if colon else int(low)) for low, colon, high in parts]


def _ports(which: Literal["source", "destination", "either"]) -> Callable[[Sequence[str]], Test]:
    def read(values: Sequence[str]) -> Test:
        ranges = _ranges(values[0])

        def test(flight: Flight) -> bool | None:
            packet = flight.packet
            if not _with_ports(packet):
                return False
            of = {"source": [packet.source.port], "destination": [packet.destination.port]}
            ports = of.get(which) or [packet.source.port, packet.destination.port]
            return any(low <= port <= high for port in ports for low, high in ranges)

        return test

    return read


def _of_protocol(protocol: Protocol) -> Callable[[Options], Test]:
    """`-m tcp`, with ranges of ports; what a header's options say is not seen."""

    def read(options: Options) -> Test:
        known = {"--sport": _ports("source"), "--dport": _ports("destination"), "--syn": _syn}
        tests = [_either(known[each.name](each.values) if each.name in known else _unseen, each.negate) for each in options]
        return _all([lambda flight: flight.packet.protocol is protocol, *tests])

    return read


def _syn(_: Sequence[str]) -> Test:
    return lambda flight: "syn" in flight.packet.flags and not {"ack", "rst", "fin"} & flight.packet.flags


def _unseen(_: object) -> bool | None:
    return None


def _open(_: Options) -> Test:
    """It depends on what is in no packet: how many there were, when, what is in a set."""
    return _unseen


def _never(_: Options) -> Test:
    """No packet of TCP or UDP has it."""
    return lambda flight: None if flight.packet.error else False


def _always(_: Options) -> Test:
    return lambda _: True


def _between(end: Literal["source", "destination"]) -> Callable[[Sequence[str]], Test]:
    def read(values: Sequence[str]) -> Test:
        low, high = map(IPv4Address, values[0].split("-"))
        return lambda flight: bool(low <= getattr(flight.packet, end).address <= high)

    return read


def _marked(of: Callable[[Flight], int | None]) -> Callable[[Sequence[str]], Test]:
    def read(values: Sequence[str]) -> Test:
        value, mask = _masked(values[0])

        def test(flight: Flight) -> bool | None:
            mark = of(flight)
            return mark is not None and mark & mask == value

        return test

    return read


def _masked(text: str) -> tuple[int, int]:
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else MAX_U32


def _state(values: Sequence[str]) -> Test:
    """How a connection stands, and whether it is translated, in one list."""
    wanted = {word.lower() for word in values[0].split(",")}

    def test(flight: Flight) -> bool | None:
        connection = flight.connection
        if connection is None:
            return ("untracked" if flight.untracked else "invalid") in wanted
        if flight.packet.error:
            return "related" in wanted
        return ("new" if flight.new else "established") in wanted or bool(connection.status & wanted)

    return test


def _original(end: Literal["source", "destination"], part: Literal["address", "port"]) -> Callable[[Sequence[str]], Test]:
    def read(values: Sequence[str]) -> Test:
        wanted = values[0].removesuffix("/32")

        def test(flight: Flight) -> bool | None:
            connection = flight.connection
            return connection is not None and str(getattr(getattr(connection.original, end), part)) == wanted

        return test

    return read


def _statistic(options: Options) -> Test:
    by_name = {option.name: option for option in options}
    if "--probability" in by_name:
        share = Fraction(by_name["--probability"].values[0]).limit_denominator(1000)
        negate = by_name["--probability"].negate
    else:
        share, negate = Fraction(1, int(by_name["--every"].values[0])), by_name["--every"].negate

    def test(flight: Flight) -> bool | None:
        if share in (0, 1):
            return bool(share) is not negate
        weights = (share.numerator, share.denominator - share.numerator)
        return (flight.trip.choose(weights, True) == 0) is not negate

    return test


def _owner(options: Options) -> Test:
    """Only what a process of the namespace sends has an owner."""
    negated = any(option.negate for option in options)
    return lambda flight: False if flight.incoming and not negated else None


def _rpfilter(options: Options) -> Test:
    names = {option.name for option in options}

    def test(flight: Flight) -> bool | None:
        packet = flight.packet
        mark = packet.mark if "--validmark" in names else 0
        back = flight.stack.route(packet.source.address, mark, packet.destination.address)
        passes = back is not None and (back.link == flight.incoming or "--loose" in names)
        return (flight.incoming == "lo" or passes) is not ("--invert" in names)

    return test


def _physdev(options: Options) -> Test:
    """Without br_netfilter no packet at these hooks has a bridge's port."""
    negated = any(option.negate for option in options)
    return lambda flight: None if flight.stack.filters_bridges() else negated


def _pkttype(values: Sequence[str]) -> Test:
    return lambda flight: values[0] == "unicast" if not flight.packet.destination.address.is_multicast else None


def _addrtype(options: Options) -> Test:
    """`--src-type LOCAL --limit-iface-out`: an address of that device."""
    names = {option.name for option in options}
    tests = []
    for option in options:
        if option.name in ("--src-type", "--dst-type") and option.values[0] == "LOCAL":
            end: Literal["source", "destination"] = "source" if option.name == "--src-type" else "destination"
            tests.append(_either(_local_on(end, outgoing="--limit-iface-out" in names), option.negate))
        elif option.name not in ("--limit-iface-in", "--limit-iface-out"):
            tests.append(_unseen)
    return _all(tests)


def _local_on(end: Literal["source", "destination"], *, outgoing: bool) -> Test:
    def test(flight: Flight) -> bool | None:
        link = flight.outgoing if outgoing else flight.incoming
        address = getattr(flight.packet, end).address
        return any(own.ip == address for own in flight.stack.addresses_on(link))

    return test


def _policy(options: Options) -> Test:
    """Whether IPsec protects it is not seen, but for what comes from a process or goes to none (`--dir out` of nothing)."""
    return _unseen


def _u32(options: Options) -> Test:
    """Of u32's tests only Docker's, for a VNI behind the UDP header (moby, encryption.go, matchVXLAN), is understood."""
    expression = "".join(options[0].values).replace(" ", "").lower()
    shift, _, rest = expression.partition(">>")
    at, _, wanted = rest.partition("=")
    numbers = [int(part, 0) for part in (shift, *at.replace("&", "@").split("@"))]
    if numbers != [0, 22, 0x3C, 12, 0xFFFFFF00]:
        return _unseen
    vni = int(wanted, 0) >> 8

    def test(flight: Flight) -> bool | None:
        inner = flight.packet.inner
        return None if inner is None else (inner.vni == vni) is not options[0].negate

    return test


_CONNTRACK: Mapping[str, Callable[[Sequence[str]], Test]] = {
    "--ctstate": _state,
    "--ctorigsrc": _original("source", "address"),
    "--ctorigdst": _original("destination", "address"),
    "--ctorigsrcport": _original("source", "port"),
    "--ctorigdstport": _original("destination", "port"),
}

MATCHES: Mapping[str, Callable[[Options], Test]] = {
    "tcp": _of_protocol(Protocol.TCP),
    "udp": _of_protocol(Protocol.UDP),
    "multiport": _each(
        {"--sports": _ports("source"), "--dports": _ports("destination"), "--ports": _ports("either")}
    ),
    "iprange": _each(
        {"--src-range": _between("source"), "--dst-range": _between("destination")}
    ),
    "mark": _each({"--mark": _marked(lambda flight: flight.packet.mark)}),
    "connmark": _each({"--mark": _marked(lambda flight: None if flight.connection is None else flight.connection.mark)}),
    "conntrack": _each(_CONNTRACK),
    "state": _each({"--state": _state}),
    "addrtype": _addrtype,
    "statistic": _statistic,
    "owner": _owner,
    "rpfilter": _rpfilter,
    "physdev": _physdev,
    "pkttype": _each({"--pkt-type": _pkttype}),
    "u32": _u32,
    "icmp": _never,
    "icmp6": _never,
    "esp": _never,
    "ah": _never,
    "sctp": _never,
    "dccp": _never,
    "nfacct": _always,
    **dict.fromkeys(
        (
            "bpf", "cgroup", "connbytes", "connlimit", "cpu", "devgroup", "dscp", "ecn", "geoip", "hashlimit", "helper", "length",
            "limit", "policy", "quota", "realm", "recent", "set", "socket", "string", "tcpmss", "time", "tos", "ttl",
        ),
        _open,
    ),
}  # fmt: skip
"""By module; besides those of our own rules (language.xtparse)."""


ONLY_SUPPOSED = frozenset(name for name, read in MATCHES.items() if read is _open)
"""Of these nothing can be told of a packet."""
NEVER = frozenset(name for name, read in MATCHES.items() if read is _never)
"""These hold for no packet of TCP or UDP."""

# --- targets ------------------------------------------------------------------------------------------------------


def _mark_target(field: Literal["meta mark", "ct mark"]) -> Callable[[Options], Word]:
    def read(options: Options) -> Word:
        name, values = options[0].name, options[0].values
        if name in ("--save-mark", "--restore-mark"):
            masks = {option.name: number(option.values[0]) for option in options[1:]}
            return CopyMark(name == "--save-mark", masks.get("--nfmask", MAX_U32), masks.get("--ctmask", MAX_U32))
        value, mask = _masked(values[0])
        match name:
            case "--set-xmark":
                return SetMark(field, value, mask)
            case "--set-mark":
                return SetMark(field, value, mask | value)
            case "--or-mark":
                return SetMark(field, value, value)
            case "--and-mark":
                return SetMark(field, 0, MAX_U32 & ~value)
            case "--xor-mark":
                return SetMark(field, value, 0)
            case _:
                raise ValueError(name)

    return read


_PORTS_AT_RANDOM = frozenset({"--random", "--random-fully", "--persistent"})


def _kept(options: Options) -> dict[str, str]:
    """The options but for those that say only how a source port is chosen."""
    return {option.name: "".join(option.values) for option in options if option.name not in _PORTS_AT_RANDOM}


def _dnat(options: Options) -> Word:
    address, colon, port = _kept(options)["--to-destination"].partition(":")
    return Does(Dnat(IPv4Address(address), int(port) if colon else None))


def _snat(options: Options) -> Word:
    return Does(Snat(IPv4Address(_kept(options)["--to-source"].partition(":")[0])))


def _masquerade(_: Options) -> Word:
    return Does(Masquerade())


def _redirect(options: Options) -> Word:
    return Does(Redirect(int(_kept(options)["--to-ports"])))


def _ct(options: Options) -> Word:
    names = {option.name for option in options}
    if "--notrack" in names:
        return Untrack()
    if "--zone" in names or "--zone-orig" in names or "--zone-reply" in names:
        raise ValueError(names)
    return Nothing()


def _tcpmss(options: Options) -> Word:
    if options[0].name != "--clamp-mss-to-pmtu":
        raise ValueError(options)
    return ClampToPath()


def _nothing(_: Options) -> Word:
    return Nothing()


TARGETS: Mapping[str, Callable[[Options], Word]] = {
    "MARK": _mark_target("meta mark"),
    "CONNMARK": _mark_target("ct mark"),
    "DNAT": _dnat,
    "SNAT": _snat,
    "MASQUERADE": _masquerade,
    "REDIRECT": _redirect,
    "CT": _ct,
    "NOTRACK": lambda _: Untrack(),
    "TCPMSS": _tcpmss,
    **dict.fromkeys(
        (
            "AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "DSCP", "ECN", "IDLETIMER", "LED", "LOG", "NFLOG", "RATEEST",
            "SECMARK", "SET", "TOS", "TRACE", "TTL", "ULOG",
        ),
        _nothing,
    ),
}  # fmt: skip
"""By name; besides those of our own rules."""
