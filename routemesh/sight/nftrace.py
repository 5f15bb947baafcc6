"""What nftables does with the packets of one connection in a namespace: its own trace, made by a table that is there meanwhile.

The table belongs to the netlink socket that makes it (flags owner, Linux 5.12): nobody else can change it, and the kernel removes
it when the socket is closed, also when its process, which is libnftables' own, is killed. Its rules match the wanted packets
alone and only set their trace bit, which the kernel takes off where a packet leaves the namespace. Chains that are empty, first
and last at each hook, tell that the packet came to a hook and that it got through.
Source: nft(8) on meta nftrace; include/uapi/linux/netfilter/nf_tables.h (nft_trace_attributes); net/netfilter/nf_tables_trace.c.
"""

import re
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from routemesh import names
from routemesh.errors import KernelError
from routemesh.kernel.netlink import BUFFER_BYTES, SOL_NETLINK, Attributes, as_text, parse, replies
from routemesh.kernel.netlink.links import names_by_index
from routemesh.kernel.netlink.netfilter import FAMILIES, HEADER_BYTES, NETFILTER
from routemesh.kernel.netlink.numbers.nf_tables import NftaTrace, NftaVerdict, NftMessage
from routemesh.kernel.tables import libnftables
from routemesh.model import VXLAN_PORT
from routemesh.sight.packets import Parsed
from routemesh.sight.packets import parse as parse_packet
from routemesh.sightings import Edge, How, SeenPacket, Wanted
from routemesh.values import replace

_ADD_MEMBERSHIP, _TRACE_GROUP = 1, 9
_RECEIVE_BUFFER_FORCE, _BUFFER_BYTES = 33, 4 << 20
_VERDICTS: Mapping[int, str] = {
    0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"
}  # fmt: skip
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_FIRST, _LAST = -1_000_000, 1_000_000
_CARRIED_PORT_BITS = (8 + 8 + 14 + 20) * 8
"""From a tunnel's UDP header to the ports of what it carries: UDP, VXLAN, Ethernet and IP headers."""
_MOST_KEPT = 100_000
"""So many events are kept, the newest; a packet causes some twenty."""
_RULE = re.compile(r"\t\t(?P<text>.*) # handle (?P<handle>\d+)")
_EDGES: Mapping[str, Edge] = {"begins": "begins", "ends": "ends"}
"""By how the chains of the trace are called."""


class _Event(NamedTuple):
    """A message of the kernel, with a number in place of the rule's text."""

    device: str
    family: str
    table: str
    chain: str
    handle: int
    verdict: str
    packet: Parsed


class NfTrace:
    """The trace of what is `wanted` in the calling thread's namespace, under a name that ends in `tag`.

    Raises KernelError where the kernel makes no such table, OSError where it gives no socket, Unavailable without libnftables.
    """

    def __init__(self, wanted: Wanted, tag: str) -> None:
        self._wanted = wanted
        self._links = names_by_index()
        self._events: deque[_Event] = deque(maxlen=_MOST_KEPT)
        self._packets: dict[bytes, tuple[str, Parsed]] = {}
        self._table = f"{names.TRACE_TABLE}{tag}"
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _BUFFER_BYTES)
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, _TRACE_GROUP)
            self._context = libnftables.Context(_ruleset(self._table, wanted))
        except BaseException:
            self._socket.close()
            raise
        if self._context.made.code != 0:
            self.close()
            said = self._context.made.error.strip().partition("\n")[0].removeprefix("Error: ")
            raise KernelError(f"nft add table ip {self._table}", said or "libnftables gave no reason")

    def fileno(self) -> int:
        """The file descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Keep what came since the last look. Raises OSError with ENOBUFS when there was more than the socket could hold."""
        while True:
            try:
                data = self._socket.recv(BUFFER_BYTES)
            except BlockingIOError:
                return
            for message in replies(data):
                if message.kind == NftMessage.TRACE and len(message.body) >= HEADER_BYTES:
                    event = self._event(message.body[0], parse(message.body, HEADER_BYTES))
                    self._events += [] if event is None else [event]
            if len(self._packets) > _MOST_KEPT:
                self._packets.clear()

    def seen(self, namespace: str) -> Iterator[SeenPacket]:
        """What was kept, in order, without times."""
        texts = self._rules()
        for event in self._events:
            hook = event.table == self._table
            if (hook and event.chain.endswith("-trace")) or (not event.handle and event.verdict == "continue"):
                continue
            how: How = "hook" if hook else "rule"
            chain = f"{event.family} {event.table} {event.chain}"
            at, _, edge = event.chain.partition("-")
            yield replace(
                event.packet.seen(namespace, event.device, how),
                chain=at if hook else chain,
                edge=_EDGES.get(edge, "") if hook else "",
                rule=texts.get((chain, event.handle), "policy" if not event.handle else f"rule {event.handle}"),
                verdict=event.verdict,
            )

    def close(self) -> None:
        """Take the table away, with the sockets."""
        self._socket.close()
        with suppress(OSError):  # its process has ended, and the table with it
            self._context.close()

    def _event(self, family: int, found: Attributes) -> _Event | None:
        """`family` is the table's; the attribute of that name has the packet's, which for an inet table is another."""
        packet = self._packet(found)
        if packet is None:
            return None
        verdict = parse(found.get(NftaTrace.VERDICT, b""))
        number = int.from_bytes(verdict.get(NftaVerdict.CODE, found.get(NftaTrace.POLICY, b"")), "big", signed=True)
        target = as_text(verdict[NftaVerdict.CHAIN]) if NftaVerdict.CHAIN in verdict else ""
        return _Event(
            device=packet[0],
            family=FAMILIES.get(family, ""),
            table=as_text(found.get(NftaTrace.TABLE, b"")),
            chain=as_text(found.get(NftaTrace.CHAIN, b"")),
            handle=int.from_bytes(found.get(NftaTrace.HANDLE, b""), "big"),
            verdict=f"{_VERDICTS.get(number, str(number))} {target}".rstrip(),
            packet=packet[1],
        )

    def _packet(self, found: Attributes) -> tuple[str, Parsed] | None:
        """The device and the packet: the kernel tells of them once in a chain, and then only the packet's number."""
        number = found.get(NftaTrace.ID, b"")
        if NftaTrace.NETWORK not in found:
            return self._packets.get(number)
        packet = parse_packet(found[NftaTrace.NETWORK] + found.get(NftaTrace.TRANSPORT, b""), self._wanted)
        if packet is None:
            return None
        mark = int.from_bytes(found.get(NftaTrace.MARK, b""), "big")
        index = int.from_bytes(found.get(NftaTrace.IN, found.get(NftaTrace.OUT, b"")), "big")
        packet = packet._replace(headers=replace(packet.headers, mark=mark))
        self._packets[number] = self._links.get(index, ""), packet
        return self._packets[number]

    def _rules(self) -> dict[tuple[str, int], str]:
        """The texts of all rules of the chains that were met, by chain and handle."""
        found: dict[tuple[str, int], str] = {}
        for family, table in dict.fromkeys((event.family, event.table) for event in self._events if event.table != self._table):
            with suppress(OSError):
                listed = self._context.run(f"list table {family} {table}", "handle", "stateless", "terse")
                found |= _texts(family, table, listed.printed)
        return found


def _texts(family: str, table: str, listed: str) -> Iterator[tuple[tuple[str, int], str]]:
    chain = ""
    for line in listed.splitlines():
        if line.startswith("\tchain "):
            chain = line.split()[1]
        elif rule := _RULE.fullmatch(line):
            yield (f"{family} {table} {chain}", int(rule["handle"])), rule["text"]


def _ruleset(table: str, wanted: Wanted) -> str:
    """The table; its rules are before all others at the two hooks where a packet begins."""
    ports = "{ " + ", ".join(map(str, wanted.ports)) + " }"
    there, back = (f"meta l4proto {wanted.protocol}",) * 2
    if wanted.sources:
        sources = "{ " + ", ".join(wanted.sources) + " }"
        there, back = f"{there} ip saddr {sources}", f"{back} ip daddr {sources}"
    if wanted.port:
        there, back = f"{there} th sport {wanted.port}", f"{back} th dport {wanted.port}"
    elif wanted.protocol == "tcp":
        there, back = f"{there} tcp flags & syn == syn", f"{back} tcp flags & syn == syn"
    first, second = (f"@th,{bits},16" for bits in (_CARRIED_PORT_BITS, _CARRIED_PORT_BITS + 16))
    client, tunnel = f" {wanted.port}" if wanted.port else "", f"udp dport {VXLAN_PORT}"
    matches = (
        f"{there} th dport {ports}",
        f"{back} th sport {ports}",
        f"{tunnel} {second} {ports}" + f" {first}{client}" * bool(client),
        f"{tunnel} {first} {ports}" + f" {second}{client}" * bool(client),
    )
    lines = [f"table ip {table} {{", "flags owner"]
    for hook in ("prerouting", "output"):
        lines += [f"chain {hook}-trace {{ type filter hook {hook} priority {_FIRST}; policy accept;"]
        lines += [*(f"{match} meta nftrace set 1" for match in matches), "}"]
    for hook in _HOOKS:
        for edge, priority in (("begins", _FIRST + 1), ("ends", _LAST)):
            lines.append(f"chain {hook}-{edge} {{ type filter hook {hook} priority {priority}; policy accept; }}")
    return "\n".join([*lines, "}"])
