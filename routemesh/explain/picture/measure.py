"""How wide text is, at most, in the fonts that a viewer may have, and how it is cut and wrapped to fit. PURE.

Source: the advance widths of DejaVu Sans and DejaVu Sans Mono, which are the widest of the fonts that the pictures name.
"""

import textwrap
from unicodedata import east_asian_width

MONO = 0.62
"""Of the font's size; SF Mono has 0.618."""
_USUAL = {
    278: "ijl'", 295: "IJ", 318: " ,.·", 337: "/:;\\|", 352: "f", 361: "-", 392: "()[]t", 411: "!r", 460: '"', 500: "*_`",
    525: "sz?", 550: "c", 579: "kF", 592: "vxyL", 615: "aeoPTY", 636: "$0123456789{}bdgpqShnuE", 698: "ABCVXZRK", 752: "GHNUD&",
    818: "mwOQ~+<=>#^→", 1000: "MW@%…",
}  # fmt: skip
_BOLD = {
    343: "ijl'/\\|", 380: ",.· IJ", 415: "-:;", 478: "()[]tf!", 523: "*\"_`r?", 595: "csz", 665: "kvxyLFZ", 687: "aeoTE",
    720: "bdgpqhnuS$0123456789{}", 775: "ABCVXRKPY", 850: "GHNUDOQ&~+<=>#^→", 1042: "mwMW@%…",
}  # fmt: skip
_WIDTHS = {bold: {each: ems for ems, of in table.items() for each in of} for bold, table in ((False, _USUAL), (True, _BOLD))}
"""In thousandths of the font's size, of a few that are almost alike the widest."""
_UNKNOWN, _FULL = 840, 1000


def width(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """Pixels that a text takes at most."""
    if mono:
        return sum(1.2 if east_asian_width(each) in "WF" else MONO for each in text) * size
    known = _WIDTHS[bold]
    return sum(known.get(each, _FULL if east_asian_width(each) in "WF" else _UNKNOWN) for each in text) * size / 1000


def cut(text: str, room: float, size: float, *, mono: bool = False, bold: bool = False) -> str:
    """As much of a text as there is room for."""
    if width(text, size, mono=mono, bold=bold) <= room:
        return text
    while text and width(f"{text}…", size, mono=mono, bold=bold) > room:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, room: float, size: float, most: int, *, mono: bool = False, bold: bool = False) -> tuple[str, ...]:
    """The text in at most so many lines that fit, cut where it is longer."""
    widest = max((width(each, size, mono=mono, bold=bold) for each in set(text)), default=size)
    average = width(text, size, mono=mono, bold=bold) / max(len(text), 1)
    characters = max(int(room / (average * 1.04 if average else widest)), 1)
    while True:
        lines = textwrap.wrap(text, characters, max_lines=most, placeholder=" …", break_on_hyphens=False) or [""]
        if characters == 1 or all(width(line, size, mono=mono, bold=bold) <= room for line in lines):
            return tuple(lines)
        characters -= 1
