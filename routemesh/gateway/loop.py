"""The gateway's loop on one node: wait for the newest state → render → bring this node's proxies to it → acknowledge.

A revision counts as acknowledged when every proxy here does what it says (rule 10): the agent tells the cluster the lower of the
kernel's revision and this one. A proxy that does not run or takes no configuration for a while holds nothing up any more: it
serves nobody, and comes back with the newest configuration. While nothing changes, a proxy is looked at every RESYNC_S.
"""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from routemesh import loops, names
from routemesh.decide import admit
from routemesh.errors import UserError
from routemesh.gateway.files import Directory, remove_others
from routemesh.gateway.haproxy import Haproxy
from routemesh.gateway.nginx import Nginx
from routemesh.gateway.proxies import Inside, NotYet, Proxy
from routemesh.gateway.supervise import DIRECTORY
from routemesh.model import Gateway, GatewayDriver, NodeId, ServiceSpec, State, Task, TaskId, TaskState
from routemesh.pem import DEFAULT_CERTIFICATE
from routemesh.proxy import haproxy, nginx
from routemesh.proxy.observed import Seen
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import Table, table
from routemesh.runtime import Runtime
from routemesh.runtime.process.hostcommand import DEFAULT_PATH
from routemesh.store import Store

log = logging.getLogger(__name__)

RESYNC_S = 10.0
PATIENCE_S = 5.0
"""So long a proxy that can't be brought to a revision keeps it from being acknowledged."""
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.05, 2.0
_TIDY_S = 1.0


@dataclass(frozen=True, slots=True)
class Driver:
    """A program that a gateway can be made of: how its configuration is written, how it is carried out."""

    render: Callable[[Table, Gateway, str, Mapping[str, str], str], Rendered]
    proxy: Callable[[Directory, Inside], Proxy]


DRIVERS: Mapping[GatewayDriver, Driver] = {
    GatewayDriver.HAPROXY: Driver(haproxy.render, Haproxy),
    GatewayDriver.NGINX: Driver(nginx.render, Nginx),
}


def check(spec: ServiceSpec) -> None:
    """Raises UserError when this node lacks the program that a gateway is to be made of."""
    driver = spec.gateway.driver if spec.gateway is not None else None
    if driver is None:
        return
    if shutil.which(driver, path=DEFAULT_PATH) is None:
        raise UserError(f"service {spec.name}: no program '{driver}' on this node; install Debian's package {driver} on all")


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
        self._told: dict[TaskId, str] = {}
        self._done: dict[str, object] = {}
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
        """A pass, and what becomes of its errors; returns how long to wait until the next if nothing happens."""
        now = asyncio.get_running_loop().time
        if now() >= self._look_again_at:
            self._done.clear()
        try:
            pause_s, errors = await self._pass()
        except Exception:
            await self._be_impatient({})
            raise
        if not errors:
            self._backoff_s, self._failing_since = _FIRST_BACKOFF_S, None
            await self._tell({})
        else:
            await self._be_impatient(errors)
            pause_s, self._backoff_s = self._backoff_s, min(self._backoff_s * 2, _LAST_BACKOFF_S)
        self._look_again_at = now() + pause_s
        return pause_s

    async def _be_impatient(self, errors: Mapping[TaskId, str]) -> None:
        """What has failed for a while is told, and keeps no revision from being acknowledged any more."""
        now = asyncio.get_running_loop().time()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > PATIENCE_S:
            await self._tell(errors)
            await self._set_applied((await self._store.snapshot()).revision)

    async def _pass(self) -> tuple[float, Mapping[TaskId, str]]:
        """Bring all proxies to the newest state; sooner again when there is something left to tidy up."""
        state = await self._store.snapshot()
        proxies = {names.container_id(task.id): task for task in own_proxies(state, self._node_id)}
        self._active = bool(proxies)
        remove_others(self._root, proxies)
        routes = table(state)
        self._done = {hostname: done for hostname, done in self._done.items() if hostname in proxies}
        tidy, errors = True, dict[TaskId, str]()
        for hostname, task in proxies.items():
            wanted = (routes, task.spec.gateway, frozenset(state.secrets))
            if self._done.get(hostname) == wanted:
                continue
            try:
                done = await self._apply(state, routes, hostname, task)
                self._done[hostname] = wanted if done else None
                tidy &= done
            except Exception as exc:  # one proxy's trouble is not the others'
                log.log(logging.DEBUG if isinstance(exc, NotYet) else logging.WARNING, "gateway: %s", exc)
                gone_quiet = isinstance(exc, TimeoutError)
                errors[task.id] = "the proxy gave no answer in time" if gone_quiet else loops.said(exc)
        if not errors:
            await self._set_applied(state.revision)
        return RESYNC_S if tidy else _TIDY_S, errors

    async def _apply(self, state: State, routes: Table, hostname: str, task: Task) -> bool:
        proxy, rendered, directory = self._rendered(state, routes, hostname, task)
        tidy = await proxy.apply(rendered, routes)
        directory.tidy(rendered)
        return tidy

    def _rendered(self, state: State, routes: Table, hostname: str, task: Task) -> tuple[Proxy, Rendered, Directory]:
        gateway = task.spec.gateway
        assert gateway is not None and task.status.pid is not None
        driver = DRIVERS[gateway.driver]
        directory = Directory(self._root / hostname)
        secrets = {secret.name: secret.data.decode("ascii", "replace") for secret in state.secrets.values()}
        rendered = driver.render(routes, gateway, str(directory.path), secrets, secrets.get(DEFAULT_CERTIFICATE, ""))
        return driver.proxy(directory, Inside(partial(self._execute, task), task.status.pid)), rendered, directory

    async def look(self) -> list[Seen]:
        """What the proxies of this node have, beside what the newest state wants of them."""
        state = await self._store.snapshot()
        return [await self._look(state, table(state), task) for task in own_proxies(state, self._node_id)]

    async def _look(self, state: State, routes: Table, task: Task) -> Seen:
        proxy, rendered, directory = self._rendered(state, routes, names.container_id(task.id), task)
        where = {"directory": str(directory.path), "filesystem": directory.filesystem()}
        seen = Seen(task=task.id, wanted=rendered.generation, **where)
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

    async def _tell(self, errors: Mapping[TaskId, str]) -> None:
        """Note what is wrong with a proxy at its task, where `service ps` and `gateway status` show it."""
        if errors == self._told:
            return

        def change(state: State) -> State:
            for task_id in {*errors, *self._told} & state.tasks.keys():
                status = replace(state.tasks[task_id].status, error=errors.get(task_id, ""))
                state = admit.task_report(state, task_id, status)
            return state

        await self._store.update(change)
        self._told = dict(errors)


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
