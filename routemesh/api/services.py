"""What is asked and told about services: list, one, create, update, remove, tasks, progress, answers, logs."""

from collections.abc import Awaitable

from aiohttp import web

from routemesh import wire
from routemesh.api.describe import progress_info, service_infos, task_info
from routemesh.api.reply import CONTEXT, json_reply, number, said_by_node, stream
from routemesh.ask import services
from routemesh.ask.answers import answers, answers_of, own_answers
from routemesh.ask.logs import Output, own_lines, own_task, write_logs
from routemesh.decide import admit
from routemesh.model import Node, Service, ServiceSpec, State

MAX_WAIT_S = 10.0

_BASE = f"{wire.PREFIX}/services"


async def _list(request: web.Request) -> web.Response:
    state = await request.app[CONTEXT].store.snapshot()
    return json_reply(service_infos(state, state.services.values()))


async def _get(request: web.Request) -> web.Response:
    state = await request.app[CONTEXT].store.snapshot()
    return _one(state, _service(state, request))


async def _create(request: web.Request) -> web.Response:
    spec = wire.parse(ServiceSpec, await request.read())
    return _one(*await services.create(request.app[CONTEXT], spec), status=201)


async def _update(request: web.Request) -> web.Response:
    wanted = wire.parse(wire.ServiceUpdate, await request.read())
    return _one(*await services.update(request.app[CONTEXT], request.match_info["ref"], wanted.version, wanted.spec))


async def _remove(request: web.Request) -> web.Response:
    return _one(*await services.remove(request.app[CONTEXT], request.match_info["ref"]))


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
    found = await services.progressed(context, service.id, lambda now: progress_info(now).seen != seen, wait_s)
    return json_reply(progress_info(found))


async def _answers(request: web.Request) -> web.Response:
    """What the service's ports answer on each node, now."""
    context = request.app[CONTEXT]
    state = await context.store.snapshot()
    return json_reply(await answers(context, state, _service(state, request)))


async def _node_answers(request: web.Request) -> web.Response:
    """The same of one node; `service`: a name or an id."""
    context, service = request.app[CONTEXT], request.query.get("service", "")

    def own(state: State, node: Node) -> Awaitable[wire.NodeAnswers]:
        return own_answers(context, state, node, admit.find_service(state, service))

    return await said_by_node(request, own, lambda node: answers_of(context, node, service))


async def _logs(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    service = _service(await context.store.snapshot(), request)
    wanted = _wanted(request)
    async with stream(request) as reply:
        await write_logs(context, service.id, reply.write, wanted)
    return reply


async def _task_logs(request: web.Request) -> web.StreamResponse:
    """The bare lines of one task of this node: what other daemons ask for."""
    context = request.app[CONTEXT]
    task_id = await own_task(context, request.match_info["ref"])
    wanted = _wanted(request)
    with context.outputs.taken():
        async with stream(request) as reply:
            async for block in own_lines(context, task_id, wanted):
                await reply.write(block)
    return reply


def _wanted(request: web.Request) -> Output:
    """`follow=1`: what comes, too; `tail`: the last lines, all where it is not there."""
    return Output(follow=bool(number(request, "follow", int, 0)), tail=number(request, "tail", int, None))


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
    web.get(f"{_BASE}/{{ref}}/answers", _answers),
    web.get(f"{_BASE}/{{ref}}/logs", _logs),
    web.get(f"{wire.PREFIX}/nodes/{{ref}}/answers", _node_answers),
    web.get(f"{wire.PREFIX}/tasks/{{ref}}/logs", _task_logs),
)
