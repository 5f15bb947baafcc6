"""What daemons, and `routemesh cluster`, say to a manager about joining, as the API's JSON. PURE.

Certificates, keys and requests are PEM; times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from routemesh.model import Role
from routemesh.nodeplan.ranges import Occupied


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """What anyone may know: the roots of the cluster, which a token tells from others', and what time it is there."""

    cluster: str
    roots: tuple[str, ...]
    node: str
    now: float
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A machine that wants to be a node. `secret`: of a token; `port`: where its daemon will listen at `address`."""

    secret: str = field(repr=False)
    request: str
    name: str
    address: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    occupied: tuple[Occupied, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate, what it is believed by, and where the managers answer (HOST:PORT)."""

    node_id: str
    role: Role
    cluster: str
    chain: str
    roots: tuple[str, ...]
    managers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """A node that wants a new certificate for a new key."""

    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A role's token, and where its command leads."""

    role: Role
    token: str = field(repr=False)
    managers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node as `cluster status` shows it. `behind`: revisions that it has yet to apply, None for one that is down.

    `certified_until` 0: it has no certificate. `renewed`: that is of the root that signs now.
    """

    name: str
    address: str
    role: Role
    leads: bool
    state: str
    behind: int | None
    certified_until: float
    renewed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A cluster. `roots`: their digests, the one that signs first; none where nobody can join over the network."""

    cluster: str
    revision: int
    roots: tuple[str, ...]
    members: tuple[Member, ...]
    now: float
