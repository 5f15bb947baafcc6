"""Values as JSON and back: what the store, the API and recordings share. PURE.

This module has what msgspec is to be told about types that it does not know; `codec.plain` the values of nodeplan and snapshot.
"""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec

from routemesh.legible import storable


def encoded(value: object) -> bytes:
    """The JSON text of a value; where it holds bytes that were no text, as a process's name may, these are made visible."""
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(_storable(msgspec.to_builtins(value, enc_hook=to_text, str_keys=True)))


def _storable(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(key): _storable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_storable(inner) for inner in value]
        case _:
            return value


def to_text(value: object) -> str:
    """How msgspec is to write what it does not know: addresses as people do."""
    if isinstance(value, IPv4Address | IPv4Network):
        return str(value)
    raise TypeError(f"no JSON form for {value!r}")


def from_text(wanted: type[Any], text: object) -> Any:
    """How msgspec is to read it again."""
    if wanted in {IPv4Address, IPv4Network} and isinstance(text, str):
        return wanted(text)
    raise ValueError(f"expected {wanted.__name__}, got {text!r}")


_ENCODER = msgspec.json.Encoder(enc_hook=to_text)
