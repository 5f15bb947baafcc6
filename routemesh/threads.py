"""Work that a loop leaves to a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


async def in_thread(executor: Executor, work: Callable[[*Ts], T], *args: *Ts) -> T:
    """What `work` returns or raises; for a StopIteration, which no future can carry (one would wait for ever), RuntimeError."""

    def done() -> T:
        try:
            return work(*args)
        except StopIteration as exc:
            raise RuntimeError("StopIteration") from exc

    return await asyncio.get_running_loop().run_in_executor(executor, done)
