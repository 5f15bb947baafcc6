"""The connection that the gateway's proxy opens for a traced request: watched beside the probe's own, told like it.

Its source port is not known before. So whatever the proxies open to tasks of the service is watched, and the first that the
proxy opens after the request has come to it is taken for the request's; a health check of the same moment looks like one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routemesh.ask.watchers import Watcher
from routemesh.explain.through import Passage, leg
from routemesh.model import State
from routemesh.sightings import Observation, Opening, Wanted
from routemesh.snapshot import ClusterSnapshot, NamedTask, endpoint
from routemesh.trace.nouns import Traced
from routemesh.trace.talk import Watched
from routemesh.trace.wanted import namespaces, somebodys
from routemesh.values import replace

if TYPE_CHECKING:
    from routemesh.explain.nouns import Explanation

_PATIENCE_S = 0.2


@dataclass(frozen=True, slots=True)
class Onward:
    """What may follow a probe: the gateway's tasks, and what their proxies do with the request, by the names of the tasks."""

    cluster: ClusterSnapshot
    passages: Mapping[str, Passage]
    whole: "Explanation"

    def watched(self, state: State) -> dict[str, Watched]:
        """What to watch for, by node; nothing where the proxies answer themselves."""
        servers = [end for passage in self.passages.values() for end in passage.servers.values()]
        if not servers:
            return {}
        addresses = sorted(str(address) for task in self._gateways for address in task.addresses.values())
        ports = tuple(sorted({end.port for end in servers}))
        sought = Wanted(protocol="tcp", port=0, sources=tuple(addresses), ports=ports, published=ports[0])
        spaces = namespaces(self.whole)
        return {node.name: Watched(wanted=sought, namespaces=tuple(spaces.get(node.name, ()))) for node in state.nodes.values()}

    @property
    def _gateways(self) -> list[NamedTask]:
        return [task for task in self.cluster.names.tasks if task.name in self.passages]

    async def followed(self, first: Traced, watchers: Mapping[str, Watcher]) -> Traced:
        """The trace of the probe's own connection with what was seen of the proxy's, or why there is nothing to be told."""
        onward, note = await self._seen(first.observations, watchers)
        return replace(first, onward=onward, notes=(*first.notes, *((note,) if note else ())))

    async def _seen(self, observations: Sequence[Observation], watchers: Mapping[str, Watcher]) -> tuple[Traced | None, str]:
        came = self._came(observations)
        if came is None:
            return None, ""
        gateway, at = came
        passage, watcher = self.passages[gateway.name], watchers.get(gateway.node)
        if not passage.servers:
            return None, f"{passage.driver} of {gateway.name} answers itself: {passage.decisions[-1].why}"
        opened = watcher and await watcher.first(Opening(namespace=gateway.netns, since=at), _PATIENCE_S)
        if not opened:
            return None, f"{passage.driver} of {gateway.name} was not seen to open a connection for it: it may have had one"
        end = endpoint(opened.headers.destination)
        server = next((name for name, each in passage.servers.items() if each == end), opened.headers.destination)
        prediction = await asyncio.to_thread(leg, self.cluster, gateway, server, end, opened.port)
        found = await asyncio.gather(*(each.collect(opened.port) for each in watchers.values()))
        sent = somebodys(opened)
        decided = ", ".join(decision.what for decision in passage.decisions)
        return Traced(prediction, replace(sent, what=f"{passage.driver}: {decided}: {sent.what}"), tuple(found)), ""

    def _came(self, observations: Sequence[Observation]) -> tuple[NamedTask, float] | None:
        """The gateway's task that got the request, and when, by its node's clock."""
        for task in self._gateways:
            for seen in (seen for each in observations if each.node == task.node for seen in each.seen):
                if seen.opens(Opening(namespace=task.netns)):
                    return task, seen.at
        return None
