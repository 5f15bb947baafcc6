"""Maglev's look-up table: which task a hash leads to, much the same one when tasks come and go. PURE.

Each task prefers the places of the table in an order of its own; the tasks take turns, each taking the free place that it
likes best, until all are taken. With equal weights their numbers of places differ by one at most.

Source: Eisenbud et al., Maglev: A Fast and Reliable Software Network Load Balancer (NSDI 2016), section 3.4.
"""

import math
from functools import lru_cache
from hashlib import blake2b
from itertools import cycle, islice

from routemesh.plan.turns import in_turn

_SIZES = ((100, 1021), (1600, 16381), (math.inf, 131071))
"""Up to how many tasks, and a prime. The fewer places per task, the more do shares differ (by N/M at most), and the more clients
move that need not when a task comes or goes; but each place is a map element. At each of the two steps all clients move."""


@lru_cache(maxsize=256)
def table(names: tuple[str, ...], weights: tuple[int, ...], size: int = 0) -> tuple[int, ...]:
    """The number of the task for each place. `size` is prime, 0: as the number of tasks demands.

    A task of weight 0 has no place. Empty without any weight. `names` are what each task's preferences follow from: they differ,
    and the same name keeps much the same places.
    """
    size = size or next(size for most, size in _SIZES if len(names) <= most)
    turns = in_turn(weights, size)
    if not turns:
        return ()
    places = [-1] * size
    wanted = [_preferences(name, size) for name in names]
    at = [0] * len(names)
    for task in islice(cycle(turns), size):
        offset, skip = wanted[task]
        place = (offset + at[task] * skip) % size
        while places[place] >= 0:
            at[task] += 1
            place = (offset + at[task] * skip) % size
        places[place] = task
        at[task] += 1
    return tuple(places)


def _preferences(name: str, size: int) -> tuple[int, int]:
    digest = blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") % size, int.from_bytes(digest[8:], "big") % (size - 1) + 1
