"""A network namespace of one's own for a test."""

import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from routemesh.kernel import netns
from tests.support import require, unique

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_IFREQ = struct.Struct("16sH22x")


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
        with self.enter():
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
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
        with space.enter():
            _switch_lo_on()
        yield space
    finally:
        netns.remove(space.path)


def _switch_lo_on() -> None:
    """In the calling thread's namespace; without a process, for hundreds of tests. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFF_UP))
