"""An explanation as text: for a terminal with its colours and width, or plain. PURE.

What all ways have in common is told once. Of several ways only some are told step by step: those that fail, and the longest.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from routemesh.errors import UserError
from routemesh.explain.nouns import Cause, Explanation, Question, Step, Way
from routemesh.legible import unbroken
from routemesh.reasons.words import NOT_OURS

_MOST_FAILING = 2
_CODES = {"bold": "1", "dim": "2", "red": "31;1", "green": "32;1", "yellow": "33", "blue": "34;1", "cyan": "36"}
_VERDICT_STYLE = {"reaches": "green", "partly": "yellow", "broken": "red", "untold": "yellow"}
_LEAST_WIDTH = 40
_COLUMN = 19
"""Where what happened at a device begins."""


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

    def wrap(self, text: str, indent: int = 0) -> list[str]:
        """A text, without styles, in lines that fit behind `indent` columns; words are never cut."""
        room = max(self.width - indent, _LEAST_WIDTH)
        if not self.width or len(text) <= room:
            return [text]
        return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)

    def wrapped(self, text: str, style: str, indent: int = 0) -> Iterator[str]:
        """The same in a style; what goes on is two columns farther in."""
        first, *rest = self.wrap(text, indent + 2)
        yield " " * indent + self.style(first, style)
        yield from (" " * (indent + 2) + self.style(line, style) for line in rest)


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
    yield from heading(asked, of, screen)
    yield ""
    if brief:
        for way in explanation.ways:
            yield from _ending(way, screen)
    else:
        common, ways = _common(explanation.ways)
        yield from _steps(common, screen, None)
        told = [explanation.ways[wanted - 1]] if wanted else ways
        yield from _branches(explanation.ways, told, len(common), screen)
    yield ""
    yield from screen.wrapped(explanation.verdict, _VERDICT_STYLE[explanation.outcome])
    for cause in explanation.causes:
        yield from _cause(cause, screen)
    for note in explanation.notes:
        yield from screen.wrapped(f"note: {note}", "yellow")


def heading(asked: Question, of: str, screen: Screen) -> Iterator[str]:
    """Who asks whom, on one line where it fits."""
    flow, words = f"{asked.protocol} {asked.source} → {asked.destination}", f"{asked.client} asks {asked.node}{of}"
    if screen.width and len(flow) + len(words) + 3 > screen.width:
        yield screen.style(flow, "bold")
        yield from (f"  {line}" for line in screen.wrap(words, 2))
    else:
        yield f"{screen.style(flow, 'bold')}   {words}"


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
    for way in ways:
        yield from _ending(way, screen)
    for way in told:
        yield ""
        number = ways.index(way) + 1
        yield screen.style(f"  way {number}, {way.share[0]}/{way.share[1]}: {way.task or way.end}", "bold")
        yield from _way(way, common, screen, before=before)
    if len(told) < len(ways):
        yield ""
        left = len(ways) - len(told)
        yield f"  {f'{left} other ways' if left > 1 else 'one other way'}: --way N, or --format html"


def _ending(way: Way, screen: Screen) -> Iterator[str]:
    mark, style = ("✓", "green") if way.arrives else ("✗", "red")
    share = f"{'about ' * way.estimated}{way.share[0]}/{way.share[1]}"
    first, *rest = screen.wrap(way.end, len(share) + 6)
    yield f"  {screen.style(mark, style)} {share}  {first}"
    yield from (" " * (len(share) + 6) + line for line in rest)


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
    column = len(indent) + _COLUMN
    new = became(step, Screen())
    first, *rest = (screen.style(line, "red") if step.failed else line for line in screen.wrap(_what(step), column))
    fits = not screen.width or column + len(_what(step)) + len(new) <= screen.width
    yield f"{indent}  {screen.style(f'{step.device:<16}', 'cyan')} {first}{became(step, screen) if fits else ''}"
    yield from (" " * column + line for line in rest)
    if new and not fits:
        yield from screen.wrapped(new.strip(), "bold", column)
    if step.rule:
        yield from screen.wrapped(step.rule, "dim", column)
    if step.show:
        yield " " * column + screen.style(f"$ {step.show}", "dim")


def _what(step: Step) -> str:
    return f"✗ {step.what}" if step.failed else step.what


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
    first, *rest = screen.wrap(f"{cause.place}: {cause.why}", 4)
    yield (
        f"  {screen.style(cause.place, 'bold')}{first.removeprefix(cause.place)}"
        if first.startswith(cause.place)
        else f"  {first}"
    )
    yield from (f"    {line}" for line in rest)
    where = f"on {cause.node}: " if cause.node else ""
    if cause.look:
        yield f"    {NOT_OURS}"
        yield from (f"    {screen.style('look', 'yellow')} {where}{command}" for command in cause.look)
    label = "let this pass" if cause.look else "mend"
    yield from (f"    {screen.style(label, 'green')} {where}{command}" for command in cause.mend)
