"""What an explanation says, in plain types: it is the JSON of `--format json` as it stands (docs/explain.md). PURE.

Whatever changes a field's name or meaning raises VERSION; a field that is added does not.
"""

from typing import Literal

import msgspec

from routemesh.reasons.named import Named
from routemesh.sightings import Headers

VERSION = 2

UNTOLD = 4
"""The exit status of explain, trace and doctor for what can't be told."""

Outcome = Literal["reaches", "partly", "broken", "untold"]
"""Every way arrives; some do, or not all tasks are reached; none does; nobody can tell."""

Kind = Literal["rule", "element", "route", "neighbour", "fdb", "link", "ipvs", "conntrack", "socket", "proxy", "other"]
"""What decided at a step; `proxy`: a part of the gateway's, whose reasons are the rule."""

Tool = Literal["", "nft", "iptables", "iptables-legacy"]
"""Whose chain decided at a step."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks whom. `client` as a person would say it; `source` and `destination` are address:port. `service` that publishes
    the port, "" for none known; `node` is asked. `request` is a URL that the gateway is asked for, "" where it ends before."""

    client: str
    client_node: str
    client_namespace: str
    source: str
    destination: str
    protocol: str
    node: str
    port: int
    service: str
    request: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to the packet in one namespace.

    `node` "" is outside, `namespace` "" the node's own; `place` is its name for people. `what` happened, decided by something of
    `kind`: `rule` is its text, `show` the command that shows it, to be run on the node. `changed`: the fields of Headers that
    differ. `event`: what happened, as a value (reasons.events). Where a chain decided: of which `tool`, its `family` (nftables')
    and name. `failed`: here it ended; `why`.
    """

    node: str
    namespace: str
    place: str
    device: str
    what: str
    kind: Kind
    rule: str
    show: str
    before: Headers
    after: Headers
    event: Named
    tool: Tool = ""
    family: str = ""
    chain: str = ""
    changed: tuple[str, ...] = ()
    service: str = ""
    task: str = ""
    failed: bool = False
    why: str = ""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is not as it should be: where, what is wrong, and the commands that mend it, to be run on `node`.

    `step`: which of the way's steps shows it (counted through `there` and `back`), -1 where none does; `way`: which way, or -1.
    `by`: whose rule decided, where it is not the mesh's: a firewall's name (ufw, firewalld, Docker …), else its table.
    `reason`: what `why` says, as a value (reasons.causes). `look`: commands that show what ended it, where that is not the
    mesh's: its owner decides about it, and `mend` only lets packets like this one past it.
    """

    node: str
    namespace: str
    place: str
    why: str
    reason: Named
    mend: tuple[str, ...] = ()
    way: int = -1
    step: int = -1
    by: str = ""
    look: tuple[str, ...] = ()


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One of the ways that a new connection may take; `share` of all take it, as parts of a whole.

    `estimated`: the share is what the weights say, the choice depends on what can't be known. `arrives`: the request reaches a
    process and the answer the client. `end` says how it ends, `task` where. `peer`: whom the process takes for its client.
    `reason`: why it does not arrive (reasons.causes); None where it does.
    """

    share: tuple[int, int]
    estimated: bool
    there: tuple[Step, ...]
    back: tuple[Step, ...]
    arrives: bool
    end: str
    task: str = ""
    node: str = ""
    peer: str = ""
    reason: Named | None = None


SiteKind = Literal["host", "sandbox", "overlay", "task", "other"]
"""Whose namespace it is: the node's own, one that balances, an overlay's bridge and tunnel, a task's."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A network device: a bridge, a tunnel, or one with an address. `addresses` with their prefixes, the VIPs among them apart.

    `vni`: a tunnel's, else 0. `into`: the namespace of its node into which it leads ("": the node's own), None where it leads
    to none of those.
    """

    name: str
    kind: str
    addresses: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()
    vni: int = 0
    into: str | None = None


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of a node with its devices. `note`: why a task gets no connections, or why nothing of the site was read."""

    node: str
    namespace: str
    kind: SiteKind
    title: str
    devices: tuple[Device, ...] = ()
    service: str = ""
    note: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A node: its address on the underlay, on which device; `absent`: why nothing of it was read, or ""."""

    name: str
    address: str = ""
    device: str = ""
    absent: str = ""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What there is for a way to lead through, passed or not. `published`: PORT/PROTOCOL and the service that publishes it."""

    machines: tuple[Machine, ...] = ()
    sites: tuple[Site, ...] = ()
    published: tuple[tuple[str, str], ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `verdict` is one line; `causes` come in the order in which a packet meets them, the first is the verdict's.

    `reached`: the tasks that connections get to. `ways`: those that fail first. `notes`: what else is worth knowing.
    `unread_nodes`: of which nothing was read. `ground`: of the nodes, the service's tasks, and what carries its packets.
    """

    version: int
    question: Question
    outcome: Outcome
    verdict: str
    reached: tuple[str, ...]
    causes: tuple[Cause, ...]
    ways: tuple[Way, ...]
    notes: tuple[str, ...] = ()
    unread_nodes: tuple[str, ...] = ()
    ground: Ground = Ground()

    @property
    def status(self) -> int:
        """The exit status: 0 it reaches, 3 something on the way is broken, 4 nobody can tell."""
        return {"reaches": 0, "partly": 3, "broken": 3, "untold": UNTOLD}[self.outcome]
