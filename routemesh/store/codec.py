"""Objects of the model as JSON text and back: `decode(kind, encode(kind, value)) == value`.

A field per field of the dataclass; enums by their value (a task's state by its number), addresses as people write them. Fields
that this version does not know are dropped, and fields that are missing get their default: a store may be shared by two versions.
"""

import msgspec

from routemesh.codec import from_text, to_text
from routemesh.store.changes import KINDS, Object


class CodecError(ValueError):
    """An object can't be written as JSON, or a text is not of the kind that it should be; the message says where."""


def encode(kind: str, value: Object) -> bytes:
    """The JSON text of an object, in UTF-8. Raises CodecError for what could not be read again, as an infinite float."""
    try:
        body = spelled(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise CodecError(str(exc)) from exc
    decode(kind, body)  # one unreadable object would shut every node out of the whole state
    return body


def spelled(value: Object) -> bytes:
    """The same of an object that a store holds already, and so can be read again."""
    return _ENCODER.encode(value)


def decode(kind: str, body: bytes) -> Object:
    """The object of that `kind` (a key of changes.KINDS) which `body` spells. Raises CodecError."""
    try:
        return _DECODERS[kind].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise CodecError(str(exc)) from exc


_ENCODER = msgspec.json.Encoder(enc_hook=to_text)
_DECODERS: dict[str, msgspec.json.Decoder[Object]] = {
    kind: msgspec.json.Decoder(model, dec_hook=from_text) for kind, model in KINDS.items()
}
