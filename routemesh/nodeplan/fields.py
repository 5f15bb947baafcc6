"""What fields of the nouns may say of themselves."""

from dataclasses import field
from typing import TypeVar

_T = TypeVar("_T")


def theirs(default: _T) -> _T:
    """A field that no plan sets: there for what others have made. What prints a plan leaves it out."""
    return field(default=default, metadata={"theirs": True})
