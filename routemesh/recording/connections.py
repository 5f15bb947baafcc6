"""`conntrack -L` and `ss -lntup`: the connections that a namespace knows, and who waits for new ones. PURE.

Source: libnetfilter_conntrack's src/conntrack/snprintf_default.c; conntrack-tools' src/conntrack.c; iproute2's misc/ss.c.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address

from routemesh.model import Protocol
from routemesh.recording.source import Source, is_ipv6
from routemesh.snapshot import Bound, ConntrackEntry, Endpoint, Flow, Socket

_OTHER_PROTOCOLS = frozenset({"icmp", "icmpv6", "sctp", "dccp", "udplite", "gre", "unknown"})
_FLAG = re.compile(r"\[(\w+)\]")
_TCP_STATE = re.compile(r"[A-Z_0-9]+")


def read_conntrack(source: Source) -> Iterator[ConntrackEntry]:
    """TCP's and UDP's connections over IPv4; those of other protocols are passed over.

    What is translated shows in the answer's addresses: they do not mirror the question's.
    """
    for number, line in source.lines():
        words = line.split()
        if words[0] in ("ipv4", "ipv6"):  # conntrack -o extended, /proc/net/nf_conntrack
            words = words[2:] if words[0] == "ipv4" else ["unknown"]
        if words[0] in _OTHER_PROTOCOLS or any(is_ipv6(word.partition("=")[2]) for word in words if word.startswith("src=")):
            continue
        try:
            yield _entry(words)
        except (KeyError, ValueError, IndexError, StopIteration):
            source.odd(number, line)


def _entry(words: list[str]) -> ConntrackEntry:
    protocol = Protocol(words[0])
    timeout, rest = (words[2], words[3:]) if words[2].isdigit() else (None, words[2:])
    state = rest[0] if protocol is Protocol.TCP and _TCP_STATE.fullmatch(rest[0]) else ""
    pairs = [word.partition("=")[::2] for word in rest if "=" in word]
    ends = [(name, value) for name, value in pairs if name in ("src", "dst", "sport", "dport")]
    original, reply = (_flow(protocol, dict(ends[at : at + 4])) for at in (0, 4))
    told = dict(pairs)
    zone = int(told.get("zone", 0))
    flags = {found[1] for word in rest if (found := _FLAG.fullmatch(word)) is not None}
    unknown = flags - {"UNREPLIED", "ASSURED", "OFFLOAD", "HW_OFFLOAD"}
    if unknown:
        raise ValueError(unknown)
    return ConntrackEntry(
        original=original,
        reply=reply,
        zone=int(told.get("zone-orig", zone)),
        reply_zone=int(told.get("zone-reply", zone)),
        mark=int(told.get("mark", 0)),
        status=frozenset(_status(flags, original, reply)),
        state=state,
        timeout_s=None if timeout is None else int(timeout),
    )


def _flow(protocol: Protocol, ends: dict[str, str]) -> Flow:
    source = Endpoint(IPv4Address(ends["src"]), int(ends["sport"]))
    return Flow(protocol, source, Endpoint(IPv4Address(ends["dst"]), int(ends["dport"])))


def _status(flags: set[str], original: Flow, reply: Flow) -> Iterator[str]:
    yield "confirmed"  # only such ones are in the table
    if "UNREPLIED" not in flags:
        yield "seen-reply"
    if "ASSURED" in flags:
        yield "assured"
    if flags & {"OFFLOAD", "HW_OFFLOAD"}:
        yield "offload"
    if reply.destination != original.source:
        yield "snat"
    if reply.source != original.destination:
        yield "dnat"


_SOCKET = re.compile(
    r"(?P<protocol>tcp|udp)\s+(?P<state>[A-Z0-9-]+)\s+(?P<queued>\d+)\s+(?P<backlog>\d+)\s+(?P<address>\S+):(?P<port>\d+)\s+\S+(?:\s+(?P<users>users:\S+.*?))?\s*"
)
_USER = re.compile(r'\("(?P<name>[^"]*)",pid=(?P<pid>\d+)')
_WAITS = {"tcp": "LISTEN", "udp": "UNCONN"}


def read_sockets(source: Source) -> Iterator[Socket | Bound]:
    """Who listens on TCP ports and is bound to UDP ports; of IPv6 alone as Bound.

    `*` is a socket of IPv6 that takes IPv4 too, [::] one that does not.
    """
    for number, line in source.lines():
        if line.startswith(("Netid", "State")):
            continue
        found = _SOCKET.fullmatch(line)
        if found is None or found["state"] != _WAITS[found["protocol"]]:
            source.odd(number, line)
            continue
        user = _USER.search(found["users"] or "")
        try:
            address = _bound_to(found["address"].partition("%")[0])
        except ValueError:
            source.odd(number, line)
            continue
        if address is None:
            process = user["name"] if user else ""
            protocol = Protocol(found["protocol"])
            yield Bound(protocol=protocol, address=found["address"].strip("[]"), port=int(found["port"]), process=process)
        else:
            yield Socket(
                protocol=Protocol(found["protocol"]),
                address=address,
                port=int(found["port"]),
                process=user["name"] if user else "",
                pid=int(user["pid"]) if user else 0,
                queued=int(found["queued"]) if found["protocol"] == Protocol.TCP else 0,
                backlog=int(found["backlog"]) if found["protocol"] == Protocol.TCP else 0,
            )


def _bound_to(text: str) -> IPv4Address | None:
    """The address of a socket, None for one of IPv6 alone. Raises ValueError."""
    if text.startswith("[") and text.endswith("]"):
        mapped = text[1:-1].removeprefix("::ffff:")
        return None if is_ipv6(mapped) else IPv4Address(mapped)
    return IPv4Address("0.0.0.0" if text == "*" else text)
