"""What can't be told matters only where it makes a difference: both are walked, and what they have in common is told. PURE."""

from collections import Counter

from routemesh.reasons.ends import EitherWay, End
from routemesh.values import replace
from routemesh.walk.nouns import Delivered, Dropped, Outcome, Question, Refused, ReplyLost, Unclear, Walk

MOST_OPEN = 4
"""So many open questions are followed on one way, which is twice as many walks for each."""


def open_question(outcome: Outcome) -> Question | None:
    """What would have to be supposed to walk on; None where nothing is open, or nothing can be supposed of it."""
    of = (outcome, outcome.reply, outcome.full_size) if isinstance(outcome, Delivered) else (outcome,)
    return next((each.open for each in of if isinstance(each, Unclear) and each.open is not None), None)


def in_common(one: Walk, other: Walk) -> Walk | None:
    """What both possibilities come to; None where that is not the same."""
    if Counter((each.share, each.outcome) for each in one) == Counter((each.share, each.outcome) for each in other):
        return one
    ends = [_end(each.outcome) for each in (*one, *other)]
    if any(end is None for end in ends):
        return None
    last = _end(other[0].outcome)
    assert last is not None
    return tuple(replace(each, outcome=_with(each.outcome, last)) for each in one)


def _end(outcome: Outcome) -> End | None:
    """Why small packets or their answers do not get there; None where they do, or it can't be told."""
    match outcome:
        case Refused(_, end) | Dropped(_, end) | Delivered(reply=ReplyLost(_, end)):
            return end
        case _:
            return None


def _with(outcome: Outcome, other: End) -> Outcome:
    match outcome:
        case Refused(place, end) if end != other:
            return Dropped(place, EitherWay(end, other))
        case Dropped(place, end) if end != other:
            return Dropped(place, EitherWay(end, other))
        case Delivered(reply=ReplyLost(place, end)) if end != other:
            return replace(outcome, reply=ReplyLost(place, EitherWay(end, other)))
        case _:
            return outcome
