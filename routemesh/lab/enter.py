"""Running a command on a machine of a lab: in its network namespace, with its own view of where namespaces are.

`ip netns` and people look for namespaces in /run/netns, people who know Swarm in /var/run/docker/netns. In a mount namespace of
the command's own both show those of the node, so that what a Swarm tutorial says works unchanged. Source: ip-netns(8), mount(2).
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from routemesh import names
from routemesh.errors import NotFound, UserError
from routemesh.kernel import netns
from routemesh.lab import topology
from routemesh.lab.find import LABS, Lab
from routemesh.model import State, Task
from routemesh.options import NodeOptions

_NETNS_DIRS = (Path("/run/netns"), Path("/run/docker/netns"))
_RUN = Path("/run")

_TASK_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid", "--wd")

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000


def run(lab: Lab, host: str, command: tuple[str, ...], *, sandbox: str | None = None, task: str | None = None) -> NoReturn:
    """Become `command` on a machine, in a namespace of it, or in a task.

    Raises NotFound for what is not there, FileNotFoundError or PermissionError for a command that can't be run.
    """
    if host == topology.CLIENT:
        if sandbox or task:
            raise UserError("the client has neither sandboxes nor tasks; name a node")
        _become(command, lab.netns(host), None)
    node = lab.node(host)
    if not lab.netns(host).exists():
        raise NotFound(f"{host} of lab {lab.name} has no power; 'routemesh lab start {host}' brings it back")
    os.environ["ROUTEMESH_HOST"] = f"unix://{node.socket}"
    if task is not None:
        container, pid = _find_task(lab, node, task)
        if pid is not None:
            os.execvp("nsenter", ("nsenter", f"--target={pid}", *_TASK_NAMESPACES, "--", *command))
        sandbox = container
    namespaces = node.run_dir / "netns"
    _become(command, _sandbox(node, namespaces, sandbox) if sandbox else lab.netns(host), namespaces)


def remove_traces() -> None:
    """Remove the directories that are there only because a command was run in a lab."""
    for directory in _NETNS_DIRS:
        for made in (directory, *directory.parents):
            if made != _RUN and _mark(made).exists():
                _mark(made).unlink()
                with suppress(OSError):
                    made.rmdir()


def task_on(state: State, host: str, ref: str) -> Task:
    """A node's task by its name (web.1) or id, rather one that has not ended than one that has. Raises NotFound."""
    nodes = {node.id: node.name for node in state.nodes.values()}
    found = [
        (nodes.get(task.node_id, ""), task)
        for task in sorted(state.tasks.values(), key=lambda task: (not task.status.state.ended, task.created_at))
        if task.node_id and ref in (task.id, names.task_name(task.spec.name, task.slot, nodes.get(task.node_id, "")))
    ]
    if not found:
        raise NotFound(f"there is no task {ref}; 'routemesh service ps' lists them")
    here = [task for node, task in found if node == host]
    if not here:
        raise NotFound(f"task {ref} is on {found[-1][0]}, not on {host}")
    return here[-1]


def _find_task(lab: Lab, node: NodeOptions, ref: str) -> tuple[str, int | None]:
    """The task's container id and, while it runs, its first process."""
    import asyncio

    from routemesh.runtime import Running
    from routemesh.runtime.node import NodeRuntime
    from routemesh.store.opening import open_store

    async def find() -> tuple[Task, object]:
        store = await open_store(node.place)
        try:
            task = task_on(await store.snapshot(), node.name, ref)
        finally:
            await store.close()
        runtime = NodeRuntime(node.run_dir, node.data_dir / "logs")
        try:
            return task, (await runtime.tasks()).get(task.id)
        finally:
            runtime.close()

    with netns.entered(lab.netns(node.name)):
        task, found = asyncio.run(find())
    return names.container_id(task.id), found.pid if isinstance(found, Running) else None


def _sandbox(node: NodeOptions, namespaces: Path, name: str) -> Path:
    known = sorted(path.name for path in namespaces.iterdir()) if namespaces.exists() else []
    if name not in known:
        raise NotFound(f"{node.name} has no namespace {name}; it has {', '.join(known) or 'none'}")
    return namespaces / name


def _become(command: tuple[str, ...], namespace: Path, shown: Path | None) -> NoReturn:
    with netns.entered(namespace):
        if shown is not None and shown.exists():
            _show_namespaces(shown)
        os.execvp(command[0], command)


def _show_namespaces(directory: Path) -> None:
    """Mount `directory` on _NETNS_DIRS in a mount namespace of our own, where the host's later mounts still arrive."""
    for place in _NETNS_DIRS:
        for missing in reversed([each for each in (place, *place.parents) if not each.exists()]):
            with suppress(FileExistsError):
                missing.mkdir()
                _mark(missing).touch()
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
    for place in _NETNS_DIRS:
        _check(_libc.mount(bytes(directory), bytes(place), None, _MS_BIND | _MS_REC, None))


def _mark(made: Path) -> Path:
    """What says that a directory was made here, not by the machine's own programs."""
    return LABS / f"made{'-'.join(made.parts).removeprefix('/')}"


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
