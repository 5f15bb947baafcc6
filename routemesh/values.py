"""Immutable values: a change is a new one. PURE.

Nouns that many modules share are frozen msgspec.Structs: a class of these is made 50 times as fast as a dataclass, and an
instance, its comparison and its hash are C (docs/adr/0025).
"""

from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

if TYPE_CHECKING:
    # So that mypy compares what is given with the fields, of a Struct too.
    from dataclasses import replace  # noqa: TID251
else:

    def replace(value: Any, /, **changes: Any) -> Any:
        """A value that differs from `value`, a Struct or a dataclass, in `changes`."""
        if isinstance(value, Struct):
            return structs.replace(value, **changes)
        from dataclasses import replace as of_dataclass  # noqa: TID251

        return of_dataclass(value, **changes)


def differing(old: Struct, new: Struct) -> tuple[str, ...]:
    """The names of the fields in which two values of one class differ."""
    return tuple(name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name))


__all__ = ["differing", "replace"]
