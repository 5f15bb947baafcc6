"""Another process on the same store, for test_sqlite: `python -m tests.store.daemon ROLE FILE`."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from routemesh.errors import Unavailable
from routemesh.model import Service, ServiceId, ServiceSpec, State
from routemesh.store.prolong import prolonged
from routemesh.store.sqlite import SqliteStore
from routemesh.values import replace

INCREMENTS = 25
COUNTER = ServiceId("counter")
_NOBODY = 65534
_LARGE = "x" * 1_000_000


def count(state: State) -> int:
    """What the counter stands at."""
    return state.services[COUNTER].version if COUNTER in state.services else 0


def increment(state: State, text: str = "") -> State:
    """Count one."""
    spec = ServiceSpec(name="counter", workdir=text)
    service = Service(id=COUNTER, spec=spec, version=count(state) + 1, created_at=0.0, updated_at=0.0)
    return replace(state, services={COUNTER: service})


async def counts(path: Path) -> None:
    """Count INCREMENTS times."""
    store = await SqliteStore.open(path)
    for _ in range(INCREMENTS):
        await store.update(increment)


async def counts_for_ever(path: Path) -> None:
    """Count until killed, in transactions of several pages; print what is committed."""
    store = await SqliteStore.open(path)
    while True:
        state = await store.update(lambda state: increment(state, text=_LARGE[:50_000]))
        print(count(state), flush=True)


async def hangs_while_writing(path: Path) -> None:
    """Print a line and stop for ever in the middle of a transaction."""

    def hang(state: State) -> State:
        print("inside", flush=True)
        threading.Event().wait()
        return state

    await (await SqliteStore.open(path)).update(hang)


async def dies_after_commit(path: Path) -> None:
    """Be killed between a commit and everything that would follow it."""

    def die(fd: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = await SqliteStore.open(path)
    os.close = die
    await store.update(increment)


async def fills_the_disk(path: Path) -> None:
    """Count until the small disk under `path` is full, make room, count once more; print each count, and the error."""
    store = await SqliteStore.open(path)
    print(count(await store.update(increment)))
    with suppress(OSError), Path(path.parent, "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass
    try:
        await store.update(lambda state: increment(state, text=_LARGE))
    except Unavailable as exc:
        print(exc)
    print(count(await store.snapshot()), count(await (await SqliteStore.open(path)).snapshot()))
    Path(path.parent, "ballast").unlink()
    print(count(await store.update(lambda state: increment(state, text=_LARGE))))


async def has_no_privilege(path: Path) -> None:
    """Count once as the user nobody; print the error."""
    os.seteuid(_NOBODY)
    try:
        await (await SqliteStore.open(path)).update(increment)
    except Unavailable as exc:
        print(exc)


async def prolongs(path: Path) -> None:
    """Prolong the leases of `me` until standard input ends."""
    with prolonged(path, "me"):
        print("prolongs", flush=True)
        sys.stdin.read()


_ROLES: dict[str, Callable[[Path], Awaitable[None]]] = {
    role.__name__: role
    for role in (
        counts,
        counts_for_ever,
        hangs_while_writing,
        dies_after_commit,
        fills_the_disk,
        has_no_privilege,
        prolongs,
    )
}


async def main(role: str, path: str) -> None:
    """Play one of the roles above."""
    await _ROLES[role](Path(path))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
