"""What fields of the nouns may say of themselves."""

from typing import Annotated, TypeVar, get_type_hints

_T = TypeVar("_T")
_OF_OTHERS = "of others"

Theirs = Annotated[_T, _OF_OTHERS]
"""The type of a field that no plan sets: there for what others have made. What prints a plan leaves it out."""


def of_others(kind: type) -> frozenset[str]:
    """The names of such fields of a noun."""
    hints = get_type_hints(kind, include_extras=True)
    return frozenset(name for name, hint in hints.items() if _OF_OTHERS in getattr(hint, "__metadata__", ()))
