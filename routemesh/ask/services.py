"""Services: made, changed, removed, and waited for."""

import asyncio
from collections.abc import Callable

from routemesh.ask.context import Context
from routemesh.decide import admit
from routemesh.decide.progress import Progress, progress
from routemesh.errors import Conflict, NotFound
from routemesh.model import Service, ServiceId, ServiceSpec, State


async def create(context: Context, spec: ServiceSpec) -> tuple[State, Service]:
    """Make a service; it converges in the background. Raises UserError, Conflict."""
    context.check(spec)
    state = await context.store.update(lambda state: admit.create_service(state, spec, context.now()))
    return state, admit.find_service(state, spec.name)


async def update(context: Context, ref: str, version: int, spec: ServiceSpec) -> tuple[State, Service]:
    """Give a service a new spec, made from the one at `version`. Raises Conflict when somebody else was faster."""
    context.check(spec)

    def change(state: State) -> State:
        present = admit.find_service(state, ref)
        if present.version != version:
            raise Conflict(
                f"service {present.spec.name} is at version {present.version} now, not {version}: "
                "somebody else changed it meanwhile; look at it and try again"
            )
        return admit.update_service(state, present.id, lambda _: spec, context.now())

    state = await context.store.update(change)
    return state, admit.find_service(state, ref)


async def remove(context: Context, ref: str) -> tuple[State, Service]:
    """Remove a service; its tasks stop in the background. The answer is how it was before."""
    before = await context.store.snapshot()
    removed = admit.find_service(before, ref)
    await context.store.update(lambda state: admit.remove_service(state, removed.id))
    return before, removed


async def progressed(context: Context, service_id: ServiceId, is_news: Callable[[Progress], bool], wait_s: float) -> Progress:
    """How far a service is: the first that is news, or, after `wait_s`, how it is then. Raises NotFound once it is gone."""
    try:
        async with asyncio.timeout(wait_s):
            async for _ in context.store.watch():
                if is_news(now := await _now(context, service_id)):
                    return now
    except TimeoutError:
        pass
    return await _now(context, service_id)


async def _now(context: Context, service_id: ServiceId) -> Progress:
    state = await context.store.snapshot()
    if service_id not in state.services:
        raise NotFound(f"service {service_id} was removed meanwhile")
    return progress(state, state.services[service_id], await context.store.leases())
