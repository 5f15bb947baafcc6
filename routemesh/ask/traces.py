"""A trace is a conversation with the tracer: what is predicted, then the probe, then what all nodes saw of it.

First comes an answer as of `GET /explain`, with all nodes armed; then a line says that the probe may go, or how it went where the
asker sent it; then the nodes' observations end it. What to think of them is for the asker to say (routemesh.trace).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.ask import predictions
from routemesh.ask.context import Context
from routemesh.ask.onward import Onward
from routemesh.ask.passages import fitting
from routemesh.ask.watchers import Watcher, watchers
from routemesh.errors import RoutemeshError, Unavailable, UserError
from routemesh.explain.answer import explain
from routemesh.explain.ask import Asked, ask
from routemesh.explain.nouns import Explanation
from routemesh.model import State
from routemesh.proxy.request import Request
from routemesh.sightings import Opening, Probe, Sent, Wanted
from routemesh.snapshot import ClusterSnapshot
from routemesh.trace.nouns import Traced
from routemesh.trace.talk import Go, Ready, Result, Watched
from routemesh.trace.wanted import (
    LIVE_SETTLE_S,
    PORTS,
    SETTLE_S,
    Asking,
    namespaces,
    nobody_came,
    probe_of,
    somebodys,
    wanted,
)
from routemesh.values import replace

Say = Callable[[object], Awaitable[None]]
Hear = Callable[[], Awaitable[Go | None]]


async def trace(context: Context, asking: Asking, outside: IPv4Address | None, say: Say, go: Hear) -> None:
    """Say what is predicted and that the probe may go, or how it goes from here; when told to, what was seen of it.

    Raises RoutemeshError as long as nothing was said; later failures are said.
    """
    state = await context.store.snapshot()
    port = random.choice(PORTS)
    of_gateway = _of_gateway(state, asking)
    question = predictions.Question(asking.target, asking.client, outside, source_port=port)
    found = await predictions.predicted(context, state, replace(question, request=of_gateway))
    cluster, prediction = found.cluster, found.first
    asked = ask(cluster, asking.target, asking.client, outside, port)
    onward = None if of_gateway is None else Onward(cluster, found.passages, found.whole)
    probe, sought = probe_of(asked, asking), wanted(prediction, asked, asking)
    done, is_ready, result = asyncio.Event(), False, None
    async with asyncio.TaskGroup() as group:
        try:
            watched = _watched(state, question, prediction, sought)
            nodes, absent = await watchers(group, context, list(state.nodes.values()), watched, done)
            of_proxies = {} if onward is None else onward.watched(state)
            others = (await watchers(group, context, list(state.nodes.values()), of_proxies, done))[0] if of_proxies else {}
            await say(Ready(probe=probe, unwatched=absent))
            is_ready = True
            if (word := await go()) is not None:
                run = _Run(cluster, prediction, asking, asked, nodes)
                result = await (run.of_live() if probe is None else run.of_probe(probe, word))
                if onward is not None and result.traced is not None:
                    result = Result(traced=await onward.followed(result.traced, others))
        except RoutemeshError as error:
            if not is_ready:
                raise
            result = Result(error=str(error))
        finally:
            done.set()
    if result is not None:
        await say(result)


def _of_gateway(state: State, asking: Asking) -> Request | None:
    """The request, if it goes to the gateway and is one that a probe sends: without TLS."""
    with suppress(UserError):
        if asking.host:
            request = fitting(state, asking.target.port, Request(host=asking.host, path=asking.http))
            return None if request.tls else request
    return None


def _watched(state: State, question: predictions.Question, prediction: Explanation, wanted: Wanted) -> dict[str, Watched]:
    """On each node what should be on the way, and what is predicted to be."""
    found = predictions.on_the_way(state, question)
    foreseen = namespaces(prediction)
    return {name: Watched(wanted=wanted, namespaces=tuple({*spaces, *foreseen.get(name, ())})) for name, spaces in found.items()}


@dataclass(frozen=True, slots=True)
class _Run:
    """From the word to go to the observations."""

    cluster: ClusterSnapshot
    prediction: Explanation
    asking: Asking
    asked: Asked
    watchers: Mapping[str, Watcher]

    async def of_probe(self, probe: Probe, go: Go) -> Result:
        """A probe that the asker has sent, or that a node sends."""
        sent = go.sent
        if sent is None:
            sender = self.watchers.get(probe.node)
            if sender is None:
                return Result(error=f"nothing can be sent from {probe.node or 'outside'}: it is not watched")
            try:
                sent = await sender.send(probe)
            except Unavailable as error:
                return Result(error=str(error))
        await asyncio.sleep(SETTLE_S)
        return await self._collected(sent, self.asked.source.port, self.prediction)

    async def of_live(self) -> Result:
        """The first connection that comes to the entry node, with a prediction of its own."""
        entry = self.watchers.get(self.asked.target.node)
        if entry is None:
            return Result(error=f"{self.asked.target.node}, where it would come in, is not watched")
        seen = await entry.first(Opening(destination=str(self.asked.destination)), self.asking.timeout_s)
        if seen is None:
            return Result(error=nobody_came(self.asking))
        await asyncio.sleep(LIVE_SETTLE_S)
        source = seen.headers.source
        asked = ask(self.cluster, self.asking.target, source, None)
        prediction = await asyncio.to_thread(explain, self.cluster, replace(asked, client=self.asked.client))
        sent = somebodys(seen)
        return await self._collected(sent, seen.port, prediction)

    async def _collected(self, sent: Sent, port: int, prediction: Explanation) -> Result:
        found = await asyncio.gather(*(watcher.collect(port) for watcher in self.watchers.values()))
        return Result(traced=Traced(prediction, sent, tuple(found)))
