"""Waiting for a service's published ports to answer, once its tasks run: each live node's, and each task's."""

import time
from collections.abc import Sequence

import click

from routemesh import wire
from routemesh.api.client import Client
from routemesh.cli.output import fail
from routemesh.doctor.answers import is_elsewhere, trouble
from routemesh.errors import NotFound
from routemesh.model import Protocol

SILENT = 3
"""The exit status where tasks run, and ports do not answer."""

_PAUSE_S = 0.25
_SURE_S = 2.0
"""A process that waits elsewhere so long will hardly come to its port."""
_MOST_TOLD = 10


def wait(client: Client, service: wire.ServiceInfo, patience_s: float) -> str:
    """What all answered, as the end of a sentence, "" where nobody could be asked.

    After `patience_s` it says what does not answer, and ends the command with status SILENT.
    """
    started = time.monotonic()
    while True:
        try:
            found = client.answers(service.id)
        except NotFound:  # a daemon of a version that asks nobody
            return ""
        troubles = list(dict.fromkeys(_troubles(found)))
        if not troubles:
            return _told(service, found)
        waited_s = time.monotonic() - started
        if waited_s >= patience_s or (waited_s >= _SURE_S and _all_elsewhere(found)):
            for line in troubles[:_MOST_TOLD]:
                fail(line)
            left = f" (and {len(troubles) - _MOST_TOLD} more lines like these)" if len(troubles) > _MOST_TOLD else ""
            fail(f"service {service.name} runs, but its ports do not answer everywhere{left}; it goes on in the background")
            raise click.exceptions.Exit(SILENT)
        time.sleep(_PAUSE_S)


def _troubles(found: Sequence[wire.NodeAnswers]) -> list[str]:
    """Of tasks if any has one: a node does not answer because of that."""
    of_tasks = [said for node in found for each in node.answers if each.asked.task and (said := trouble(node.node, each))]
    unasked = [f"{node.node} could not be asked: {node.error}" for node in found if node.error]
    tcp = ((node, each) for node in found for each in node.answers if each.asked.protocol is Protocol.TCP)
    of_nodes = [said for node, each in tcp if not each.asked.task and (said := trouble(node.node, each))]
    return [*(of_tasks or of_nodes), *unasked]


def _all_elsewhere(found: Sequence[wire.NodeAnswers]) -> bool:
    bad = [each for node in found for each in node.answers if each.asked.task and not each.well]
    return bool(bad) and all(map(is_elsewhere, bad))


def _told(service: wire.ServiceInfo, found: Sequence[wire.NodeAnswers]) -> str:
    down = [node.node for node in found if not node.live]
    asked = {each.asked.port for node in found for each in node.answers if not each.asked.task and each.well}
    bound = {each.asked.port for node in found for each in node.answers if each.outcome == "bound"}
    ports = service.spec.publish
    tcp = ", ".join(f"{port.published}/tcp" for port in ports if port.protocol is Protocol.TCP and port.published in asked)
    udp = ", ".join(f"{port.published}/udp" for port in ports if port.protocol is Protocol.UDP and port.published in bound)
    nodes = f"every node but {', '.join(down)}, which {'is' if len(down) == 1 else 'are'} down," if down else "every node"
    parts = [f"{nodes} answers on {tcp}"] if tcp else []
    parts += [f"every task is bound to {udp}"] if udp else []
    return "; ".join(parts)
