"""What is not as a node's plan wants it: one finding for each namespace, with the ways that fail because of it. PURE."""

from collections.abc import Iterator, Mapping, Sequence

from routemesh.doctor import Finding, Severity, listed
from routemesh.doctor.facts import Difference, Facts
from routemesh.doctor.ways import Failing, Kept
from routemesh.explain.way import Places
from routemesh.snapshot import ClusterSnapshot
from routemesh.walk import Place

_MOST_TOLD, _MOST_COMMANDS = 4, 3


def findings(cluster: ClusterSnapshot, facts: Facts, failing: Mapping[Kept, Failing]) -> Iterator[Finding]:
    """By node and namespace; then what kernels refused."""
    places = Places(cluster)
    for node in facts.nodes:
        by_space: dict[str, list[Difference]] = {}
        for difference in facts.differences(node):
            by_space.setdefault(difference.netns, []).append(difference)
        for netns, differences in by_space.items():
            ways = failing.get((node, netns))
            commands = tuple(dict.fromkeys(each.command for each in differences if each.command))
            yield Finding(
                what="plan",
                where=places.called(Place(node, netns)),
                state=Severity.WRONG,
                found=listed((each.what for each in differences), _MOST_TOLD),
                effect=ways.effect if ways else "no published port fails because of it",
                fix=_fix(node, commands, repairing=facts.repairing),
                commands=commands,
                ours=facts.repairing,
                effect_basis="predicted",
            )
        for failure in facts.nodes[node].failures:
            yield Finding(
                what="node", where=node, state=Severity.WRONG, found=failure, effect="the node can't carry out its plan",
                fix=f"see docs/cli.md, or the log of {node}'s daemon",
            )  # fmt: skip


def _fix(node: str, commands: Sequence[str], *, repairing: bool) -> str:
    """What is printed as a command can be typed as it is: all of them, or where the node itself tells them, how to see them."""
    if not commands:
        return ""
    if not repairing:
        return f"on {node}: {' && '.join(commands)}"
    if len(commands) > _MOST_COMMANDS:
        return f"routemesh doctor --fix ({len(commands)} commands, which routemesh diff {node} prints)"
    return f"routemesh doctor --fix, or on {node}: {' && '.join(commands)}"
