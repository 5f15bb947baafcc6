"""What the registry has of an engine: the nouns of its rows. PURE."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from routemesh.model import Network, Scheduler, Task
from routemesh.model import Protocol as L4
from routemesh.nodeplan import Capabilities, Element, Item, ItemKey
from routemesh.plan.pools import Pool
from routemesh.plan.view import NodeView


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A part of the kernel: the module that it is in ("" for none), its option CONFIG_…, and what is lost without it.

    `needed`: without it the engine (of those that every engine shares: any engine) does not work at all.
    """

    name: str
    module: str
    option: str
    without: str
    needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleFlows:
    """Conntrack entries in `netns` whose answers come from the overlay's pool, but from none of the addresses in `keep`."""

    netns: str
    protocol: L4
    keep: Collection[IPv4Address]


@dataclass(frozen=True, slots=True, kw_only=True)
class UntranslatedFlows:
    """Conntrack entries in `netns` to one of `ports` that were made while nothing translated them."""

    netns: str
    protocol: L4
    ports: Collection[int]


Stale = StaleFlows | UntranslatedFlows
"""Connections that a node must forget."""


class Clients(Protocol):
    """What a sandbox remembers of clients that stay with their tasks, and when it must forget them."""

    def learns(self, sandbox: Iterable[Item]) -> bool:
        """Whether, by its plan, a sandbox remembers clients."""
        ...

    def remembered(self, sandbox: Iterable[Item]) -> Set[ItemKey]:
        """The tasks that a client may be remembered with, by the sandbox's plan."""
        ...

    def outdated(self, sandbox: Iterable[Item], learned: Iterable[Element]) -> tuple[Element, ...]:
        """What was learned about clients of tasks that get no new connections any more."""
        ...


@dataclass(frozen=True, slots=True)
class Port:
    """A published port, and its protocol."""

    protocol: L4
    number: int


class Mend(Protocol):
    """The commands that a person types where a rule is missing and no node has a plan (a Docker Swarm, a recording); "": none."""

    def to_sandbox(self, port: Port, sandbox: IPv4Address) -> str:
        """What leads a published port to the sandbox, on the node."""
        ...

    def mark(self, sandbox: Iterable[Item], tasks: Collection[IPv4Address], told: int | None) -> int | None:
        """The mark of a service in a sandbox: that under which its `tasks` are balanced, else the one that the manager told."""
        ...

    def to_balancer(self, port: Port, mark: int) -> str:
        """What marks a published port, in the sandbox."""
        ...

    def to_target(self, port: Port, address: IPv4Address, target: int) -> str:
        """What redirects a published port to the target, in a task."""
        ...

    def to_task(self, sandbox: Iterable[Item], mark: int, address: IPv4Address) -> str:
        """What takes a task into a service, in the sandbox, or lets it take connections where it is in it already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """All that is known of an engine.

    `host`, `sandbox` and `tasks` plan: what goes into the node's own namespace, into a network's sandbox (with the network's
    pools), into a task's (a function, so that what all tasks have is made once). `lacks`: why it can't run on a kernel, "" if it
    can. `features`, `libraries` and `programs`: what it needs, for those who look at a
    machine. `stale`: the connections to be forgotten between two views (None: nobody knows what there was). `clients`: how
    clients are forgotten, None where none are remembered. `mend`: None where only a node's own plan mends.

    How it is carried out and walked is not part of it: kernel/ and walk/ know kinds of items, whichever engine plans them.
    """

    name: str
    schedulers: frozenset[Scheduler]
    host: Callable[[NodeView, Sequence[Pool], Capabilities], Iterator[Item]]
    sandbox: Callable[[NodeView, Network, Sequence[Pool], Capabilities], Iterator[Item]]
    tasks: Callable[[NodeView, Capabilities], Callable[[Task], Iterator[Item]]]
    lacks: Callable[[Capabilities], str]
    features: tuple[Feature, ...]
    libraries: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    stale: Callable[[NodeView | None, NodeView], Iterator[Stale]]
    clients: Clients | None = None
    mend: Mend | None = None
