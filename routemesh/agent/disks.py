"""Tells with the node how its disks are, when something is wrong with one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from routemesh import loops
from routemesh.sightings import DISK_SUBJECT, Disk, shortages

LOOK_EVERY_S = 5.0

Look = Callable[[], Awaitable[Sequence[Disk]]]


async def watch_disks(look: Look, troubles: loops.Troubles) -> NoReturn:
    """Look again and again."""

    async def act() -> float:
        troubles.note(DISK_SUBJECT, shortages(await look()))
        return LOOK_EVERY_S

    await loops.rounds("looking at disks", act, asyncio.Event(), troubles)
