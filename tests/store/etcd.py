"""Real members of etcd on ports of this machine that are free, for the tests of what stands on them."""

import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routemesh.options import EtcdCluster, Keys
from tests.support import wait_until

HOST = "127.0.0.1"
_PORTS = range(20_000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
NO_KEYS = Keys()
_QUICK = ("--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync", "--log-level=error", "--logger=zap")
"""A lease lasts a second at least then; nobody's data are at stake."""


def free_port() -> int:
    """A port that nobody uses, and that the kernel gives no client: it must be free also when its member is started again."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


@dataclass
class Member:
    """One member; `flags` beside the usual ones."""

    name: str
    directory: Path
    scheme: str = "http"
    flags: tuple[str, ...] = ()
    client: int = field(default_factory=free_port)
    peer: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"{HOST}:{self.client}"

    def start(self, members: Sequence["Member"]) -> None:
        """Run it, as one of `members`; with what it has kept, if it ran before."""
        client, peer = f"{self.scheme}://{self.endpoint}", f"http://{HOST}:{self.peer}"
        together = ",".join(f"{each.name}=http://{HOST}:{each.peer}" for each in members)
        command = (
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self.directory / self.name}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={together}",
            *_QUICK,
            *self.flags,
        )
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill it, if it runs."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Its answer to a request, {} where it does not answer."""
        connection = http.client.HTTPConnection(HOST, self.client, timeout=10)
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except OSError:
            return {}
        finally:
            connection.close()
        return answer


@dataclass
class Etcd:
    """The members of a cluster."""

    members: list[Member]

    def place(self, prefix: str = "/routemesh", keys: Keys = NO_KEYS) -> EtcdCluster:
        """The store on it."""
        return EtcdCluster(tuple(each.endpoint for each in self.members), prefix, keys)

    def ctl(self, *words: str) -> str:
        """What etcdctl prints."""
        command = ["etcdctl", f"--endpoints={','.join(each.endpoint for each in self.members)}", *words]
        done = subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def leader(self) -> Member:
        """The one that leads."""
        found = wait_until(self._leader, 20, "a leader")
        assert found is not None
        return found

    def _leader(self) -> Member | None:
        for member in self.members:
            found = member.ask("maintenance/status") if member.process is not None else {}
            if found and found.get("leader", "0") == found["header"]["member_id"]:
                return member
        return None


@contextmanager
def running(count: int = 1, scheme: str = "http", flags: tuple[str, ...] = ()) -> Iterator[Etcd]:
    """A cluster of so many members, which answers; `scheme` and `flags` of all."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="etcd-"))
        stack.callback(shutil.rmtree, directory)
        members = [Member(f"m{number}", directory, scheme, flags) for number in range(count)]
        for member in members:
            stack.callback(member.end)
            member.start(members)
        cluster = Etcd(members)
        if scheme == "http":
            wait_until(cluster._leader, 20, "a leader")
        yield cluster
