"""What the gateway's proxies do with a request, asked of them where they are: for explanations that go on through the gateway."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from routemesh import names
from routemesh.ask.context import Context
from routemesh.ask.proxies import proxies_of
from routemesh.decide.admit.routes import find_gateway
from routemesh.errors import RoutemeshError, UserError
from routemesh.model import Gateway, HttpBalance, Node, State, Task
from routemesh.proxy.explain import Explanation, decided
from routemesh.proxy.observed import RunningProxy, amiss, command, table
from routemesh.proxy.request import Request
from routemesh.proxy.routes import RouteTable, refused_by, route_of
from routemesh.proxy.routes import table as wanted_table
from routemesh.snapshot import Endpoint
from routemesh.values import replace

if TYPE_CHECKING:
    from routemesh.explain.through import Passage


def fitting(state: State, port: int, request: Request) -> Request:
    """The request, with TLS where the port is the gateway's for it. Raises UserError where it is not a port of the gateway's."""
    service = find_gateway(state)
    gateway = service.spec.gateway if service is not None else None
    if gateway is None:
        raise UserError(f"there is no gateway that could be asked for {request}; routemesh gateway enable runs it")
    ports = {gateway.http_port: "HTTP"} | ({gateway.https_port: "HTTPS"} if gateway.https_port else {})
    if port not in ports or (request.tls and port == gateway.http_port):
        shown = ", ".join(f"{number} ({name})" for number, name in ports.items())
        raise UserError(f"port {port} is not the gateway's for {request}; its ports are {shown}")
    return replace(request, tls=port == gateway.https_port)


def behind(state: State, request: Request) -> Iterator[Task]:
    """The tasks that the request is for, as the cluster wants it."""
    route = route_of(wanted_table(state), request.host, request.path)
    return (task for task in state.tasks.values() if route is not None and task.spec.name == route.backend)


async def passages(context: Context, state: State, requests: Mapping[str, Request]) -> "Mapping[str, Passage]":
    """What the gateway's proxies do with a request, each with the client that it sees; by the names of their tasks."""
    asked = {_name(state, task): task for task in state.tasks.values() if task.spec.gateway is not None}
    asked = {name: task for name, task in asked.items() if name in requests}
    nodes = {task.node_id: state.nodes[task.node_id] for task in asked.values() if task.node_id is not None}
    answers = await asyncio.gather(*(_seen(context, node) for node in nodes.values()))
    seen = {each.task: each for answer in answers if not isinstance(answer, str) for each in answer}
    errors = {node_id: answer for node_id, answer in zip(nodes, answers, strict=True) if isinstance(answer, str)}
    wanted = wanted_table(state)
    found = {}
    for name, task in asked.items():
        assert task.spec.gateway is not None and task.node_id is not None
        silent = RunningProxy(task=task.id, directory="", error=errors.get(task.node_id, "it does not run"))
        own = refused_by(task, wanted)
        found[name] = _passage(name, task.spec.gateway, requests[name], own, seen.get(task.id, silent))
    return found


async def _seen(context: Context, node: Node) -> list[RunningProxy] | str:
    try:
        return await proxies_of(context, node)
    except RoutemeshError as error:
        return str(error)


def _passage(name: str, gateway: Gateway, request: Request, wanted: RouteTable, seen: RunningProxy) -> "Passage":
    from routemesh.explain.through import Decision, Passage

    driver, has = gateway.driver, wanted if seen.error else table(seen, gateway.driver, wanted)
    found = decided(gateway, has, request)
    backend = found.route.backend if found.route else ""
    decisions = tuple(
        Decision(
            at=step.at, decision=step.decision, why=step.why, show="" if seen.error else command(seen, driver, step.at, backend)
        )
        for step in found.steps
    )
    unasked = f"{driver} of {name} could not be asked ({seen.error}): what follows is what the cluster wants of it"
    return Passage(
        driver=driver,
        decisions=decisions,
        servers={server.task: Endpoint(server.address, server.port) for server in found.servers},
        status=found.status,
        estimated=len(found.servers) > 1 and _is_uneven(wanted, found),
        amiss=() if seen.error else tuple(amiss(seen, driver, backend, wanted)),
        notes=(unasked,) if seen.error else (),
    )


def _is_uneven(wanted: RouteTable, found: Explanation) -> bool:
    """Whether tasks need not get the same number of such requests."""
    return found.route is None or wanted.backend(found.route.backend).http.balance is not HttpBalance.ROUNDROBIN


def _name(state: State, task: Task) -> str:
    node = state.nodes.get(task.node_id) if task.node_id is not None else None
    return names.task_name(task.spec.name, task.slot, node.name if node else "")
