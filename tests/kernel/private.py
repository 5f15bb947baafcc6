"""A network namespace of one's own for a test."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from routemesh.kernel import netns
from tests.support import require, unique


@dataclass(frozen=True)
class Private:
    """A namespace that `ip netns` knows by `name`."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns", self.name)

    def enter(self) -> AbstractContextManager[None]:
        """The calling thread is in it."""
        return netns.entered(self.path)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Output of a command in it, which must succeed."""
        inside = ("nsenter", f"--net={self.path}", *command)
        done = subprocess.run(inside, input=stdin, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def nft(self, text: str) -> str:
        """What a person does by hand."""
        return self.run("nft", "-f", "-", stdin=text)


@contextmanager
def private_netns(*, with_tables: bool = True) -> Iterator[Private]:
    """Made for the test, lo up, removed afterwards. Skips where that is impossible, or nf_tables is missing and wanted."""
    require("root", "netns", *(("nf_tables",) if with_tables else ()))
    space = Private(unique("rm"))
    subprocess.run(("ip", "netns", "add", space.name), check=True)
    try:
        space.run("ip", "link", "set", "lo", "up")
        yield space
    finally:
        subprocess.run(("ip", "netns", "delete", space.name), check=True)
