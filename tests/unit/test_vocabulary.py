"""docs/vocabulary.md lists what of iptables and nft is understood: it is made of the code's own tables."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from routemesh.language import xtparse
from routemesh.nodeplan import Field
from routemesh.walk import nftreads, nftwords, xtwords

PAGE = Path(__file__).parent.parent.parent / "docs" / "vocabulary.md"


def listed(heading: str) -> set[str]:
    """The words in backticks below a heading of the page."""
    text = PAGE.read_text().split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    return set(re.findall(r"`([^`]+)`", text))


def same(heading: str, known: Iterable[str]) -> None:
    there, wanted = listed(heading), set(known)
    assert there == wanted, f"{heading}: add {sorted(wanted - there)}, take out {sorted(there - wanted)}"


def test_the_page_has_the_matches_of_iptables() -> None:
    evaluated = (xtparse.MODULES | xtwords.MATCHES.keys()) - xtwords.ONLY_SUPPOSED - xtwords.NEVER
    same("Matches that are evaluated", {*evaluated, "comment"})
    same("Matches that hold for no packet of TCP or UDP", xtwords.NEVER - xtparse.MODULES)
    same("Matches that are supposed", xtwords.ONLY_SUPPOSED)


def test_the_page_has_the_targets_of_iptables() -> None:
    without_effect = {name for name, read in xtwords.TARGETS.items() if read is xtwords.TARGETS["LOG"]}
    same("Targets that are carried out", xtparse.TARGETS | xtwords.TARGETS.keys() - without_effect)
    same("Targets that change nothing of the way", without_effect)


def test_the_page_has_the_expressions_and_statements_of_nftables() -> None:
    same("Expressions of nftables", {*get_args(Field), *nftreads.EXPRESSIONS})
    same("Statements of nftables", nftwords.STATEMENTS.keys() | nftwords.OF_OUR_RULES)
