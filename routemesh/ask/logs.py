"""A service's output: that of all its tasks, wherever they run, each line with its task and node in front."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from routemesh import names
from routemesh.ask.context import Context
from routemesh.errors import NotFound, RoutemeshError
from routemesh.model import ServiceId, State, Task, TaskId, TaskState
from routemesh.values import replace

_SHORT_ID = 12

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Which of a task's output: its last `tail` lines (None: all), with `follow` what comes, too."""

    follow: bool
    tail: int | None


async def write_logs(context: Context, service_id: ServiceId, write: Write, wanted: Output) -> None:
    """Write the output of each task, slot by slot; with `follow` until the service is removed."""
    if wanted.follow:
        await _follow(context, service_id, write, wanted)
        return
    state = await context.store.snapshot()
    for task in _tasks(state, service_id):
        await _copy(context, state, task, write, wanted)


async def own_task(context: Context, ref: str) -> TaskId:
    """The task of this node with an id. Raises NotFound."""
    state = await context.store.snapshot()
    task = state.tasks.get(TaskId(ref))
    if task is None or task.node_id is None or task.node_id not in state.nodes:
        raise NotFound(f"no task with id {ref!r} runs on a node")
    if task.node_id != context.node_id:
        raise NotFound(f"task {task.id} is not on this node but on {state.nodes[task.node_id].name}; ask there")
    return task.id


async def _follow(context: Context, service_id: ServiceId, write: Write, wanted: Output) -> None:
    seen: set[TaskId] = set()
    async with asyncio.TaskGroup() as group:
        async for _ in context.store.watch():
            state = await context.store.snapshot()
            if service_id not in state.services:
                return
            for task in _tasks(state, service_id):
                if task.id not in seen:
                    seen.add(task.id)
                    group.create_task(_copy(context, state, task, write, wanted))
            wanted = replace(wanted, tail=None)


def _tasks(state: State, service_id: ServiceId) -> list[Task]:
    """Those that were started; some of them may have left nothing."""
    tasks = (
        task
        for task in state.tasks.values()
        if task.service_id == service_id and task.node_id is not None and task.status.state >= TaskState.STARTING
    )
    return sorted(tasks, key=lambda task: (task.slot, task.created_at, task.id))


async def _copy(context: Context, state: State, task: Task, write: Write, wanted: Output) -> None:
    name = names.name_of(state, task)
    assert task.node_id is not None
    node = state.nodes.get(task.node_id)
    prefix = f"{name}.{task.id[:_SHORT_ID]}@{node.name if node else task.node_id}    | ".encode()
    try:
        with context.outputs.taken():
            async for block in _lines(context, state, task, wanted):
                await write(prefix + block[:-1].replace(b"\n", b"\n" + prefix) + b"\n")
    except ConnectionError:
        return  # the reader has gone, and the request is about to be cancelled
    except RoutemeshError as exc:
        await write(prefix + f"(routemesh: {exc})\n".encode())


async def own_lines(context: Context, task_id: TaskId, wanted: Output) -> AsyncIterator[bytes]:
    """The bare lines of a task of this node, in blocks of whole ones; none if the runtime does not know it (it was rejected)."""
    try:
        async for block in context.logs(task_id, follow=wanted.follow, tail=wanted.tail):
            yield block if block.endswith(b"\n") else block + b"\n"
    except NotFound:
        return


def _lines(context: Context, state: State, task: Task, wanted: Output) -> AsyncIterator[bytes]:
    node = state.nodes.get(task.node_id) if task.node_id else None
    if node is None or node.id == context.node_id:
        return own_lines(context, task.id, wanted)
    query = f"follow={int(wanted.follow)}" + ("" if wanted.tail is None else f"&tail={wanted.tail}")
    return context.peers.lines(node, f"/tasks/{task.id}/logs?{query}")
