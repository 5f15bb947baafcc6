"""In which order tasks take their turns, by weight. PURE.

Smooth: a task of weight 5 is not asked five times in a row while there are others. A task of weight w has a turn every w-th part
of the round; tasks of the same weight share out that part among them, in their order. So equal weights give 0, 1 … N-1.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import gcd

MOST_TURNS = 1000
"""Of one round: each is a map element. Weights that need more are rounded, which moves a task's share by at most 0.1 %."""

_DIGITS = 9
"""Of a turn's time in the round: equal times must be equal numbers."""


@lru_cache(maxsize=1024)
def in_turn(weights: tuple[int, ...], most: int = MOST_TURNS) -> tuple[int, ...]:
    """One round: the numbers of the tasks, each as often as its weight demands; a task of weight 0 is not in it.

    Shares are exact where the weights, divided by what divides them all, add up to `most` or fewer. Otherwise they are rounded to
    `most` turns, with one at least for each task of some weight (and more than `most` where there are more such tasks).
    """
    times = _times(weights, most)
    alike, before = Counter(times), Counter[int]()
    turns: list[tuple[float, int]] = []
    for number, time in enumerate(times):
        phase = (before[time] + 0.5) / alike[time]
        before[time] += 1
        turns += ((round((k + phase) / time, _DIGITS), number) for k in range(time))
    return tuple(number for _, number in sorted(turns))


def _times(weights: Sequence[int], most: int) -> list[int]:
    """How often each task is in a round."""
    divisor = gcd(*weights) or 1
    least = [weight // divisor for weight in weights]
    total = sum(least)
    if total <= most:
        return least
    times = [max(1, weight * most // total) if weight else 0 for weight in least]
    # Largest remainder: who lost most by rounding down gets what is left, one each.
    by_loss = sorted(range(len(least)), key=lambda number: times[number] - least[number] * most / total)
    for number in by_loss[: max(0, most - sum(times))]:
        times[number] += 1
    return times
