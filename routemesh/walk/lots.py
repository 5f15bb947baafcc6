"""Going every way at every choice, by starting anew with other lots. PURE."""

from collections.abc import Iterator, Sequence
from fractions import Fraction


class Lots:
    """The answers to one trip's choices: `given`, then always the first way; it remembers what was drawn, out of what.

    `share`: how many of all trips draw these lots. `estimated`: a choice depends on what the walk can't know.
    """

    def __init__(self, given: tuple[int, ...] = ()) -> None:
        self._given = given
        self._drawn: list[tuple[int, int]] = []
        self.share = Fraction(1)
        self.estimated = False

    def draw(self, weights: Sequence[int], estimated: bool = False) -> int:
        """Which way to go, of those with these weights (all above 0)."""
        number = len(self._drawn)
        lot = self._given[number] if number < len(self._given) else 0
        self._drawn.append((lot, len(weights)))
        self.share *= Fraction(weights[lot], sum(weights))
        self.estimated |= estimated and len(weights) > 1
        return lot

    @property
    def drawn(self) -> tuple[int, ...]:
        """All of them so far."""
        return tuple(lot for lot, _ in self._drawn)

    def others(self) -> Iterator[tuple[int, ...]]:
        """The lots that lead to all other trips which begin with `given`; the last comes next in order."""
        drawn = self.drawn
        for number in range(len(self._given), len(drawn)):
            for lot in reversed(range(1, self._drawn[number][1])):
                yield (*drawn[:number], lot)
