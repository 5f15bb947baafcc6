"""A machine as the process driver sees it: its directories and a network namespace."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from routemesh.runtime.node import NodeRuntime


@dataclass(frozen=True)
class ProcessNode:
    """Knows how to make the runtime of a daemon; each call gives what the next daemon would have."""

    directory: Path
    image: str = "host"
    daemons: list[NodeRuntime] = field(default_factory=list)

    @property
    def netns(self) -> Path:
        """The file of a network namespace that no other test uses."""
        return self.directory / "netns"

    def daemon(self) -> NodeRuntime:
        """A runtime with no memory."""
        self.daemons.append(NodeRuntime(self.directory / "run", self.directory / "logs"))
        return self.daemons[-1]


@contextmanager
def process_node(directory: Path) -> Iterator[ProcessNode]:
    """A node whose tasks and namespace are gone afterwards."""
    node = ProcessNode(directory)
    node.netns.touch()
    subprocess.run(["unshare", f"--net={node.netns}", "true"], check=True)
    try:
        yield node
    finally:
        asyncio.run(_remove_all(node))
        for daemon in node.daemons:
            daemon.close()
        if node.netns.exists():
            subprocess.run(["umount", node.netns], check=True)


async def _remove_all(node: ProcessNode) -> None:
    runtime = node.daemon()
    for task_id in await runtime.tasks():
        await runtime.remove(task_id)


def children(pid: int) -> list[int]:
    """The processes that have this one as their parent, as the node sees them."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def pid_namespace(pid: int) -> Iterator[int]:
    """The number of a process's pid namespace; held open, because the kernel soon gives another one a number that is free."""
    with open(f"/proc/{pid}/ns/pid", "rb", buffering=0) as namespace:
        yield os.fstat(namespace.fileno()).st_ino


def processes_in(namespace: int) -> set[int]:
    """The processes of a pid namespace that live, as the node sees them."""
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _lives_in(entry, namespace)}


def _lives_in(process: Path, namespace: int) -> bool:
    try:
        return (process / "ns/pid").stat().st_ino == namespace and "\nState:\tZ" not in (process / "status").read_text()
    except OSError:
        return False
