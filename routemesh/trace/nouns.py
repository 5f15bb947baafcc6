"""What a trace watches for, what it saw, and what it says, in plain types: the last is the JSON of `--format json`. PURE.

Whatever changes a field's name or meaning raises VERSION; a field that is added does not. Times in sightings are seconds since
the epoch by the clock of the node; in an answer they are seconds since the probe was sent.
"""

from dataclasses import dataclass
from typing import Literal

from routemesh.explain.nouns import Explanation, Headers
from routemesh.nodeplan import HOST

VERSION = 1

How = Literal["in", "out", "rule", "hook"]
"""By which a packet was seen: coming in or going out on a link; a rule that it fulfilled, or a chain's policy; a hook's edge."""

Mark = Literal["seen", "passed", "missing", "unwatched"]
"""A predicted step: its packet was seen; was not, but further on the way; was not; nobody looked there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The packets of one connection: from one of `sources` and `port`, to one of `ports`, and the answers.

    `port` 0: from any port; without `sources`: from anybody. Then of TCP only what opens a connection is looked at.
    `published`: the port that the client asks.
    """

    protocol: str
    port: int
    sources: tuple[str, ...]
    ports: tuple[int, ...]
    published: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One packet at one place of a namespace.

    `back`: it answers. `first`: it opens the connection, or is the first kind of answer to that. `flags`: what kind of packet it
    is (syn, syn ack, rst, icmp …). `identity` tells it from others of the same connection in this namespace. `port`: the
    client's. `elsewhere`: its frame is for another MAC than the link's, as at ports of bridges. Of rules: `chain` is family,
    table and name; `rule` the text, `verdict` what came of it. Of hooks: `chain` is hook and edge, as in "forward begins".
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

    def opens(self, opening: "Opening") -> bool:
        """Whether it is the first packet of such a connection."""
        here = (
            self.namespace == opening.namespace and opening.destination in ("", self.headers.destination) and not self.elsewhere
        )
        return here and self.first and not self.back and self.at >= opening.since


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A connection that is waited for: in which namespace of a node, to which address:port ("": any), not before when."""

    namespace: str = HOST
    destination: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What connection tracking has of it in one namespace: ends as address:port, of the request and of the answer."""

    namespace: str
    source: str
    destination: str
    answer_source: str
    answer_destination: str
    mark: int = 0
    state: str = ""
    replied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one node saw. `unwatched`: the namespaces, with the reason, where nothing or less was seen. `lost`: there was more."""

    node: str
    seen: tuple[Seen, ...]
    connections: tuple[Connection, ...]
    namespaces: tuple[str, ...]
    unwatched: tuple[str, ...] = ()
    rules: bool = True
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of the probe at its sender. `outcome`: it was answered; it was refused; nothing came; live: it is somebody's.

    `what` says so to people. `at`: when it was sent, `took_s`: until the answer, the refusal or the end of patience.
    """

    outcome: Literal["answered", "refused", "silence", "live"]
    what: str
    at: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Traced:
    """What was predicted, what became of the probe, and what the nodes saw.

    `onward`: the same of the connection that a proxy opened because of it.
    """

    prediction: Explanation
    sent: Sent
    observations: tuple[Observation, ...]
    onward: "Traced | None" = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A predicted step and what was seen of it. `step`: its number in the way, counted through there and back.

    `evidence`: what was seen, for people; `at_s`: when, None where nothing was.
    """

    step: int
    mark: Mark
    evidence: str = ""
    at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A place on the way: node, namespace, its name for people, device, when, and what was or should have been there."""

    node: str
    namespace: str
    place: str
    device: str
    what: str
    at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The answer. `way`: which of the predicted ways the packet took (-1: none is predicted). `agrees`: it did as predicted.

    `last`: the last step of the way where the packet was seen, `lost`: the first where it was not, though it should have been;
    None where it went all the way. `drops`: rules that were seen to drop it. `strays`: where it was seen though no step is there.
    `onward`: the same of the connection that the gateway's proxy opened because of it.
    """

    version: int
    prediction: Explanation
    way: int
    sent: Sent
    hops: tuple[Hop, ...]
    agrees: bool
    arrives: bool
    verdict: str
    last: Where | None
    lost: Where | None
    drops: tuple[str, ...]
    strays: tuple[Where, ...]
    observations: tuple[Observation, ...]
    notes: tuple[str, ...] = ()
    unwatched_nodes: tuple[str, ...] = ()
    onward: "Trace | None" = None

    @property
    def status(self) -> int:
        """The exit status: 0 it arrives as predicted, 3 it does not arrive, or not as predicted, 1 nobody can tell."""
        if self.agrees and self.prediction.outcome == "untold":
            return 1
        if not (self.agrees and self.arrives):
            return 3
        return 0 if self.onward is None else self.onward.status
