"""Which services a proxy has to be without: exactly the ones it refuses, found with few questions."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.gateway.proxies import ConfigRefused
from routemesh.gateway.sift import sift

NAMES = [f"s{number}" for number in range(100)]


class Program:
    """Refuses any of `bad`, and two of `foes` together."""

    def __init__(self, bad: set[str], foes: frozenset[str] = frozenset()) -> None:
        self.bad, self.foes = bad, foes
        self.questions = 0

    async def refusal(self, names: frozenset[str]) -> str:
        self.questions += 1
        if found := sorted(self.bad & names):
            return f"{found[0]} is bad"
        return "foes" if len(self.foes & names) > 1 else ""


def sifted(program: Program, names: list[str]) -> dict[str, str]:
    async def work() -> dict[str, str]:
        why = await program.refusal(frozenset(names))
        program.questions = 0
        return await sift(names, why, program.refusal)

    return asyncio.run(work())


@given(st.sets(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_just_the_bad_ones_are_left_out_each_with_its_own_reason(bad: set[str]) -> None:
    program = Program(bad)
    assert sifted(program, NAMES) == {name: f"{name} is bad" for name in bad}
    assert program.questions <= 16 * len(bad)


def test_the_newest_alone_costs_one_question() -> None:
    program = Program({NAMES[-1]})
    assert sifted(program, NAMES) == {NAMES[-1]: "s99 is bad"}
    assert program.questions == 1


@given(st.sets(st.sampled_from(NAMES), min_size=2, max_size=4))
def test_of_those_that_cannot_be_together_the_first_stays(foes: set[str]) -> None:
    assert list(sifted(Program(set(), frozenset(foes)), NAMES)) == sorted(foes, key=NAMES.index)[1:]


def test_nothing_is_blamed_on_services_where_the_program_takes_none() -> None:
    class Broken(Program):
        async def refusal(self, names: frozenset[str]) -> str:
            return "no memory"

    with pytest.raises(ConfigRefused, match="no memory"):
        sifted(Broken(set()), NAMES[:3])
