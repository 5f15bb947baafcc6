"""Text that others made: bytes as text whatever they are, and text that a terminal only shows.

PURE. Both are total: every byte string has a text that JSON, SQLite and UTF-8 can hold, and every text has a visible form.
"""

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, changes the direction of writing, or has no shape: control, format, …"""
_KEPT = {"\n", "\t", "\u200d", "\ufe0f"}
"""Line ends and tabs, and what joins emoji: they change nothing outside of their own place."""


def decoded(raw: bytes) -> str:
    r"""Bytes as UTF-8; those that are not show as \xff, so that different names stay different."""
    return raw.decode(errors="backslashreplace")


def visible(text: str) -> str:
    r"""`text` with everything a terminal would act on written out: an escape character as \x1b, a surrogate as \udcff."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
