"""One recorded file, and what was not understood of it. PURE."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Interface

from routemesh.snapshot import Part, Unread


@dataclass(slots=True)
class Source:
    """A file's text under the name that people know it by. Readers skip what they don't understand, and say so in `unread`.

    `loses`: what can't be told without this file, `part` which part of a namespace that is.
    """

    file: str
    text: str
    loses: str
    unread: list[Unread] = field(default_factory=list)
    part: Part = "all"

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines that have something on them, with their numbers."""
        for number, line in enumerate(self.text.splitlines(), 1):
            if line.strip():
                yield number, line.rstrip()

    def odd(self, line: int, text: str) -> None:
        """Take down that a line was not understood."""
        self.unread.append(Unread(f"{self.file}:{line}", f"not understood: {text.strip()[:120]}", self.loses, self.part))

    def broken(self, why: str) -> None:
        """Take down that the file as a whole, or an object in it, can't be used."""
        self.unread.append(Unread(self.file, why, self.loses, self.part))


def is_ipv6(word: str) -> bool:
    """Whether a word is an IPv6 address or prefix."""
    try:
        IPv6Interface(word)
    except ValueError:
        return False
    return True
