"""What explain and doctor print for a person to type, typed as it is printed: by bash, on the node that is named."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from routemesh.doctor import Finding, Severity
from routemesh.explain.nouns import Explanation
from routemesh.explain.text import text
from routemesh.kernel import netns
from tests.lab.still import Still

_MEND = re.compile(r"^ +(?:mend|let this pass)(?: on (?P<node>\S+):)? (?P<command>.+)$", re.MULTILINE)
_LOOK = re.compile(r"^ +look(?: on (?P<node>\S+):)? (?P<command>.+)$", re.MULTILINE)
_ON_NODE = re.compile(r"(?:^|(?<=; )|(?<=, or )|(?<=look )|(?<=pass ))on (node\d+): ")
_MORE = re.compile(r"; if its owner agrees, let this pass $|; $")

_DIFF = re.compile(r"commands, which routemesh diff (?P<node>\S+) prints\)$")


class Printed(NamedTuple):
    """A command, and where it is to be typed."""

    node: str
    command: str


def mends(found: Explanation) -> list[Printed]:
    """The commands that mend, in the text of an explanation."""
    return [Printed(each["node"], each["command"]) for each in _MEND.finditer(text(found))]


def looks(found: Explanation) -> list[Printed]:
    """The commands that show what is not the mesh's."""
    return [Printed(each["node"], each["command"]) for each in _LOOK.finditer(text(found))]


def fixes(findings: Sequence[Finding]) -> list[Printed]:
    """The commands in the doctor's last column, or those that it says the node prints."""
    wrong = [finding for finding in findings if finding.state is Severity.WRONG]
    return [each for finding in wrong for each in (*_of_fix(finding.fix), *_of_diff(finding))]


def _of_fix(fix: str) -> Iterator[Printed]:
    _, *parts = _ON_NODE.split(fix)
    for node, command in zip(parts[::2], parts[1::2], strict=True):
        yield Printed(node, _MORE.sub("", command))


def _of_diff(finding: Finding) -> Iterator[Printed]:
    if (found := _DIFF.search(finding.fix)) is not None:
        yield from (Printed(found["node"], command) for command in finding.commands)


def typed(still: Still, printed: Printed) -> str:
    """Its output; it fails unless the command succeeds."""
    with netns.entered(still.cluster.netns(printed.node)):
        done = subprocess.run(["bash", "-c", printed.command], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"on {printed.node}: {printed.command}: status {done.returncode}: {done.stderr}"
    return done.stdout
