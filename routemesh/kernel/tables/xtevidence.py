"""What the kernel itself says of a namespace's iptables, without a process: which tables there are, and whether they changed.

READ BACK (rule 4) without reading, as for nftables (docs/adr/0003). The nft variant's tables are attested by the ruleset's
generation. The legacy tables have no such number: there the rules themselves are compared, as the kernel holds them, with the
counters blanked; 200 published ports are 0.2 MB.

Source: include/uapi/linux/netfilter_ipv4/ip_tables.h, net/ipv4/netfilter/ip_tables.c (do_ipt_get_ctl),
net/netfilter/x_tables.c (ip_tables_names); include/uapi/linux/netfilter/nf_tables.h.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from errno import EAGAIN
from pathlib import Path
from typing import NamedTuple

from routemesh import names
from routemesh.kernel.netlink import Message, Requests, SocketPool, as_text, parse, text
from routemesh.kernel.netlink.netfilter import ANY_FAMILY, HEADER_BYTES, IPV4, NETFILTER
from routemesh.kernel.netlink.numbers.nf_tables import NftaGeneration, NftaRule, NftaTable, NftMessage
from routemesh.nodeplan import BUILT_IN

_LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
"""There once a kernel has legacy iptables, in every namespace."""
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct("=32s13I")
"""struct ipt_getinfo: the name, valid hooks, entry points, underflows, number of entries, their bytes."""
_ENTRIES = struct.Struct("=32sI")
_ENTRIES_AT = -(-_ENTRIES.size // ctypes.alignment(ctypes.c_uint64)) * ctypes.alignment(ctypes.c_uint64)
_NEXT_ENTRY = struct.Struct("=H")
_NEXT_ENTRY_AT, _COUNTERS_AT, _COUNTERS_BYTES = 90, 96, 16
"""In struct ipt_entry."""
_ATTEMPTS = 5

_libc = ctypes.CDLL(None, use_errno=True)

NftEvidence = tuple[int, frozenset[str]]
LegacyEvidence = tuple[tuple[str, bytes], ...]


class Evidence(NamedTuple):
    """Equal evidence means unchanged rules. Of a variant that has no tables it is empty, whatever else happens."""

    nft: NftEvidence | tuple[()]
    legacy: LegacyEvidence


NOTHING = Evidence((), ())


class Witness:
    """Asks the kernel about the namespace to which `enter` switches the calling thread. Its methods raise OSError."""

    def __init__(self, enter: Callable[[], AbstractContextManager[None]], pool: SocketPool | None = None) -> None:
        self._enter = enter
        self._requests = Requests(protocol=NETFILTER, enter=enter, pool=pool or SocketPool(1))
        self._has_nftables = True
        self._tables: NftEvidence = (-1, frozenset())

    def testify(self) -> Evidence:
        """How things are now."""
        return Evidence(self._nft(), self._legacy())

    def has_marks_of_ours(self, evidence: Evidence) -> bool:
        """Whether any rule may bear our comment, by a look at its bytes."""
        mark = names.ALIAS.encode()
        return any(mark in blob for _, blob in evidence.legacy) or any(mark in rule for rule in self._nft_rules(evidence))

    def close(self) -> None:
        """Close the socket."""
        self._requests.close()

    # --- the nft variant ---------------------------------------------------------------------------------------------

    def _nft(self) -> NftEvidence | tuple[()]:
        if not self._has_nftables:
            return ()
        try:
            generation = self._generation()
            if generation != self._tables[0]:
                self._tables = generation, self._table_names()
        except OSError:  # a kernel without nf_tables
            self._has_nftables = False
            return ()
        return self._tables if self._tables[1] else ()

    def _generation(self) -> int:
        (reply,) = self._requests.ask(Message(NftMessage.GET_GENERATION, 0, ANY_FAMILY))
        return int.from_bytes(parse(reply.body, HEADER_BYTES)[NftaGeneration.ID], "big")

    def _table_names(self) -> frozenset[str]:
        tables = self._requests.dump(NftMessage.GET_TABLE, IPV4)
        return frozenset(as_text(parse(table.body, HEADER_BYTES)[NftaTable.NAME]) for table in tables) & BUILT_IN.keys()

    def _nft_rules(self, evidence: Evidence) -> Iterator[bytes]:
        for table in evidence.nft[1] if evidence.nft else ():
            for rule in self._requests.dump(NftMessage.GET_RULE, IPV4 + text(NftaRule.TABLE, table)):
                yield rule.body

    # --- legacy ------------------------------------------------------------------------------------------------------

    def _legacy(self) -> LegacyEvidence:
        if not _LEGACY_TABLES.exists():
            return ()
        with self._enter():
            tables = sorted(_LEGACY_TABLES.read_bytes().decode("ascii", "backslashreplace").split())
            if not tables:
                return ()
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as asked:
                return tuple((table, _without_counters(_entries(asked, table))) for table in tables)


def _entries(asked: socket.socket, table: str) -> bytes:
    """All rules of a table, as struct ipt_entry. It may grow between two questions."""
    for _ in range(_ATTEMPTS):
        *_, size = _INFO.unpack(_get(asked, _GET_INFO, _INFO.pack(table.encode(), *(0,) * 13)))
        question = _ENTRIES.pack(table.encode(), size).ljust(_ENTRIES_AT + size, b"\0")
        with suppress(BlockingIOError):
            return _get(asked, _GET_ENTRIES, question)[_ENTRIES_AT:]
    raise OSError(EAGAIN, f"the table {table} never rests")


def _get(asked: socket.socket, option: int, question: bytes) -> bytes:
    """getsockopt(2) with an argument, which Python's own has not."""
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    if _libc.getsockopt(asked.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw


def _without_counters(entries: bytes) -> bytes:
    blanked = bytearray(entries)
    at = 0
    while at + _COUNTERS_AT + _COUNTERS_BYTES <= len(blanked):
        blanked[at + _COUNTERS_AT : at + _COUNTERS_AT + _COUNTERS_BYTES] = bytes(_COUNTERS_BYTES)
        (length,) = _NEXT_ENTRY.unpack_from(blanked, at + _NEXT_ENTRY_AT)
        if length == 0:
            break
        at += length
    return bytes(blanked)
