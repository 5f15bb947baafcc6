"""Tasks that their driver prepares: from when on the node counts them so, and what is told meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from routemesh.decide.admit import task_report
from routemesh.model import NodeId, ServiceSpec, State, TaskState, TaskStatus

EVERY_S = 1.0
"""Each line that is told is a commit, which wakes every node."""
_LENGTH = 200


def accepted(state: State, node_id: NodeId, prepares: Callable[[ServiceSpec], bool]) -> State:
    """The state as it will be when a node's new tasks whose driver `prepares` them have told so. PURE.

    By it the node plans no namespace for them, also in the very pass in which it begins with them.
    """
    for task in state.tasks.values():
        is_new = task.node_id == node_id and task.status.state is TaskState.ASSIGNED
        if is_new and prepares(task.spec):
            state = task_report(state, task.id, TaskStatus(state=TaskState.ACCEPTED, at=task.status.at))
    return state


class News:
    """The newest line of a driver, not told more often than people read it."""

    def __init__(self) -> None:
        self._line = ""
        self._is_new = asyncio.Event()

    def note(self, line: str) -> None:
        """Take a line; all before it are forgotten, told or not."""
        line = " ".join(line.split())[:_LENGTH]
        if line != self._line:
            self._line = line
            self._is_new.set()

    async def told(self, tell: Callable[[str], Awaitable[None]]) -> NoReturn:
        """Hand the newest line to `tell` as soon as there is one, and then at most every EVERY_S."""
        while True:
            await self._is_new.wait()
            self._is_new.clear()
            await tell(self._line)
            await asyncio.sleep(EVERY_S)
