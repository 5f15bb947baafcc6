"""What was seen of packets and of the devices that carry them: nouns that those who look and those who judge share. PURE.

Times are seconds since the epoch by the clock of the node.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from routemesh.model import Protocol
from routemesh.nodeplan import HOST
from routemesh.snapshot import Bound

How = Literal["in", "out", "rule", "hook"]
"""By which a packet was seen: coming in or going out on a link; a rule that it fulfilled, or a chain's policy; a hook's edge."""

Edge = Literal["", "begins", "ends"]
"""Of a hook: before anybody's rules in it, or behind them."""

SMALL_BYTES = 100
"""The size of a probe that gets through everything that lets anything through."""


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """A packet's headers: ends as address:port, MACs ("" where there is no Ethernet header), the kernel's mark, and the VNI of a
    packet that carries another (0: none)."""

    protocol: str
    source: str
    destination: str
    source_mac: str = ""
    destination_mac: str = ""
    mark: int = 0
    vni: int = 0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The packets of one connection: from one of `sources` and `port`, to one of `ports`, and the answers.

    `port` 0: from any port; without `sources`: from anybody. Then of TCP only what opens a connection is looked at.
    `published`: the port that the client asks.
    """

    protocol: str
    port: int
    sources: tuple[str, ...]
    ports: tuple[int, ...]
    published: int


class SeenPacket(msgspec.Struct, frozen=True, kw_only=True):
    """One packet at one place of a namespace.

    `back`: it answers. `first`: it opens the connection, or is the first kind of answer to that. `flags`: what kind of packet it
    is (syn, syn ack, rst, icmp …). `identity` tells it from others of the same connection in this namespace. `port`: the
    client's. `elsewhere`: its frame is for another MAC than the link's, as at ports of bridges. Of rules: `chain` is family,
    table and name; `rule` the text, `verdict` what came of it. Of hooks: `chain` is the hook, and `edge` says of which end of it.
    """

    namespace: str
    device: str
    at: float
    how: How
    headers: Headers
    flags: str
    back: bool
    first: bool
    identity: str
    port: int
    elsewhere: bool = False
    chain: str = ""
    rule: str = ""
    verdict: str = ""
    edge: Edge = ""

    def opens(self, opening: "Opening") -> bool:
        """Whether it is the first packet of such a connection."""
        here = (
            self.namespace == opening.namespace and opening.destination in ("", self.headers.destination) and not self.elsewhere
        )
        return here and self.first and not self.back and self.at >= opening.since


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that is waited for: in which namespace of a node, to which address:port ("": any), not before when."""

    namespace: str = HOST
    destination: str = ""
    since: float = 0.0


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What connection tracking has of it in one namespace: ends as address:port, of the request and of the answer."""

    namespace: str
    source: str
    destination: str
    answer_source: str
    answer_destination: str
    mark: int = 0
    state: str = ""
    replied: bool = False


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What one node saw. `unwatched`: the namespaces, with the reason, where nothing or less was seen. `lost`: there was more."""

    node: str
    seen: tuple[SeenPacket, ...]
    connections: tuple[Connection, ...]
    namespaces: tuple[str, ...]
    unwatched: tuple[str, ...] = ()
    rules: bool = True
    lost: bool = False


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender is to send: from `source` to `destination` (address:port), in a namespace of `node` ("": outside).

    `http`: the path to be asked for, "" for no request; `host`: whose name it bears.
    """

    node: str
    namespace: str
    protocol: str
    source: str
    destination: str
    http: str = ""
    host: str = ""
    timeout_s: float = 2.0


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the probe at its sender. `outcome`: it was answered; it was refused; nothing came; live: it is somebody's.

    `what` says so to people. `at`: when it was sent, `took_s`: until the answer, the refusal or the end of patience.
    `only_accepted`: of the answer just the handshake was seen, which the kernel makes.
    """

    outcome: Literal["answered", "refused", "silence", "live"]
    what: str
    at: float
    took_s: float
    only_accepted: bool = False


class PortQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A published port that is to be asked: of a task at its overlay `address`, by the node's sandbox, as the mesh does; with
    `task` "", of the node itself at its own address. `target`: where the process of a task in `netns` should listen."""

    protocol: Protocol
    port: int
    address: str
    task: str = ""
    netns: str = ""
    target: int = 0


Answering = Literal["accepted", "waits", "refused", "silence", "stopped", "bound", "unbound", "unasked"]
"""A process (of a node itself: somebody) took a connection, or only its kernel did; it was refused; nothing came. Not asked: the
process is stopped. Of UDP nothing is sent: a process is bound to the port, or none is. It could not be asked."""


class PortAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a question. `what`: why it could not be asked. `instead`: where processes of the task wait, if none does
    where it should; `process`: who waits there, "" for nobody or not known."""

    asked: PortQuestion
    outcome: Answering
    what: str = ""
    process: str = ""
    instead: tuple[Bound, ...] = ()

    @property
    def well(self) -> bool:
        """Whether it answers, as far as that was to be seen."""
        return self.outcome in ("accepted", "bound")


class Echoes(msgspec.Struct, frozen=True, kw_only=True):
    """What one node saw of packets through VXLAN between its sandbox and that of `peer`, none of which may be cut into fragments.

    `sizes` in bytes with the IP header, the largest is what the overlay takes. `answered`: which of them were answered. `heard`:
    which sizes of the peer's own probes arrived here. `refused`: why this node could not send the largest, or "".
    """

    peer: str
    sizes: tuple[int, ...]
    answered: tuple[int, ...]
    heard: tuple[int, ...]
    refused: str = ""


class Offload(msgspec.Struct, frozen=True, kw_only=True):
    """A network device that carries the tunnel: its driver, and whether the device is left to write checksums."""

    link: str
    driver: str
    checksums: bool


DISK_SUBJECT = "disk"
"""How a line about disks begins among what is wrong with a node."""
_NEARLY = 0.9
_LEAST_BYTES, _LEAST_INODES = 1 << 20, 16
"""With less than that nothing of use can be written."""


class Shortage(StrEnum):
    """What a file system is short of, in words that follow its name."""

    READ_ONLY = "is read-only"
    FULL = "is full"
    NO_INODES = "has no inodes left"
    NEARLY_FULL = "is nearly full"
    FEW_INODES = "has few inodes left"


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """The file system of a directory that a node needs. `free_…`: for anybody; sizes are 0 where it does not count them."""

    path: str
    size_bytes: int
    free_bytes: int
    inodes: int
    free_inodes: int
    read_only: bool = False

    @property
    def shortage(self) -> Shortage | None:
        """The worst of what is wrong with it. One that does not count inodes, or bytes (0 of them), is short of none."""
        if self.read_only:
            return Shortage.READ_ONLY
        if self.size_bytes and self.free_bytes < min(_LEAST_BYTES, self.size_bytes):
            return Shortage.FULL
        if self.inodes and self.free_inodes < min(_LEAST_INODES, self.inodes):
            return Shortage.NO_INODES
        if self.free_bytes < (1 - _NEARLY) * self.size_bytes:
            return Shortage.NEARLY_FULL
        return Shortage.FEW_INODES if self.free_inodes < (1 - _NEARLY) * self.inodes else None

    def line(self, short: Shortage) -> str:
        """That it is short of something, in words."""
        return f"the file system of {self.path} {short}"


def shortages(disks: Iterable[Disk]) -> str:
    """What several are short of, for a list of nodes, always the same for the same shortages; "" for nothing."""
    return "; ".join(disk.line(short) for disk in disks if (short := disk.shortage) is not None)
