"""Which differences from the plan a connection goes by: it is walked again with them mended. PURE.

A difference is to blame only if the ways end otherwise without it. All are mended together first; what still fails then has other
causes. Then they are left as they are, node by node, place by place, one by one, as long as the ways end as with all mended.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from routemesh.explain.mend import Repair, Repairs
from routemesh.explain.mended import mended
from routemesh.explain.way import failure_of
from routemesh.nodeplan import Op
from routemesh.snapshot import ClusterSnapshot
from routemesh.walk import Branch, Network, Walk

_MOST_SINGLE = 12
"""With more differences in one place they are not tried one by one."""

Ask = Callable[[Network], Walk]


@dataclass(frozen=True, slots=True)
class Numbered:
    """One of a node's repairs."""

    node: str
    netns: str
    number: int


Some = frozenset[Numbered]


@dataclass(frozen=True, slots=True)
class Blame:
    """`repairs`: those without which the ways end otherwise. `cluster` and `walk`: as it would be with all mended."""

    repairs: Repairs
    cluster: ClusterSnapshot
    walk: Walk
    sure: bool = True
    """Whether it was walked again."""

    def remains(self, branch: Branch) -> bool:
        """Whether it is known that a way ends so even then."""
        return self.sure and any(other.outcome == branch.outcome for other in self.walk)

    def goes(self, branch: Branch) -> bool:
        """Whether it is known that none ends so then."""
        return self.sure and not self.remains(branch)


@dataclass(slots=True)
class Mending:
    """A cluster with its differences, for a caller that has hundreds of questions to it. `network`: as it is."""

    cluster: ClusterSnapshot
    network: Network
    repairs: Repairs
    _clusters: dict[Some, ClusterSnapshot] = field(default_factory=dict)
    _networks: dict[Some, Network] = field(default_factory=dict)
    _found: list[Some] = field(default_factory=list)

    def blame(self, ask: Ask, walk: Walk) -> Blame:
        """What `walk`, the answer to a question, owes to which differences."""
        every = frozenset(self._walkable())
        if not every:
            return Blame(self.repairs, self.cluster, walk, sure=False)
        best = ask(self._with(every))
        goal = _ends(best)
        needed = (
            Some() if _ends(walk) == goal else self._least(every, lambda some: _ends(ask(self._with(some))) == goal, walk + best)
        )
        # What can't be walked may be the cause of what still fails.
        unsure = any(failure_of(branch) is not None for branch in best)
        return Blame(self._only(needed, unsure=unsure), self._mended(every), best)

    def _walkable(self) -> Iterator[Numbered]:
        for node, repairs in self.repairs.items():
            if node in self.cluster.nodes:
                yield from (Numbered(node, each.netns, number) for number, each in enumerate(repairs) if each.op is not None)

    # --- what is needed ---

    def _least(self, every: Some, suffices: Callable[[Some], bool], walk: Walk) -> Some:
        """A smallest set that does as much as all, as far as leaving out one after the other finds it."""
        passed = {hop.place.node for branch in walk for hop in (*branch.hops, *branch.reply_hops)}
        near = frozenset(each for each in every if each.node in passed)
        known = (some for some in self._found if some <= every)
        needed = next((some for some in (*known, near) if suffices(some)), every)
        for part in (*_parts(needed, lambda each: each.node), *_parts(needed, lambda each: (each.node, each.netns))):
            if part <= needed and suffices(needed - part):
                needed -= part
        for part in _parts(needed, lambda each: (each.node, each.netns)):
            for one in sorted(part, key=lambda each: each.number) if 1 < len(part) <= _MOST_SINGLE else ():
                needed = needed - {one} if suffices(needed - {one}) else needed
        if needed not in self._found:
            self._found.append(needed)
        return needed

    def _only(self, needed: Some, *, unsure: bool) -> Repairs:
        def keeps(node: str, number: int, repair: Repair) -> bool:
            return unsure if repair.op is None else Numbered(node, repair.netns, number) in needed

        return {
            node: [each for number, each in enumerate(repairs) if keeps(node, number, each)]
            for node, repairs in self.repairs.items()
        }

    # --- as it would be ---

    def _with(self, some: Some) -> Network:
        if not some:
            return self.network
        if some not in self._networks:
            touched = {each.node for each in some}
            self._networks[some] = self.network.but(self._mended(some), touched)
        return self._networks[some]

    def _mended(self, some: Some) -> ClusterSnapshot:
        if some not in self._clusters:
            ops: dict[str, list[Op]] = {}
            for each in sorted(some, key=lambda each: (each.node, each.number)):
                op = self.repairs[each.node][each.number].op
                assert op is not None
                ops.setdefault(each.node, []).append(op)
            self._clusters[some] = mended(self.cluster, ops)
        return self._clusters[some]


def _ends(walk: Walk) -> Counter[object]:
    return Counter((branch.share, branch.outcome) for branch in walk)


def _parts(some: Some, of: Callable[[Numbered], object]) -> Collection[Some]:
    found: dict[object, set[Numbered]] = {}
    for each in sorted(some, key=lambda each: (each.node, each.netns, each.number)):
        found.setdefault(of(each), set()).add(each)
    return [frozenset(part) for part in found.values()]
