"""What is asked and told about services: list, one, create, update, remove, tasks, progress, logs."""

import asyncio

from aiohttp import web

from routemesh import wire
from routemesh.api.describe import progress_info, service_infos, task_info
from routemesh.api.reply import json_reply, number, stream
from routemesh.ask import peer
from routemesh.ask.context import CONTEXT, Context
from routemesh.ask.logs import own_lines, write_logs
from routemesh.decide import admit
from routemesh.decide.progress import progress
from routemesh.errors import Conflict, NotFound
from routemesh.labels import health
from routemesh.model import Service, ServiceId, ServiceSpec, State, TaskId

MAX_WAIT_S = 10.0

_BASE = f"{wire.PREFIX}/services"


async def _list(request: web.Request) -> web.Response:
    state = await request.app[CONTEXT].store.snapshot()
    return json_reply(service_infos(state, state.services.values()))


async def _get(request: web.Request) -> web.Response:
    state = await request.app[CONTEXT].store.snapshot()
    return _one(state, _service(state, request))


async def _create(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    spec = health.interpret(wire.parse(ServiceSpec, await request.read()))
    context.check(spec)
    state = await context.store.update(lambda state: admit.create_service(state, spec, context.now()))
    return _one(state, admit.find_service(state, spec.name), status=201)


async def _update(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    wanted = wire.parse(wire.ServiceUpdate, await request.read())
    spec = health.interpret(wanted.spec)
    context.check(spec)

    def change(state: State) -> State:
        present = _service(state, request)
        if present.version != wanted.version:
            raise Conflict(
                f"service {present.spec.name} is at version {present.version} now, not {wanted.version}: "
                "somebody else changed it meanwhile; look at it and try again"
            )
        return admit.update_service(state, present.id, lambda _: spec, context.now())

    state = await context.store.update(change)
    return _one(state, _service(state, request))


async def _remove(request: web.Request) -> web.Response:
    store = request.app[CONTEXT].store
    before = await store.snapshot()
    removed = _service(before, request)
    await store.update(lambda state: admit.remove_service(state, removed.id))
    return _one(before, removed)


async def _tasks(request: web.Request) -> web.Response:
    state = await request.app[CONTEXT].store.snapshot()
    service = _service(state, request)
    found = [task_info(state, task) for task in state.tasks.values() if task.service_id == service.id]
    return json_reply(sorted(found, key=lambda info: (info.slot, info.name, -info.created_at, info.id)))


async def _progress(request: web.Request) -> web.Response:
    """The answer, or the next one if this is the one that `seen` names, after at most `wait` seconds."""
    context = request.app[CONTEXT]
    service = _service(await context.store.snapshot(), request)
    seen = request.query.get("seen", "")
    wait_s = min(number(request, "wait", float, MAX_WAIT_S), MAX_WAIT_S)
    try:
        async with asyncio.timeout(wait_s):
            async for _ in context.store.watch():
                if (now := await _now(context, service.id)).seen != seen:
                    return json_reply(now)
    except TimeoutError:
        pass
    return json_reply(await _now(context, service.id))


async def _now(context: Context, service_id: ServiceId) -> wire.ProgressInfo:
    state = await context.store.snapshot()
    if service_id not in state.services:
        raise NotFound(f"service {service_id} was removed meanwhile")
    return progress_info(progress(state, state.services[service_id], await context.store.leases()))


async def _logs(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    service = _service(await context.store.snapshot(), request)
    follow, tail = bool(number(request, "follow", int, 0)), number(request, "tail", int, None)
    async with stream(request) as reply:
        await write_logs(context, service.id, reply.write, follow=follow, tail=tail)
    return reply


async def _task_logs(request: web.Request) -> web.StreamResponse:
    """The bare lines of one task of this node: what other daemons ask for."""
    context = request.app[CONTEXT]
    state = await context.store.snapshot()
    task = state.tasks.get(TaskId(request.match_info["ref"]))
    if task is None or task.node_id is None or task.node_id not in state.nodes:
        raise NotFound(f"no task with id {request.match_info['ref']!r} runs on a node")
    if not peer.is_here(request, context, state.nodes[task.node_id]):
        raise NotFound(f"task {task.id} is not on this node but on {state.nodes[task.node_id].name}; ask there")
    follow, tail = bool(number(request, "follow", int, 0)), number(request, "tail", int, None)
    async with stream(request) as reply:
        async for block in own_lines(context, task.id, follow=follow, tail=tail):
            await reply.write(block)
    return reply


def _service(state: State, request: web.Request) -> Service:
    return admit.find_service(state, request.match_info["ref"])


def _one(state: State, service: Service, status: int = 200) -> web.Response:
    return json_reply(service_infos(state, [service])[0], status)


ROUTES = (
    web.get(_BASE, _list),
    web.post(_BASE, _create),
    web.get(f"{_BASE}/{{ref}}", _get),
    web.post(f"{_BASE}/{{ref}}", _update),
    web.delete(f"{_BASE}/{{ref}}", _remove),
    web.get(f"{_BASE}/{{ref}}/tasks", _tasks),
    web.get(f"{_BASE}/{{ref}}/progress", _progress),
    web.get(f"{_BASE}/{{ref}}/logs", _logs),
    web.get(f"{wire.PREFIX}/tasks/{{ref}}/logs", _task_logs),
)
