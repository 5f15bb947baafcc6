"""Whether published ports answer: each node asks its own tasks, from its sandbox, and its own ports, from itself.

One connection is opened and closed for each; of UDP it is looked whether a process is bound to the port.
"""

import asyncio
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

from routemesh import names, wire
from routemesh.ask.context import Context
from routemesh.decide.reach import answering
from routemesh.errors import RoutemeshError
from routemesh.model import Node, Service, State, Task
from routemesh.sightings import PortQuestion

MOST_ASKED = 500
"""So many tasks' ports are asked on a node at most."""


async def answers(context: Context, state: State, service: Service) -> list[wire.NodeAnswers]:
    """What all live nodes' ports of a service, and its tasks, answer; the nodes by name."""

    async def attempt(node: Node) -> wire.NodeAnswers:
        if not node.reachable:
            return wire.NodeAnswers(node=node.name, live=False)
        try:
            if node.id == context.node_id:
                return await own_answers(context, state, node, service)
            return await answers_of(context, node, service.id)
        except RoutemeshError as error:
            return wire.NodeAnswers(node=node.name, error=str(error))

    return await asyncio.gather(*map(attempt, sorted(state.nodes.values(), key=lambda node: node.name)))


async def answers_of(context: Context, node: Node, service: str) -> wire.NodeAnswers:
    """What another node's daemon says of that. Raises Unavailable."""
    return await context.peers.get(node, f"/nodes/{node.id}/answers?{urlencode({'service': service})}", wire.NodeAnswers)


async def own_answers(context: Context, state: State, node: Node, service: Service) -> wire.NodeAnswers:
    """What this daemon's own node's ports of a service, and its tasks here, answer."""
    questions = [*_of_node(state, node, service), *of_tasks(state, node, (service,))]
    return wire.NodeAnswers(node=node.name, answers=await context.ask(questions))


def of_tasks(state: State, node: Node, services: Iterable[Service]) -> list[PortQuestion]:
    """The questions to a node's tasks that serve, as many as may be put."""
    wanted = {service.id: service for service in services}
    tasks = (task for task in state.tasks.values() if task.node_id == node.id and task.serving and task.service_id in wanted)
    return [question for task in tasks for question in _of_task(state, node, task)][:MOST_ASKED]


def _of_task(state: State, node: Node, task: Task) -> Iterator[PortQuestion]:
    address = state.on_ingress(task.attachments)
    for port in task.spec.publish if address is not None else ():
        yield PortQuestion(
            protocol=port.protocol,
            port=port.published,
            address=str(address),
            task=names.task_name(task.spec.name, task.slot, node.name),
            netns=names.container_id(task.id),
            target=port.target,
        )


def _of_node(state: State, node: Node, service: Service) -> Iterator[PortQuestion]:
    """Where the node should lead to a task at all."""
    those = answering(state, service)
    served = any(task.service_id == service.id and task.serving for task in state.tasks.values())
    for port in service.spec.publish if served and (those is None or node.name in those) else ():
        yield PortQuestion(protocol=port.protocol, port=port.published, address=str(node.address))
