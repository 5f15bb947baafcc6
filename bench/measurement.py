"""What a benchmark yields, and how it is printed. PURE."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEADINGS = ("what", "median", "range", "n", "against")
_WIDTHS = (58, 17, 15, 3, 0)


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a median may be."""

    at_most: float

    def judge(self, samples: Sequence[float], unit: str) -> str:
        """The budget and whether it is met."""
        met = statistics.median(samples) <= self.at_most
        return f"≤ {_number(self.at_most)} {unit}: {'met' if met else 'MISSED'}"


@dataclass(frozen=True, slots=True)
class Rival:
    """What did the same in the same rounds: `samples` has one number for each of the measurement's."""

    name: str
    samples: Sequence[float]

    def judge(self, samples: Sequence[float], _: str) -> str:
        """The median and the range of the rounds' ratios."""
        ratios = [own / other for own, other in zip(samples, self.samples, strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) of {self.name}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """Several measurements of one thing."""

    what: str
    samples: Sequence[float]
    unit: str
    against: Limit | Rival | None = None

    def cells(self) -> tuple[str, ...]:
        """Its row, under HEADINGS."""
        low, high = min(self.samples), max(self.samples)
        return (
            self.what,
            f"{_number(statistics.median(self.samples))} {self.unit}",
            f"{_number(low)}-{_number(high)}",
            str(len(self.samples)),
            self.against.judge(self.samples, self.unit) if self.against else "",
        )


def text_row(cells: Sequence[str]) -> str:
    """One line for a terminal."""
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Three significant digits, more only before the point."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}" if value != int(value) else f"{value:,.0f}"
