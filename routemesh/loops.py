"""What the loops of a daemon share: none of them ends it, whatever a spec, a process, a disk, a kernel or a peer does.

A loop acts, waits until something happens or a while has passed, and acts again. What it raises becomes a line of the node's
status, here and nowhere else, until it acts without raising; in between it is tried again after pauses that double. A loop that
returns is a bug: that ends the daemon, with a reason, and its supervisor starts it anew.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import NoReturn

from routemesh.errors import RoutemeshError

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 1.0
"""The last is well below what a lease lasts: when a store that was away is back, no node is given up because it waits."""
_LONGEST_TEXT = 500
_BEAT_S, _PHASE_S = 1.0, random.random()
"""Each daemon wakes up at a moment of its own within a second: those of one machine share a store."""

Act = Callable[[], Awaitable[float]]
"""What a loop does; returns after how many seconds it acts again though nothing happened."""


class EndsDaemon(RoutemeshError):
    """What a loop raises to end the daemon: it can't be mended by trying again."""


class LoopEnded(EndsDaemon):
    """A loop of the daemon has returned, which none ever should."""


class Troubles:
    """What goes wrong in this daemon's loops just now. `changed` is set whenever that has become something else."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._now: dict[str, str] = {}

    def lines(self) -> tuple[str, ...]:
        """One line per loop that is in trouble, in the order of their names."""
        return tuple(f"{loop}: {what}" for loop, what in sorted(self._now.items()))

    def note(self, loop: str, what: str) -> None:
        """Set what is wrong with a loop; "" when nothing is."""
        if self._now.get(loop, "") == what:
            return
        if what:
            self._now[loop] = what
        else:
            del self._now[loop]
        self.changed.set()


class Guard:
    """Where what one loop raises becomes its trouble."""

    def __init__(self, loop: str, troubles: Troubles) -> None:
        self._loop = loop
        self._troubles = troubles
        self._pause_s = FIRST_PAUSE_S
        self._said = ""

    def well(self) -> None:
        """The loop has acted and nothing was raised."""
        if self._said:
            log.info("%s: works again", self._loop)
        self._pause_s, self._said = FIRST_PAUSE_S, ""
        self._troubles.note(self._loop, "")

    async def failed(self, exc: BaseException) -> None:
        """Note what the loop raised, log it unless it is what it raised the last time, and return when to try again.

        Raises it again where it is not the loop's: it was cancelled, or the whole process is to end.
        """
        if isinstance(exc, EndsDaemon) or not isinstance(exc, Exception | asyncio.CancelledError) or _is_cancelled(exc):
            raise exc
        what = said(exc)
        if what != self._said:
            log.error("%s: %s", self._loop, what, exc_info=None if _is_expected(exc) else exc)
        self._said = what
        self._troubles.note(self._loop, what)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)


async def rounds(loop: str, act: Act, wake: asyncio.Event, troubles: Troubles) -> NoReturn:
    """Act again and again: when `wake` is set, or after the time that `act` returned."""
    guard = Guard(loop, troubles)
    while True:
        wake.clear()
        try:
            pause_s = await act()
        except BaseException as exc:
            await guard.failed(exc)
            continue
        guard.well()
        try:
            async with asyncio.timeout_at(_together_from(asyncio.get_running_loop().time(), pause_s)):
                await wake.wait()
        except TimeoutError:
            continue


def _together_from(now: float, pause_s: float) -> float:
    """When a pause ends. Those of a second or more end together with others, somewhat earlier: the process wakes up once."""
    if pause_s < _BEAT_S:
        return now + pause_s
    return _PHASE_S + math.floor((now + pause_s - _PHASE_S) / _BEAT_S) * _BEAT_S


async def follow(
    loop: str, watch: Callable[[], AsyncIterator[None]], tell: Callable[[], Awaitable[None]], troubles: Troubles
) -> None:
    """Call `tell` whenever `watch` yields; a watch that breaks off with an error is begun anew. Returns when it ends well."""
    guard = Guard(loop, troubles)
    while True:
        try:
            async for _ in watch():
                await tell()
                guard.well()
        except BaseException as exc:
            await guard.failed(exc)
        else:
            return


async def persist(what: str, work: Callable[[], Awaitable[None]], troubles: Troubles) -> None:
    """Do something once, and again from its beginning as long as it raises."""
    guard = Guard(what, troubles)
    try:
        while True:
            try:
                return await work()
            except BaseException as exc:
                await guard.failed(exc)
    finally:
        troubles.note(what, "")


async def together(**loops: Coroutine[None, None, None]) -> NoReturn:
    """Run loops side by side until cancelled. Raises an ExceptionGroup with LoopEnded when one returns."""
    async with asyncio.TaskGroup() as group:
        for name, loop in loops.items():
            group.create_task(_endless(name, loop))
    raise AssertionError("a group ends when all in it have, and these raise")


async def _endless(name: str, loop: Coroutine[None, None, None]) -> NoReturn:
    await loop
    raise LoopEnded(f"the daemon's loop '{name}' has ended, which it never should: a bug in routemesh; start the daemon anew")


def said(exc: BaseException) -> str:
    """An exception as one line that can be shown and stored, whatever its text holds."""
    text = str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        text = f"{exc.filename}: {exc.strerror}" if exc.filename is not None else exc.strerror
    if not text:
        text = type(exc).__name__
    if not _is_expected(exc):
        text = f"{text} ({type(exc).__name__}, a bug in routemesh; the daemon's log has the details)"
    text = text.encode("utf-8", "backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _is_expected(exc: BaseException) -> bool:
    return isinstance(exc, RoutemeshError | OSError)


def _is_cancelled(exc: BaseException) -> bool:
    """Whether it ends the task that it was raised in; one may also come from a future that somebody else cancelled."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and (task is None or task.cancelling() > 0)
