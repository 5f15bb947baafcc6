"""Pages that show commands and what they print: run again, compared with the page, and written anew.

A fenced block with lines that begin with `$ ` is a transcript. Its commands are run in order, without a shell. `2>/dev/null` at
the end leaves out standard error; `&` at the end starts a command, whose output follows that of the next one. A line `…` stands
for any lines. What differs from run to run (ids, counters, ports, times) is compared by its form alone; an id that a
page shows stands, in later commands, for the one that this run shows in its place.

With ROUTEMESH_WRITE_PAGES=1 in the environment pages are written instead of compared, and commands without output get theirs. (In
User-Mode Linux the page is the machine's own copy: `./run uml sh -c 'ROUTEMESH_WRITE_PAGES=1 … pytest …; cat docs/path.md'`.)
"""

import difflib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WRITE_VARIABLE = "ROUTEMESH_WRITE_PAGES"

_FENCE, _PROMPT, _ELLIPSIS = "```", "$ ", "…"
_WITHOUT_ERRORS = "2>/dev/null"
_ELEMENTS = "elements ="
_TIMEOUT_S = 60.0

_IDS = re.compile(r"\b(?:[0-9a-z]{25}|veth[0-9a-f]{7}|1-[0-9a-z]{10}|[0-9a-z]{12})\b")
"""Of services and networks, links, overlay namespaces, namespaces and tasks; one task in fifty has no digit in its id."""

_VOLATILE: Sequence[tuple[re.Pattern[str], str]] = (
    (_IDS, "ID"),
    (re.compile(r"packets \d+ bytes \d+"), "packets N bytes N"),
    (re.compile(r"\d+ packets?, \d+ bytes"), "N packets, N bytes"),
    (re.compile(r"^( *)\d+[KM]? +\d+[KM]? (?=[A-Za-z-]+ )"), r" N N "),
    (re.compile(r"@if\d+"), "@ifN"),
    (re.compile(r"^\d+:\s+(?=[a-z])"), "N: "),
    (re.compile(r"(netnsid|\(id:|qlen|port|secs|timeout) \d+"), r"\1 N"),
    (re.compile(r"\b(tcp|udp) +(6|17) \d+ (?:[A-Z_]+ )?"), r"\1 N "),
    (re.compile(r"[.:](?:[3-6]\d{4})\b"), ".PORT"),
    (re.compile(r"\b(ActiveConn|InActConn)\b"), r"\1"),
    (re.compile(r"(Masq +\d+) +\d+ +\d+"), r"\1 N N"),
    (re.compile(r"\d+ (?:seconds?|minutes?|hours?)|less than a second|about an? (?:minute|hour)"), "TIME"),
    (re.compile(r"zone-orig=\d+"), "zone-orig=N"),
    (re.compile(r",$|(?<=\S) }$"), ""),
    (re.compile(r"\s+"), " "),
)


@dataclass
class Entry:
    """A command of a page; `first` and `last` are the lines of its output, the latter excluded."""

    command: str
    first: int
    last: int = 0


@dataclass
class Run:
    """One reading of a page. `aliases`: what the page calls things of this run; `names`: what this run calls ids of the page."""

    environment: Mapping[str, str]
    aliases: Mapping[str, str]
    names: dict[str, str] = field(default_factory=dict)
    _waiting: subprocess.Popen[str] | None = None

    def output(self, command: str) -> list[str]:
        """What a command prints now, with that of the one in the background that it sets off."""
        numbers = {of_page: here for here, of_page in self.aliases.items() if of_page[-1].isdigit()}
        command = _replaced(_replaced(command, self.names), numbers)
        if command.endswith("&"):
            self._waiting = _started(command.removesuffix("&"), self.environment)
            return []
        found = _run(command, self.environment)
        if self._waiting is not None:
            text, _ = self._waiting.communicate(timeout=_TIMEOUT_S)
            found += text.splitlines()
            self._waiting = None
        return [_replaced(line, self.aliases) for line in found]

    def learn(self, of_page: str, here: str) -> None:
        """Take note of the ids in two lines of one form."""
        for shown, found in zip(_IDS.findall(of_page), _IDS.findall(here), strict=True):
            self.names[shown] = found


def write_or_compare(page: Path, environment: Mapping[str, str], *, section: str, aliases: Mapping[str, str]) -> None:
    """Run the transcripts of a page below the heading `section`. Fails, showing both, where what is printed has another form.

    `environment` is added to the commands' own; `aliases`: see Run.
    """
    writing = bool(os.environ.get(WRITE_VARIABLE))
    lines = page.read_text().splitlines()
    run, more = Run(environment, aliases), 0
    for entry in list(_entries(lines, section)):
        first, last = entry.first + more, entry.last + more
        shown, found = lines[first:last], run.output(entry.command)
        fitting = _fitted(shown, found) if shown or not writing else [_spelled(line) for line in found]
        if fitting is None:
            pair = difflib.unified_diff(shown, found, f"{page.name}:{first}", "here", lineterm="")
            raise AssertionError(f"$ {entry.command}\n" + "\n".join(pair))
        for of_page, here in zip(shown, fitting, strict=False):
            run.learn(of_page, here)
        lines[first:last] = fitting
        lines[first - 1] = _renamed(lines[first - 1], run.names)
        more += len(fitting) - len(shown)
    if writing:
        page.write_text("\n".join(_renamed(line, run.names) for line in lines) + "\n")


def _entries(lines: Sequence[str], section: str) -> Iterator[Entry]:
    """The commands of a section, which ends with the next heading of the same or a higher level."""
    level, inside, fenced, entry = len(section.split(" ", maxsplit=1)[0]), False, False, None
    for number, line in enumerate(lines):
        if not fenced and line.startswith("#") and (inside or line == section):
            inside = line == section or len(line.split(" ", maxsplit=1)[0]) > level
        closes = fenced and (line == _FENCE or line.startswith(_PROMPT))
        if entry is not None and closes:
            entry.last = number
            yield entry
            entry = None
        if line.startswith(_FENCE):
            fenced = not fenced
        elif fenced and inside and line.startswith(_PROMPT):
            entry = Entry(line.removeprefix(_PROMPT), number + 1)


def _fitted(shown: Sequence[str], found: Sequence[str]) -> list[str] | None:
    """For each line that a page shows, one of its form that was found, in any order; None where there is none, or too many."""
    left = [_spelled(line) for line in found]
    fitting = []
    for line in shown:
        match = next((here for here in left if _fits(line, here)), None)
        if line == _ELLIPSIS:
            fitting.append(line)
        elif match is None:
            return None
        else:
            left.remove(match)
            fitting.append(line if _ELLIPSIS in line else match)
    return fitting if _ELLIPSIS in shown or not any(left) else None


def _fits(shown: str, found: str) -> bool:
    """A page may cut the end, or columns, of a line: `ID   NAME …`."""
    parts = [_form(part) for part in shown.split(_ELLIPSIS)]
    rest = _form(found)
    if not rest.startswith(parts[0].rstrip()):
        return False
    return rest == parts[0] if len(parts) == 1 else all(part.strip() in rest for part in parts)


def _spelled(line: str) -> str:
    return line.rstrip().expandtabs(4 if line.startswith("\t") else 8)


def _form(line: str) -> str:
    """nft lists the elements of a set in any order."""
    if _ELEMENTS in line:
        line = ", ".join(sorted(line.replace(_ELEMENTS, "").strip(" {},").split(", ")))
    for pattern, form in _VOLATILE:
        line = pattern.sub(form, line)
    return line.strip()


def _replaced(text: str, names: Mapping[str, str]) -> str:
    """All at once, so that two may change places."""
    whole = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    return whole.sub(lambda found: names[found[0]], text) if names else text


def _renamed(line: str, names: Mapping[str, str]) -> str:
    return _IDS.sub(lambda found: names.get(found[0], found[0]), line)


def _run(command: str, environment: Mapping[str, str]) -> list[str]:
    quiet = command.rstrip().endswith(_WITHOUT_ERRORS)
    errors = subprocess.DEVNULL if quiet else subprocess.STDOUT
    done = subprocess.run(
        _argv(command), env=_environment(environment), stdout=subprocess.PIPE, stderr=errors, text=True, timeout=_TIMEOUT_S
    )
    return done.stdout.splitlines()


def _started(command: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A command that runs, from the moment when it says on standard error that it listens."""
    process = subprocess.Popen(
        _argv(command), env=_environment(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    deadline = time.monotonic() + _TIMEOUT_S
    while "listening on" not in process.stderr.readline():
        assert process.poll() is None and time.monotonic() < deadline, f"{command} does not listen"
    return process


def _argv(command: str) -> list[str]:
    words = [word for word in shlex.split(command, comments=True) if word != _WITHOUT_ERRORS]
    return [sys.executable, "-m", *words] if words[0] == "routemesh" else words


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Where tasks find `routemesh` too."""
    bin_directory = str(Path(sys.executable).parent)
    return {**os.environ, **extra, "PATH": f"{bin_directory}:{os.environ['PATH']}"}
