"""An explanation as text: for a terminal with its colours and width, or plain. PURE.

What all ways have in common is told once. Of several ways only some are told step by step: those that fail, and the longest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from routemesh.errors import UserError
from routemesh.explain.nouns import Cause, Explanation, Step, Way
from routemesh.legible import unbroken

_MOST_FAILING = 2
_CODES = {"bold": "1", "dim": "2", "red": "31;1", "green": "32;1", "yellow": "33", "blue": "34;1", "cyan": "36"}
_VERDICT_STYLE = {"reaches": "green", "partly": "yellow", "broken": "red", "untold": "yellow"}
_LEAST_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Screen:
    """What it is printed on. `width` 0: lines are as long as they are. `escape`: how a style's code begins."""

    colour: bool = False
    width: int = 0
    escape: str = "\x1b["

    def style(self, text: str, name: str) -> str:
        """The text in a style, where there are any."""
        return f"{self.escape}{_CODES[name]}m{text}{self.escape}0m" if self.colour and text else text

    def fit(self, text: str, indent: int) -> str:
        """As much of a text as the line has room for behind `indent` columns."""
        room = max(self.width - indent, _LEAST_WIDTH)
        return text if not self.width or len(text) <= room else text[: room - 1] + "…"


def text(explanation: Explanation, screen: Screen | None = None, *, way: int = 0, brief: bool = False) -> str:
    """The explanation, with a line break at the end; of several ways `way` (from 1) step by step, or, `brief`, none at all.

    Raises UserError where there is no such way.
    """
    if way > len(explanation.ways):
        raise UserError(f"there is no way {way}; there {_of_ways(len(explanation.ways))}")
    return "".join(f"{unbroken(line)}\n" for line in _lines(explanation, screen or Screen(), way, brief=brief))


def _of_ways(number: int) -> str:
    return "is one" if number == 1 else f"are {number}"


def _lines(explanation: Explanation, screen: Screen, wanted: int, *, brief: bool) -> Iterator[str]:
    asked = explanation.question
    of = f", published by {asked.service}" if asked.service else ""
    of += f", for {asked.request}" if asked.request else ""
    yield (
        screen.style(f"{asked.protocol} {asked.source} → {asked.destination}", "bold")
        + f"   {asked.client} asks {asked.node}{of}"
    )
    yield ""
    if brief:
        yield from (_ending(way, screen) for way in explanation.ways)
    else:
        common, ways = _common(explanation.ways)
        yield from _steps(common, screen, None)
        told = [explanation.ways[wanted - 1]] if wanted else ways
        yield from _branches(explanation.ways, told, len(common), screen)
    yield ""
    yield screen.style(explanation.verdict, _VERDICT_STYLE[explanation.outcome])
    for cause in explanation.causes:
        yield from _cause(cause, screen)
    yield from (screen.style(f"note: {note}", "yellow") for note in explanation.notes)


def _common(ways: Sequence[Way]) -> tuple[Sequence[Step], Sequence[Way]]:
    """The steps that all ways begin with, and the ways to be told, the failing ones first."""
    if len(ways) == 1:
        return (), ways
    first = ways[0].there
    length = 0
    while all(len(way.there) > length and way.there[length] == first[length] for way in ways) and length < len(first):
        length += 1
    arriving = sorted((way for way in ways if way.arrives), key=lambda way: -len(way.there))
    failing = [way for way in ways if not way.arrives]
    return first[:length], [*failing[:_MOST_FAILING], *arriving[:1]]


def _branches(ways: Sequence[Way], told: Sequence[Way], common: int, screen: Screen) -> Iterator[str]:
    if len(ways) == 1:
        yield from _way(ways[0], 0, screen, indent="")
        return
    before = ways[0].there[common - 1] if common else None
    yield f"  then one of {len(ways)} ways:"
    yield from (_ending(way, screen) for way in ways)
    for way in told:
        yield ""
        number = ways.index(way) + 1
        yield screen.style(f"  way {number}, {way.share[0]}/{way.share[1]}: {way.task or way.end}", "bold")
        yield from _way(way, common, screen, before=before)
    if len(told) < len(ways):
        yield ""
        left = len(ways) - len(told)
        yield f"  {f'{left} other ways' if left > 1 else 'one other way'}: --way N, or --format html"


def _ending(way: Way, screen: Screen) -> str:
    mark, style = ("✓", "green") if way.arrives else ("✗", "red")
    about = "about " * way.estimated
    return f"  {screen.style(mark, style)} {about}{way.share[0]}/{way.share[1]}  {screen.fit(way.end, 12)}"


def _way(way: Way, common: int, screen: Screen, *, indent: str = "  ", before: Step | None = None) -> Iterator[str]:
    yield from _steps(way.there[common:], screen, before, indent)
    if way.back:
        yield ""
        yield f"{indent}and back:"
        yield from _steps(way.back, screen, None, indent)


def _steps(steps: Iterable[Step], screen: Screen, before: Step | None, indent: str = "") -> Iterator[str]:
    """Step by step, with a heading where the namespace changes."""
    place = "" if before is None else before.place
    for step in steps:
        if step.place != place:
            place = step.place
            service = f"  ({step.service})" if step.service else ""
            yield indent + screen.style(place, "blue") + screen.style(service, "dim")
        yield from _step(step, screen, indent)


def _step(step: Step, screen: Screen, indent: str) -> Iterator[str]:
    device = f"{step.device:<16}"
    what = screen.style(f"✗ {step.what}", "red") if step.failed else step.what
    yield f"{indent}  {screen.style(device, 'cyan')} {what}{became(step, screen)}"
    if step.rule:
        yield indent + " " * 19 + screen.style(screen.fit(step.rule, len(indent) + 19), "dim")
    if step.show:
        yield indent + " " * 19 + screen.style(f"$ {step.show}", "dim")


def became(step: Step, screen: Screen) -> str:
    """What is new about the packet."""
    after = step.after
    ends = {"source", "destination", "protocol", "vni"} & set(step.changed)
    parts = []
    if ends:
        parts.append(
            f"{after.protocol} {after.source} → {after.destination}" + (f" carrying VNI {after.vni}" if after.vni else "")
        )
    if "mark" in step.changed:
        parts.append(f"mark {after.mark:#x}")
    if "destination_mac" in step.changed and not ends:
        parts.append(f"to {after.destination_mac}")
    return screen.style(f"   ⇒ {', '.join(parts)}", "bold") if parts else ""


def _cause(cause: Cause, screen: Screen) -> Iterator[str]:
    yield f"  {screen.style(cause.place, 'bold')}: {cause.why}"
    where = f"on {cause.node}: " if cause.node else ""
    yield from (f"    {screen.style('mend', 'green')} {where}{command}" for command in cause.mend)
