"""A kernel in memory that behaves like the real one: the same contract tests pass on both (tests/kernel/test_contract.py).

What it does not have: traffic, connections, and namespaces of others.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import groupby
from pathlib import Path

from routemesh.kernel.fake.state import Contents, Items, KernelRefusal
from routemesh.language import command
from routemesh.model import Listener
from routemesh.model import Protocol as L4
from routemesh.nodeplan import (
    HOST,
    Capabilities,
    Chain,
    CtTimeouts,
    Delete,
    Element,
    Failure,
    IpvsTimeouts,
    Map,
    Namespace,
    NodePlan,
    Op,
    Sysctl,
    Table,
    XtChain,
    XtRule,
    comes_along,
    item_of,
    key,
)
from routemesh.nodeplan.ranges import Occupied

_INITIAL_SETTING = "0"
_INITIAL_TIMEOUTS = IpvsTimeouts(tcp_s=900, tcp_fin_s=120, udp_s=300)


class FakeKernel:
    """For tests, which may set `listening`, `obstacles`, `ranges`, `clients` (what packets taught it) and `refuse` (why an
    operation must fail, or None) at any time.

    `applied`, `flushed` and `handed_over` are what was asked of it so far.
    """

    def __init__(self, capabilities: Capabilities | None = None) -> None:
        self.listening: tuple[Listener, ...] = ()
        self.obstacles: tuple[str, ...] = ()
        self.ranges: tuple[Occupied, ...] = ()
        self.clients: dict[str, tuple[Element, ...]] = {}
        self.refuse: Callable[[Op], str | None] = lambda op: None
        self.applied: list[Op] = []
        self.flushed: list[tuple[str, L4]] = []
        self.open_connections: dict[str, int] = {}
        self.handed_over: dict[str, Path] = {}
        self._capabilities = capabilities or Capabilities(nf_tables=True, ip_vs=False, kernel="fake")
        self._state = Contents()
        self._on_change: Callable[[], None] | None = None

    def capabilities(self) -> Capabilities:
        """What the test gave."""
        return self._capabilities

    def renewed(self, caps: Capabilities) -> Capabilities:
        """What the test gave."""
        return self._capabilities

    def underlay_mtu(self) -> int:
        """What the test gave as a capability."""
        return self._capabilities.mtu_bytes

    def read(self, want: NodePlan) -> NodePlan:
        """See Kernel.read; a setting that nobody has set is 0."""
        found: dict[str, Items] = {}
        for netns, items in self._state.namespaces.items():
            wanted = want.namespaces.get(netns, {})
            shown: Items = {
                name: item
                for name, item in items.items()
                if not isinstance(item, Sysctl | IpvsTimeouts) and (name in wanted or not comes_along(item))
            }
            for item in want.namespaces.get(netns, {}).values():
                if isinstance(item, Sysctl) and self._state.has_setting(netns, item.path):
                    shown[key(item)] = items.get(key(item), Sysctl(item.path, _INITIAL_SETTING))
                elif isinstance(item, IpvsTimeouts):
                    shown[key(item)] = items.get(key(item), _INITIAL_TIMEOUTS)
            found[netns] = _claimed(shown, want.namespaces.get(netns, {})) if netns == HOST else shown
        return NodePlan({netns: items for netns, items in found.items() if items})

    def apply(self, ops: Sequence[Op]) -> tuple[Failure, ...]:
        """See Kernel.apply."""
        self.applied += ops
        return tuple(self._apply(ops))

    def flush_flows(self, netns: str, protocol: L4, pool: IPv4Network, keep: Collection[IPv4Address]) -> int:
        """Noted in `flushed`."""
        self.flushed.append((netns, protocol))
        return 0

    def flush_untranslated(self, netns: str, protocol: L4, ports: Collection[int]) -> int:
        """Noted in `flushed`."""
        self.flushed.append((netns, protocol))
        return 0

    def unfinished(self, netns: str) -> int:
        """What the test put into `open_connections`."""
        return self.open_connections.get(netns, 0)

    def reset(self, netns: str) -> int:
        """Taken out of `open_connections`."""
        return self.open_connections.pop(netns, 0)

    def learned(self, netns: str) -> tuple[Element, ...]:
        """What the test put into `clients`."""
        return self.clients.get(netns, ())

    def unlearn(self, netns: str, elements: Sequence[Element]) -> None:
        """Occupied out of `clients`."""
        self.clients[netns] = tuple(element for element in self.learned(netns) if element not in elements)

    def hand_over(self, name: str, namespace: Path | None) -> None:
        """Noted in `handed_over`."""
        if namespace is None:
            self.handed_over.pop(name, None)
        else:
            self.handed_over[name] = namespace

    def occupied(self) -> tuple[Occupied, ...]:
        """What the test put into `ranges`."""
        return self.ranges

    def listeners(self) -> tuple[Listener, ...]:
        """What the test put into `listening`."""
        return self.listening

    def foreign(self, want: NodePlan) -> tuple[str, ...]:
        """The links of `add_foreign_link` whose name is wanted, and what the test put into `obstacles`."""
        strangers = (name for netns, name in sorted(self._state.strangers) if ("Link", name) in want.namespaces.get(netns, {}))
        return (*(f"link {name} is not routemesh's" for name in strangers), *self.obstacles)

    def netns_path(self, name: str) -> Path:
        """A path that does not exist."""
        return Path("/nonexistent/netns", name)

    def watch(self, on_change: Callable[[], None]) -> None:
        """See Kernel.watch; others do what is given to `by_others`."""
        self._on_change = on_change

    def close(self) -> None:
        """Nothing to let go of."""

    def by_others(self, *ops: Op) -> None:
        """Somebody else changes the kernel, by hand."""
        failures = tuple(self._apply(ops))
        assert not failures, failures
        if self._on_change is not None:
            self._on_change()

    def add_foreign_link(self, netns: str, name: str) -> None:
        """Somebody else makes a link."""
        self._state.strangers.add((netns, name))

    def _apply(self, ops: Sequence[Op]) -> Iterator[Failure]:
        for in_transactions, run in groupby(ops, _is_rule):
            willing = []
            for op in run:
                reason = self.refuse(op)
                if reason is None:
                    willing.append(op)
                else:
                    yield self._failure(op, reason)
            for op, reason in self._transactions(willing) if in_transactions else self._one_by_one(willing):
                yield self._failure(op, reason)

    def _one_by_one(self, ops: Sequence[Op]) -> Iterator[tuple[Op, str]]:
        for op in ops:
            try:
                if isinstance(op, Delete):
                    self._state.delete(op.netns, op.item)
                else:
                    self._state.put(op.netns, item_of(op))
            except KernelRefusal as refused:
                yield op, str(refused)

    def _transactions(self, ops: Sequence[Op]) -> Iterator[tuple[Op, str]]:
        for netns in dict.fromkeys(op.netns for op in ops):
            yield from self._state.transact(netns, [op for op in ops if op.netns == netns])

    def _failure(self, op: Op, reason: str) -> Failure:
        try:
            return Failure(op, command(op, self.netns_path), reason)
        except ValueError:
            return Failure(op, "no command", reason)


def _is_rule(op: Op) -> bool:
    return isinstance(item_of(op), Table | CtTimeouts | Map | Chain | Element | XtChain | XtRule)


def _claimed(items: Items, want: Namespace) -> Items:
    """A node's iptables: a rule stands where it is wanted; without one of ours, a chain of our name is ours only if wanted."""
    among_rules = any(isinstance(item, XtRule) for item in items.values())
    kept = {name: item for name, item in items.items() if among_rules or not isinstance(item, XtChain) or name in want}
    return {name: want.get(name, item) if isinstance(item, XtRule) and item.copies == 1 else item for name, item in kept.items()}
