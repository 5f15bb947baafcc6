"""Turns and Maglev's table: shares, order and what moves, against what the paper promises."""

from collections import Counter
from itertools import pairwise
from random import Random
from statistics import fmean

from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh.plan.maglev import table
from routemesh.plan.turns import MOST_TURNS, in_turn

SIZE = 1021
small_weights = st.lists(st.integers(0, 9), min_size=1, max_size=12).map(tuple)
any_weights = st.lists(st.sampled_from([0, 1, 2, 5, 100, 65534, 65535]) | st.integers(0, 65535), min_size=1, max_size=40).map(
    tuple
)
crowds = st.lists(st.text("abc123", min_size=1, max_size=6), min_size=2, max_size=20, unique=True).map(tuple)


def even(names: tuple[str, ...]) -> tuple[int, ...]:
    return (1,) * len(names)


# --- turns -------------------------------------------------------------------------------------------------------


@given(small_weights)
def test_small_weights_are_kept_exactly(weights: tuple[int, ...]) -> None:
    times = Counter(in_turn(weights))
    assert all(times[one] * weights[other] == times[other] * weights[one] for one in range(len(weights)) for other in times)
    assert (len(times) > 0) == any(weights)


@given(any_weights)
def test_any_weights_make_a_round_that_is_not_too_long_and_forgets_nobody(weights: tuple[int, ...]) -> None:
    turns = in_turn(weights)
    times, total = Counter(turns), sum(weights)
    assert set(times) == {number for number, weight in enumerate(weights) if weight}
    assert len(turns) <= MOST_TURNS + len(weights)
    for number, weight in enumerate(weights):
        assert abs(times[number] - weight * len(turns) / max(total, 1)) <= 1 + len(weights) * weight / max(total, 1)


@given(st.integers(1, 50))
def test_equal_weights_are_a_plain_round(tasks: int) -> None:
    assert in_turn((7,) * tasks) == tuple(range(tasks))


@given(small_weights)
def test_turns_are_spread_over_the_round(weights: tuple[int, ...]) -> None:
    """Between two turns of one task another has at most as many as their weights demand, rounded up."""
    turns, times = in_turn(weights), Counter(in_turn(weights))
    for number in times:
        places = [place for place, turn in enumerate(turns) if turn == number]
        for after, until in pairwise([*places, places[0] + len(turns)]):
            between = Counter((turns + turns)[after + 1 : until])
            assert all(between[other] <= -(-times[other] // times[number]) for other in times if other != number), turns


def test_a_heavy_task_takes_every_second_turn() -> None:
    assert in_turn((1, 1, 1, 1, 5)) == (4, 0, 4, 1, 4, 2, 4, 3, 4)
    assert in_turn((2, 1)) == (0, 1, 0)


# --- Maglev ------------------------------------------------------------------------------------------------------


@given(crowds)
@settings(max_examples=50, deadline=None)
def test_everybody_has_an_equal_share_but_for_one_place(names: tuple[str, ...]) -> None:
    """Section 3.4: with M places and N tasks the numbers differ by one, so shares by N/M at most: under 2 % here."""
    places = Counter(table(names, even(names), SIZE))
    assert len(places) == len(names)
    assert max(places.values()) - min(places.values()) <= 1


def moved_in_vain(before: tuple[int, ...], after: tuple[int, ...], *, gone: int = -1, new: int = -1) -> float:
    """Share of the places that lead elsewhere now though neither the task that left nor the new one explains it."""
    return sum(was not in (now, gone) and now != new for was, now in zip(before, after, strict=True)) / len(before)


@given(st.integers(2, 20), st.integers(0, 2**32).map(Random))
@settings(max_examples=20, deadline=None)
def test_few_move_whose_task_is_still_there_when_another_comes_or_goes(tasks: int, random: Random) -> None:
    """Section 5.3 has some percent, with 65,537 places; we have 1,021. It is a mean: where the skips of two tasks happen to be
    alike, a quarter of the places moved.
    """
    going, coming = [], []
    for _ in range(30):
        names = tuple(f"{random.getrandbits(60):015x}" for _ in range(tasks + 1))
        fewer, more = table(names, (*even(names[:-1]), 0), SIZE), table(names, even(names), SIZE)
        assert tasks not in fewer
        going.append(moved_in_vain(more, fewer, gone=tasks))
        coming.append(moved_in_vain(fewer, more, new=tasks))
    assert going == coming
    assert fmean(going) <= 0.08


@given(crowds)
@settings(max_examples=50, deadline=None)
def test_a_new_task_gets_its_share_and_a_name_keeps_its_places_whatever_its_number(names: tuple[str, ...]) -> None:
    more = table((*names, "new"), even((*names, "new")), SIZE)
    assert abs(more.count(len(names)) - SIZE / (len(names) + 1)) <= 1
    assert table(names, even(names), SIZE) == table((*names, "new"), (*even(names), 0), SIZE)


@given(crowds)
@settings(max_examples=50, deadline=None)
def test_weights_that_are_equal_are_no_weights(names: tuple[str, ...]) -> None:
    assert table(names, even(names), SIZE) == table(names, tuple(3 for _ in names), SIZE)


@given(small_weights.filter(any))
@settings(max_examples=50, deadline=None)
def test_weights_are_shares_of_the_table(weights: tuple[int, ...]) -> None:
    names = tuple(map(str, range(len(weights))))
    places = Counter(table(names, weights, SIZE))
    for number, weight in enumerate(weights):
        assert abs(places[number] - SIZE * weight / sum(weights)) <= max(weights)


def test_the_table_grows_with_the_tasks_in_two_steps() -> None:
    sizes = {tasks: len(table(tuple(map(str, range(tasks))), (1,) * tasks)) for tasks in (1, 100, 101, 1600, 1601)}
    assert sizes == {1: 1021, 100: 1021, 101: 16381, 1600: 16381, 1601: 131071}
    assert all(all(size % divisor for divisor in range(2, int(size**0.5) + 1)) for size in sizes.values())


def test_without_weight_there_is_no_table_and_no_round() -> None:
    assert table(("1", "2"), (0, 0)) == ()
    assert in_turn((0, 0)) == ()
    assert in_turn(()) == ()
