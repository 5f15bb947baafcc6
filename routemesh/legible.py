"""Text that others made: bytes as text whatever they are, and text that a terminal only shows.

PURE and total: every byte string has a text that JSON, SQLite and UTF-8 can hold, and every text a visible form.
"""

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, changes the direction of writing, or has no shape"""
_JOINERS = {"\u200c", "\u200d"}
"""Formats that only shape the letters or emoji beside them."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def decoded(raw: bytes) -> str:
    r"""Bytes as UTF-8; those that are not show as \xff, so that different names stay different."""
    return raw.decode(errors="backslashreplace")


def storable(text: str) -> str:
    r"""`text` as JSON, SQLite and UTF-8 can hold it: a surrogate, which is a byte that was not a text, shows as \udcff."""
    return text.encode(errors="backslashreplace").decode()


def visible(text: str, kept: str = "\n\t") -> str:
    r"""`text` with all that a terminal would act on, but for `kept`, written out: the escape character as \x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character, kept) else _written_out(character) for character in text)


def one_line(text: str) -> str:
    r"""As `visible`, line ends and tabs too: what is one line stays one."""
    return visible(text, kept="")


def unbroken(text: str) -> str:
    r"""`text` with its line ends written out and nothing else changed."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def visible_json(text: str) -> str:
    r"""JSON with all that a terminal would act on in JSON's own spelling, \u009b, which means the same."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(character if _is_shown(character, "\n") else _as_json(character) for character in text)


def _is_shown(character: str, kept: str) -> bool:
    return character in kept or character in _JOINERS or unicodedata.category(character) not in _HIDDEN


def _written_out(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _as_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
