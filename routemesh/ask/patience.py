"""Waiting for what another node finds out about itself: as long as that node lives, since a busy machine is not a dead one."""

import asyncio
from typing import TypeVar

from routemesh.ask.context import Context
from routemesh.ask.peer import silent
from routemesh.model import Node, NodeState

ANSWER_WITHIN_S = 5.0
"""So long it is waited for, though its daemon may be stopped: a lease lasts as long."""
LONGEST_S = 20.0
"""Who asked for all nodes waits 30 s."""
_LOOK_S = 0.5

T = TypeVar("T")


async def get(context: Context, node: Node, path: str, kind: type[T]) -> T:
    """The JSON answer of another node's daemon. Raises Unavailable, or what that daemon refuses with."""
    answer = asyncio.ensure_future(context.peers.get(node, path, kind, within_s=LONGEST_S))
    try:
        await asyncio.wait([answer], timeout=ANSWER_WITHIN_S)
        while not answer.done() and await _lives(context, node):
            await asyncio.wait([answer], timeout=_LOOK_S)
        if answer.done():
            return answer.result()
        raise silent(node, "no answer")
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


async def _lives(context: Context, node: Node) -> bool:
    """Whether the cluster hears of it."""
    now = (await context.store.snapshot()).nodes.get(node.id)
    return now is not None and now.state is NodeState.READY
