"""Traces of one question until each of its ways was taken, together. PURE.

Which way a connection takes is the mesh's choice: whoever wants to see them all asks again and again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from routemesh.errors import UserError
from routemesh.explain.nouns import UNTOLD, Explanation, Way
from routemesh.reasons.causes import NotServed
from routemesh.trace.nouns import VERSION, Trace
from routemesh.trace.verdict import milliseconds
from routemesh.values import replace

_MOST, _TIMES, _LEAST = 60, 6, 8
_UNSERVED = "gets no connections, as predicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """The answer. `traces`: of each way that was taken one, which tells the most that is wrong. `missed`: tasks, or ends of ways,
    to which none of the `sent` connections was led. `unserved`: tasks that serve, but to which no way is predicted to lead."""

    version: int
    verdict: str
    traces: tuple[Trace, ...]
    missed: tuple[str, ...]
    unserved: tuple[str, ...]
    sent: int

    @property
    def status(self) -> int:
        """The exit status: the worst of all; 4 where a way was not taken."""
        found = {trace.status for trace in self.traces}
        return 3 if 3 in found or self.unserved else UNTOLD if UNTOLD in found or self.missed else max(found, default=UNTOLD)


def key(way: Way) -> str:
    """What tells a way from others: the task to which it leads, or how it ends."""
    return way.task or way.end


def sought(prediction: Explanation, task: str) -> frozenset[str]:
    """Which ways are to be followed: all, or those to a task. Raises UserError where none leads there.

    Where all end before a task is chosen, that is what there is to see.
    """
    every = frozenset(map(key, prediction.ways))
    tasks = sorted({way.task for way in prediction.ways if way.task})
    if not task or not tasks:
        return every
    if task not in tasks:
        asked = prediction.question
        raise UserError(
            f"no way from {asked.node}:{asked.port}/{asked.protocol} leads to a task {task}; they lead to {', '.join(tasks)}"
        )
    return frozenset((task,))


def patience(ways: int) -> int:
    """How many connections are sent at most until each way was taken."""
    return min(max(_LEAST, _TIMES * ways), _MOST)


def together(found: Sequence[Trace], wanted: frozenset[str]) -> Traces:
    """All of them as one answer; what is not `wanted` is left out."""
    kept: dict[str, Trace] = {}
    for trace in found:
        name = _taken(trace)
        if name in wanted and (name not in kept or trace.status > kept[name].status):
            kept[name] = trace
    first = found[0].prediction
    order = list(map(key, first.ways))
    every = Traces(
        version=VERSION,
        verdict="",
        traces=tuple(kept[name] for name in dict.fromkeys(order) if name in kept),
        missed=tuple(name for name in dict.fromkeys(order) if name in wanted and name not in kept),
        unserved=tuple(str(cause.reason.fields["task"]) for cause in first.causes if cause.reason.is_a(NotServed)),
        sent=len(found),
    )
    return replace(every, verdict=_verdict(first, every))


def taken(found: Sequence[Trace]) -> frozenset[str]:
    """The ways that were taken so far."""
    return frozenset(map(_taken, found))


def _taken(trace: Trace) -> str:
    return key(trace.prediction.ways[trace.way]) if trace.way >= 0 else ""


def _verdict(prediction: Explanation, found: Traces) -> str:
    asked = prediction.question
    groups: dict[str, list[str]] = {}
    for trace in found.traces:
        groups.setdefault(_result(trace), []).append(_taken(trace))
    for names, result in ((found.missed, _missed(found)), (found.unserved, _UNSERVED)):
        groups |= {result: list(names)} if names else {}
    parts = [f"{', '.join(names)} {result}" for result, names in groups.items()]
    return f"{asked.node}:{asked.port}/{asked.protocol}: {'; '.join(parts)}"


def _result(trace: Trace) -> str:
    what = "answered" if trace.arrives else "not answered"
    match trace.agrees:
        case True:
            return f"{what}, as predicted"
        case None:
            return f"{what}, which was not predicted"
        case False:
            return f"{what}: NOT AS PREDICTED"


def _missed(found: Traces) -> str:
    return f"not met by {found.sent} connections"


HEADINGS = ("WAY", "NODE", "SENT", "TOOK", "SEEN", "RESULT")


def rows(found: Traces) -> Iterator[Sequence[str]]:
    """The table for people, below HEADINGS."""
    for trace in found.traces:
        way = trace.prediction.ways[trace.way]
        seen = sum(hop.mark in ("seen", "passed") for hop in trace.hops)
        took = milliseconds(trace.sent.took_s) if trace.arrives else ""
        yield key(way), way.node, trace.sent.what, took, f"{seen} of {len(trace.hops)} steps", _result(trace)
    for names, result in ((found.missed, _missed(found)), (found.unserved, _UNSERVED)):
        yield from ((name, "", "", "", "", result) for name in names)


def amiss(found: Traces) -> Iterator[str]:
    """The verdicts of all that are not as they should be."""
    return (trace.verdict for trace in found.traces if trace.status)
