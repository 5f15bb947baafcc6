"""Which services a proxy has to be without, so that it takes the configuration of the rest."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from routemesh.gateway.proxies import ConfigRefused
from routemesh.model import Http
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import RouteTable

REFUSAL_S = 60.0
"""After this time a proxy is asked anew about what it refused: it may have refused it for something that is gone."""

Render = Callable[[RouteTable], Rendered]


class Judge(Protocol):
    """Who says what a program has against a configuration, or ""."""

    async def refusal(self, rendered: Rendered) -> str:
        """Why the program would not take it."""
        ...


async def sift(names: Sequence[str], why: str, refusal: Callable[[frozenset[str]], Awaitable[str]]) -> dict[str, str]:
    """The names that must be left out, with the reasons: one question where it is the last, else about 2·log2(n) for each.

    `refusal` says why a set of names can't be together, "" if it can; `why` is what it said of all. Where two can't, the later
    one is left out. Raises ConfigRefused where nothing is taken either.
    """
    every = frozenset(names)
    taken: frozenset[str] = frozenset()
    refused: dict[str, str] = {}
    waiting = [some for some in (tuple(names[-1:]), tuple(names[:-1])) if some]
    while waiting:
        some = waiting.pop()
        together = taken.union(some)
        reason = why if together == every else await refusal(together)
        if not reason:
            taken = together
        elif len(some) == 1:
            refused[some[0]] = reason
        else:
            half = len(some) // 2
            waiting += (some[half:], some[:half])
    if not taken and (reason := await refusal(taken)):
        raise ConfigRefused(reason)
    return refused


@dataclass
class Sieve:
    """One proxy's: what it has refused is remembered for a while, so that it is not asked again with each change."""

    _until: float = 0.0
    _known: dict[str, tuple[Http, str]] = field(default_factory=dict)

    async def fitting(
        self, routes: RouteTable, order: Sequence[str], render: Render, judge: Judge
    ) -> tuple[RouteTable, Rendered]:
        """The table without what the proxy refuses, and what is rendered from it. `order`: names of backends, oldest first.

        Raises ConfigRefused where it takes not even a configuration without services.
        """

        async def refusal(taken: frozenset[str]) -> str:
            bare = {name: "left out" for name in order if name not in taken}
            return await judge.refusal(render(routes.without(bare)))

        fitting = routes.without(self._remembered(routes))
        rendered = render(fitting)
        if await judge.refusal(rendered):
            names = [name for name in order if not routes.backend(name).refused]
            found = await sift(names, await judge.refusal(render(routes)), refusal)
            self._until = time.monotonic() + REFUSAL_S
            self._known = {name: (routes.backend(name).http, reason) for name, reason in found.items()}
            fitting = routes.without(found)
            rendered = render(fitting)
        return fitting, rendered

    def _remembered(self, routes: RouteTable) -> Mapping[str, str]:
        if time.monotonic() > self._until:
            self._known = {}
        return {name: reason for name, (http, reason) in self._known.items() if _has(routes, name, http)}


def _has(routes: RouteTable, name: str, http: Http) -> bool:
    return any(backend.name == name and backend.http == http and not backend.refused for backend in routes.backends)
