"""The gateway's loop on one node: wait for the newest state → render → bring this node's proxies to it → acknowledge.

A revision counts as acknowledged when every proxy here does what it says (rule 10): the agent tells the cluster the lower of the
kernel's revision and this one. A service whose configuration a proxy refuses is left out of it alone, and that is told with the
acknowledgement. A proxy that has not run for a while holds nothing up any more: it serves nobody, and comes back with the newest
configuration; one that runs and can't be brought to it does. While nothing changes, a proxy is looked at every RESYNC_S.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from routemesh import loops, names
from routemesh.decide import admit
from routemesh.errors import UserError
from routemesh.gateway.files import Directory, remove_others
from routemesh.gateway.haproxy import Haproxy
from routemesh.gateway.nginx import Nginx
from routemesh.gateway.proxies import Inside, NotRunning, NotYet, Proxy
from routemesh.gateway.sift import Render, Sieve
from routemesh.gateway.supervise import DIRECTORY
from routemesh.model import Gateway, GatewayDriver, NodeId, ProxyStatus, Refusal, ServiceSpec, State, Task, TaskId, TaskState
from routemesh.pem import DEFAULT_CERTIFICATE
from routemesh.proxy import haproxy, nginx
from routemesh.proxy.certificates import certificates, readable
from routemesh.proxy.observed import RunningProxy
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import RouteTable, refused_by, table
from routemesh.runtime import Runtime
from routemesh.store import Store
from routemesh.values import replace

log = logging.getLogger(__name__)

RESYNC_S = 10.0
PATIENCE_S = 5.0
"""A proxy that does not run keeps a revision from being acknowledged for this long; what is wrong with one is told after it."""
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.05, 2.0
_TIDY_S = 1.0


@dataclass(frozen=True, slots=True)
class ProxyDriver:
    """A program that a gateway can be made of: how its configuration is written, how it is carried out."""

    render: Callable[[RouteTable, Gateway, str, Mapping[str, str], str], Rendered]
    proxy: Callable[[Directory, Inside], Proxy]


PROXIES: Mapping[GatewayDriver, ProxyDriver] = {
    GatewayDriver.HAPROXY: ProxyDriver(haproxy.render, Haproxy),
    GatewayDriver.NGINX: ProxyDriver(nginx.render, Nginx),
}


def check(runtime: Runtime, spec: ServiceSpec) -> None:
    """Raises UserError when tasks of this node lack the program that a gateway is to be made of."""
    driver = spec.gateway.driver if spec.gateway is not None else None
    if driver is None:
        return
    if not runtime.offers(spec, driver):
        raise UserError(f"service {spec.name}: no program '{driver}' on this node; install Debian's package {driver} on all")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of bringing a proxy to a state. `tidy`: nothing is left to do; `down`: it does not run."""

    status: ProxyStatus
    tidy: bool = True
    down: bool = False


class GatewayLoop:
    """One node's part of the gateway; `run` until cancelled. Proxies go on without it."""

    def __init__(
        self, node_id: NodeId, store: Store, runtime: Runtime, run_dir: Path, troubles: loops.Troubles | None = None
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._runtime = runtime
        self._root = run_dir / DIRECTORY
        self._troubles = troubles if troubles is not None else loops.Troubles()
        self._wake = asyncio.Event()
        self._backoff_s = _FIRST_BACKOFF_S
        self._failing_since: float | None = None
        self._look_again_at = 0.0
        self._applied = 0
        self._active = False
        self._done: dict[str, tuple[object, Outcome]] = {}
        self._sieves: dict[str, Sieve] = {}
        self._listeners: list[Callable[[], Awaitable[None]]] = []

    def acknowledged(self) -> int | None:
        """The revision that all proxies of this node do; None while there are none."""
        return self._applied if self._active else None

    def on_acknowledge(self, listener: Callable[[], Awaitable[None]]) -> None:
        """Call `listener` whenever `acknowledged` has changed."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Run until cancelled."""
        await loops.together(
            watch=loops.follow("gateway's watch", self._store.watch, self._something_was_written, self._troubles),
            gateway=loops.rounds("gateway", self._round, self._wake, self._troubles),
        )

    async def _something_was_written(self) -> None:
        self._wake.set()

    async def _round(self) -> float:
        """Bring all proxies to the newest state, and say how far they are; returns how long to wait until the next time."""
        now = asyncio.get_running_loop().time
        if now() >= self._look_again_at:
            self._done.clear()
        state = await self._store.snapshot()
        pause_s = await self._conclude(state, await self._pass(state))
        if pause_s is None:
            pause_s, self._backoff_s = self._backoff_s, min(self._backoff_s * 2, _LAST_BACKOFF_S)
        else:
            self._backoff_s = _FIRST_BACKOFF_S
        self._look_again_at = now() + pause_s
        return pause_s

    async def _pass(self, state: State) -> Mapping[TaskId, Outcome]:
        """Bring all proxies to a state."""
        proxies = {names.container_id(task.id): task for task in own_proxies(state, self._node_id)}
        self._active = bool(proxies)
        remove_others(self._root, proxies)
        routes = table(state)
        self._done = {hostname: done for hostname, done in self._done.items() if hostname in proxies}
        self._sieves = {hostname: self._sieves.get(hostname, Sieve()) for hostname in proxies}
        versions = {service.id: service.version for service in state.services.values() if service.spec.http is not None}
        outcomes = dict[TaskId, Outcome]()
        for hostname, task in proxies.items():
            wanted = (routes, versions, task.spec.gateway, frozenset(state.secrets))
            before, outcome = self._done.get(hostname, (None, Outcome(ProxyStatus())))
            if before != wanted:
                outcome = await self._try(state, routes, hostname, task)
            if outcome.tidy and not outcome.status.error:
                self._done[hostname] = (wanted, outcome)
            outcomes[task.id] = outcome
        return outcomes

    async def _conclude(self, state: State, outcomes: Mapping[TaskId, Outcome]) -> float | None:
        """Tell what came of a pass and acknowledge it, as far as that may be; returns the pause after it, None after errors."""
        now = asyncio.get_running_loop().time()
        failed = [outcome for outcome in outcomes.values() if outcome.status.error]
        self._failing_since = (self._failing_since or now) if failed else None
        waited_s = now - self._failing_since if self._failing_since is not None else 0.0
        if failed and waited_s <= PATIENCE_S:
            return None
        await self._tell(state, {task_id: outcome.status for task_id, outcome in outcomes.items()})
        if all(outcome.down for outcome in failed):
            await self._set_applied(state.revision)
        if failed:
            return None
        return RESYNC_S if all(outcome.tidy for outcome in outcomes.values()) else _TIDY_S

    async def _try(self, state: State, routes: RouteTable, hostname: str, task: Task) -> Outcome:
        try:
            return await self._bring(state, routes, hostname, task)
        except Exception as exc:  # one proxy's trouble is not the others'
            log.log(logging.DEBUG if isinstance(exc, NotYet) else logging.WARNING, "gateway: %s", exc)
            gone_quiet = isinstance(exc, TimeoutError)
            status = ProxyStatus(error="the proxy gave no answer in time" if gone_quiet else loops.said(exc))
            return Outcome(status, down=isinstance(exc, NotRunning))

    async def _bring(self, state: State, routes: RouteTable, hostname: str, task: Task) -> Outcome:
        proxy, render, directory = self._proxy(state, hostname, task)
        services = {service.spec.name: service for service in state.services.values()}
        order = sorted((backend.name for backend in routes.backends), key=lambda name: (services[name].updated_at, name))
        fitting, rendered = await self._sieves[hostname].fitting(readable(state, routes), order, render, proxy)
        tidy = await proxy.apply(rendered, fitting)
        directory.tidy(rendered)
        left_out = (backend for backend in fitting.backends if backend.refused)
        refused = (Refusal(service=each.service, version=services[each.name].version, reason=each.refused) for each in left_out)
        return Outcome(ProxyStatus(refused=tuple(refused)), tidy)

    def _proxy(self, state: State, hostname: str, task: Task) -> tuple[Proxy, Render, Directory]:
        """A task's proxy, how its configuration is written, and where."""
        gateway = task.spec.gateway
        assert gateway is not None and task.status.pid is not None
        driver = PROXIES[gateway.driver]
        directory = Directory(self._root / hostname)
        pems = certificates(state)
        proxy = driver.proxy(directory, Inside(partial(self._execute, task), task.status.pid))
        default = pems.get(DEFAULT_CERTIFICATE, "")
        return proxy, lambda wanted: driver.render(wanted, gateway, str(directory.path), pems, default), directory

    async def look(self) -> list[RunningProxy]:
        """What the proxies of this node have, beside what the newest state wants of them."""
        state = await self._store.snapshot()
        return [await self._look(state, table(state), task) for task in own_proxies(state, self._node_id)]

    async def _look(self, state: State, routes: RouteTable, task: Task) -> RunningProxy:
        proxy, render, directory = self._proxy(state, names.container_id(task.id), task)
        where = {"directory": str(directory.path), "filesystem": directory.filesystem()}
        seen = RunningProxy(task=task.id, wanted=render(refused_by(task, routes)).generation, **where)
        try:
            return await proxy.look(seen)
        except (NotYet, OSError) as exc:
            return replace(seen, error=str(exc))

    async def _execute(self, task: Task, command: tuple[str, ...], timeout_s: float) -> tuple[int, str]:
        return await self._runtime.execute(task.id, command, timeout_s)

    async def _set_applied(self, revision: int) -> None:
        if revision != self._applied:
            self._applied = revision
            for listener in self._listeners:
                await listener()

    async def _tell(self, seen: State, statuses: Mapping[TaskId, ProxyStatus]) -> None:
        """Note at its task how far a proxy is, where `service ps`, `gateway status` and doctor read it."""

        def change(state: State) -> State:
            for task_id in statuses.keys() & state.tasks.keys():
                status = state.tasks[task_id].status
                if (status.proxy or ProxyStatus()) != statuses[task_id]:
                    state = admit.task_report(state, task_id, replace(status, proxy=statuses[task_id]))
            return state

        if change(seen) is not seen:
            await self._store.update(change)


def own_proxies(state: State, node_id: NodeId) -> tuple[Task, ...]:
    """The gateway's tasks whose process runs on a node."""
    return tuple(
        task
        for task in sorted(state.tasks.values(), key=lambda task: task.id)
        if task.node_id == node_id
        and task.spec.gateway is not None
        and task.status.pid is not None
        and TaskState.STARTING <= task.status.state <= TaskState.RUNNING
    )
