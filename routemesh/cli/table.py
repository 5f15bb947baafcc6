"""Rows of text below headings, as wide as a terminal at most: PURE."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

_GAP, _NARROW_GAP = "   ", " "


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], width: int = 0) -> Iterator[str]:
    """The lines of a table. Cells wrap at their spaces where the lines would be longer than `width` columns; 0: no limit.

    A word is never cut, so a line may still be longer.
    """
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    gap = _GAP
    if width and _total(widths, gap) > width:
        gap = _NARROW_GAP
        least = [max(len(word) for line in lines for word in (line[column].split() or [""])) for column in range(len(headings))]
        widths = _narrowed(widths, least, width - len(gap) * (len(headings) - 1))
    for line in lines:
        yield from _wrapped(line, widths, gap)


def _total(widths: Sequence[int], gap: str) -> int:
    return sum(widths) + len(gap) * (len(widths) - 1)


def _narrowed(widths: list[int], least: Sequence[int], room: int) -> list[int]:
    """Columns that fit into `room`: the widest one that can give way does so, until they fit or none can."""
    while sum(widths) > room:
        yielding = [column for column, width in enumerate(widths) if width > least[column]]
        if not yielding:
            break
        widest = max(yielding, key=lambda column: widths[column])
        widths = [width - (column == widest) for column, width in enumerate(widths)]
    return widths


def _wrapped(cells: Sequence[str], widths: Sequence[int], gap: str) -> Iterator[str]:
    parts = [
        textwrap.wrap(cell, max(width, 1), break_long_words=False, break_on_hyphens=False) if len(cell) > width else [cell]
        for cell, width in zip(cells, widths, strict=True)
    ]
    for number in range(max(map(len, parts))):
        row = (part[number] if number < len(part) else "" for part in parts)
        yield gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
