"""Going every way at every choice, by starting anew with other lots. PURE."""

from collections.abc import Iterator
from fractions import Fraction


class Lots:
    """The answers to one trip's choices: `given`, then always the first way; it remembers what was drawn, out of how many."""

    def __init__(self, given: tuple[int, ...] = ()) -> None:
        self._given = given
        self._drawn: list[tuple[int, int]] = []

    def draw(self, ways: int) -> int:
        """Which of so many ways to go."""
        number = len(self._drawn)
        lot = self._given[number] if number < len(self._given) else 0
        self._drawn.append((lot, ways))
        return lot

    @property
    def share(self) -> Fraction:
        """How many of all trips draw these lots."""
        share = Fraction(1)
        for _, ways in self._drawn:
            share /= ways
        return share

    def others(self) -> Iterator[tuple[int, ...]]:
        """The lots that lead to all other trips which begin with `given`; the last comes next in order."""
        drawn = tuple(lot for lot, _ in self._drawn)
        for number in range(len(self._given), len(drawn)):
            for lot in reversed(range(1, self._drawn[number][1])):
                yield (*drawn[:number], lot)
