"""names.json: what routemesh's manager knows of its cluster, as a recording holds it. PURE."""

from collections.abc import Set
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec

from routemesh.recording.naming import NOT_RECORDED
from routemesh.recording.source import Source
from routemesh.snapshot import Names
from routemesh.values import replace

FILE = "names.json"


def write(names: Names) -> str:
    """The file's text."""
    return _ENCODER.encode(names).decode() + "\n"


def read(source: Source) -> Names | None:
    """What it says; None, which is taken down, for what is not such a file."""
    try:
        return _DECODER.decode(source.text)
    except msgspec.MsgspecError as error:
        source.broken(str(error))
        return None


def among(names: Names, nodes: Set[str]) -> Names:
    """The names with it said which of the nodes, by name, were recorded."""
    return replace(names, nodes=tuple(replace(node, absent="" if node.name in nodes else NOT_RECORDED) for node in names.nodes))


def _to_text(value: object) -> str:
    if isinstance(value, IPv4Address | IPv4Network):
        return str(value)
    raise TypeError(f"no JSON form for {value!r}")


def _from_text(wanted: type[Any], text: object) -> Any:
    if wanted in {IPv4Address, IPv4Network} and isinstance(text, str):
        return wanted(text)
    raise ValueError(f"expected {wanted.__name__}, got {text!r}")


_ENCODER = msgspec.json.Encoder(enc_hook=_to_text)
_DECODER = msgspec.json.Decoder(Names, dec_hook=_from_text)
