"""What all nodes saw of a connection's first packets, and which of it shows a predicted step. PURE."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from routemesh.explain.nouns import Step
from routemesh.reasons.events import Bridged
from routemesh.sightings import Headers, Observation, SeenPacket

_RULES = ("rule", "element")
_ROUTED = ("forward", "input", "output")
_A_MOMENT_S = 1e-6
_LINKS = ("in", "out")
UNTRACED_FAMILIES = ("bridge", "netdev")
"""Whose rules a trace does not reach in time; those of iptables-legacy it does not reach at all."""


class Sighting(NamedTuple):
    """Something that a node saw."""

    node: str
    seen: SeenPacket


class Story:
    """The first packets of both directions, node by node, in the order in which each node saw them."""

    def __init__(self, observations: Iterable[Observation]) -> None:
        self._by_place: dict[tuple[str, str, bool], list[SeenPacket]] = {}
        self._watched: set[tuple[str, str]] = set()
        self._later: list[Sighting] = []
        for observation in observations:
            self._watched |= {(observation.node, namespace) for namespace in observation.namespaces}
            for seen in observation.seen:
                if not seen.first:
                    self._later.append(Sighting(observation.node, seen))
                else:
                    self._by_place.setdefault((observation.node, seen.namespace, seen.back), []).append(seen)

    def watched(self, node: str, namespace: str) -> bool:
        """Whether anybody looked there."""
        return (node, namespace) in self._watched

    def at(self, node: str, namespace: str, *, back: bool) -> Sequence[SeenPacket]:
        """What was seen in a namespace."""
        return self._by_place.get((node, namespace, back), ())

    def stuck(self, node: str, namespace: str, since: float) -> str:
        """The hook that the last packet which was seen there came to and did not get out of, "" for none."""
        found = [*self.at(node, namespace, back=False), *self.at(node, namespace, back=True)]
        hooks = [seen for seen in found if seen.how == "hook" and seen.at >= since - _A_MOMENT_S]
        return hooks[-1].chain if hooks and hooks[-1].edge == "begins" else ""

    def later(self) -> Sequence[Sighting]:
        """What was seen of the packets that followed the first ones."""
        return self._later

    def stopped(self) -> Sighting | None:
        """The last that was seen of the first packet which did not get as far as the one that opened its direction."""
        opened: dict[bool, set[tuple[str, str]]] = {False: set(), True: set()}
        for (node, namespace, back), found in self._by_place.items():
            if any(seen.how in _LINKS and not seen.headers.vni and not seen.elsewhere for seen in found):
                opened[back].add((node, namespace))
        packets: dict[str, list[Sighting]] = {}
        for sighting in self._later:
            if sighting.seen.how in _LINKS and not sighting.seen.headers.vni:
                packets.setdefault(sighting.seen.identity, []).append(sighting)
        for met in packets.values():
            if not opened[met[0].seen.back] <= {(sighting.node, sighting.seen.namespace) for sighting in met}:
                return max(met, key=lambda sighting: sighting.seen.at)
        return None

    def everything(self) -> Iterator[Sighting]:
        """All of it."""
        yield from (Sighting(node, seen) for (node, _, _), found in self._by_place.items() for seen in found)

    def evidence(self, step: Step, *, back: bool) -> SeenPacket | None:
        """What shows that the packet was at this step; a rule that can be traced shows itself."""
        found = self.at(step.node, step.namespace, back=back)
        fitting = [seen for seen in found if same(seen.headers, step.before) or same(seen.headers, step.after)]
        if step.kind in _RULES:
            of_chain = [seen for seen in fitting if seen.how == "rule" and _chain(seen) == step.chain]
            reached = step.tool != "iptables-legacy" and step.family not in UNTRACED_FAMILIES
            traced = reached and any(seen.how == "hook" for seen in found)
            if of_chain or traced:
                return next((seen for seen in of_chain if same(seen.headers, step.before)), None)
        if step.kind == "route" and (hooks := [seen for seen in fitting if seen.edge == "begins" and seen.chain in _ROUTED]):
            return hooks[0]
        links = [seen for seen in fitting if seen.how in ("in", "out") and seen.device == step.device]
        if step.event.is_a(Bridged):
            return next(iter(links), None)  # that it came to the bridge shows nothing of where it went
        return next(iter(links or fitting), None)

    def latest(self, step: Step, *, back: bool) -> SeenPacket | None:
        """The last that was seen of a packet as it comes to this step, in its namespace."""
        return next(
            (seen for seen in reversed(self.at(step.node, step.namespace, back=back)) if same(seen.headers, step.before)), None
        )


def same(seen: Headers, predicted: Headers) -> bool:
    """Whether they may be of one packet. A tunnel's source port and the MACs are not compared."""
    if (seen.protocol, seen.vni) != (predicted.protocol, predicted.vni):
        return False
    if seen.vni:
        return _address(seen.source) == _address(predicted.source) and _address(seen.destination) == _address(
            predicted.destination
        )
    return (seen.source, seen.destination) == (predicted.source, predicted.destination)


def shown(seen: SeenPacket) -> str:
    """A sighting in a few words."""
    headers = seen.headers
    ends = f"{headers.source} → {headers.destination}" + (f" VNI {headers.vni}" if headers.vni else "")
    match seen.how:
        case "rule":
            return f"{seen.chain}: {seen.rule}" + ("" if seen.verdict == "continue" else f" ({seen.verdict})")
        case "hook":
            return f"{seen.chain} {seen.edge}: {ends}"
        case "in" | "out":
            return f"{seen.how} {seen.device}: {ends}" + (f" {seen.flags}" if seen.flags not in ("", "syn", "syn ack") else "")


def _address(end: str) -> str:
    return end.rpartition(":")[0]


def _chain(seen: SeenPacket) -> str:
    return seen.chain.rpartition(" ")[2]
