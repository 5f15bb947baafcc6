"""Findings as text: for a terminal with its colours and width, or plain. PURE."""

import re
from collections.abc import Iterable, Iterator

from routemesh.doctor import Finding, Severity
from routemesh.explain.text import Screen
from routemesh.legible import one_line

_STYLES = {
    Severity.WRONG: "red",
    Severity.UNTOLD: "yellow",
    Severity.UNKNOWN: "yellow",
    Severity.OPTIONAL: "yellow",
    Severity.OK: "green",
}
_ON = r"(?:look |if its owner agrees, let this pass )?on \S+: "
_EACH, _COMMAND = re.compile(rf"(?<=;) (?={_ON})"), re.compile(_ON)
_COLUMN = 11
"""Where all that follows the first line begins; the first begins two columns before it."""


def text(findings: Iterable[Finding], screen: Screen | None = None) -> str:
    """Each finding in lines of its own, with a line break at the end. A command is never broken, for it is to be copied."""
    return "".join(f"{line}\n" for finding in findings for line in _lines(finding, screen or Screen()))


def _lines(finding: Finding, screen: Screen) -> Iterator[str]:
    where = f"{finding.where}: " if finding.where else ""
    first, *rest = screen.wrap(one_line(f"{where}{finding.what} ({finding.basis}): {finding.found}"), _COLUMN)
    yield f"{screen.style(f'{finding.state:8}', _STYLES[finding.state])} {first}"
    differs = finding.effect_basis not in (None, finding.basis)
    effect = f"{finding.effect_basis}: {finding.effect}" if differs else finding.effect
    for line in (*rest, *(screen.wrap(one_line(effect), _COLUMN) if finding.effect else ())):
        yield " " * _COLUMN + line
    for part in _parts(one_line(finding.fix), screen) if finding.fix else ():
        yield " " * _COLUMN + screen.style(part, "bold")


def _parts(fix: str, screen: Screen) -> Iterator[str]:
    """What is to be done on one node, or by whom, after the other: where lines have an end each gets its own."""
    several = _EACH.split(fix) if screen.width and len(fix) + _COLUMN > screen.width else [fix]
    for part in several:
        yield from screen.wrap(part, _COLUMN) if len(several) > 1 and not _COMMAND.match(part) else (part,)
