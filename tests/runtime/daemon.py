"""Another daemon, for test_process: `python -m tests.runtime.daemon ROLE DIRECTORY`."""

import asyncio
import sys
from pathlib import Path

from routemesh.model import ServiceSpec, TaskId
from routemesh.runtime.node import NodeRuntime

TASK = TaskId("t1")
SCRIPT = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done"


async def start(directory: Path) -> NodeRuntime:
    """Start a task that ends with 5 when it gets SIGUSR1."""
    runtime = NodeRuntime(directory / "run", directory / "logs")
    spec = ServiceSpec(name="web", command=("sh", "-c", SCRIPT))
    await runtime.start(TASK, "web.1", spec, "c0ffee", directory / "netns")
    return runtime


async def hold(directory: Path) -> None:
    """Start the task, say so, and wait for a SIGKILL."""
    runtime = await start(directory)
    print("started", flush=True)
    await runtime.wait(TASK)


async def interrupt(directory: Path) -> None:
    """Start the task, probe it for too long, stop it; say how all that ended."""
    runtime = await start(directory)
    codes = [(await runtime.execute(TASK, ["sh", "-c", "sleep 1000 & sleep 1000"], 0.05))[0] for _ in range(5)]
    ended = await runtime.stop(TASK, "USR1", 60)
    print(*codes, ended.code, flush=True)


ROLES = {"hold": hold, "interrupt": interrupt}
asyncio.run(ROLES[sys.argv[1]](Path(sys.argv[2])))
