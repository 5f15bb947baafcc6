"""All drivers of a node as one runtime: an image decides which of them begins a task, and the one that has a task goes on."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from routemesh.errors import NotFound, UserError
from routemesh.model import ServiceSpec, TaskId
from routemesh.runtime import Exit, Found, Prepared, Running, Runtime, Tell
from routemesh.runtime.drivers import DRIVERS, Driver


def choose(image: str) -> Driver:
    """The driver of an image on this node. Raises UserError where there is none."""
    reasons = []
    for driver in DRIVERS.values():
        if driver.takes(image):
            lacking = driver.lacks()
            if not lacking:
                return driver
            reasons.append(f"driver {driver.name}: {lacking}")
    known = "; ".join(driver.images for driver in DRIVERS.values())
    raise UserError(f"image {image!r} can't be run on this node: {'; '.join(reasons) or f'its drivers run {known}'}")


class NodeRuntime:
    """Fulfils the contract `Runtime` by those of all drivers."""

    def __init__(self, run_dir: Path, log_dir: Path) -> None:
        self._runtimes: dict[str, Runtime] = {name: driver.open(run_dir, log_dir) for name, driver in DRIVERS.items()}
        self._holders: dict[TaskId, Runtime] = {}

    def check(self, spec: ServiceSpec) -> None:
        """See Runtime."""
        self._for(spec).check(spec)

    def prepares(self, spec: ServiceSpec) -> bool:
        """See Runtime."""
        try:
            return self._for(spec).prepares(spec)
        except UserError:
            return False

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        """See Runtime."""
        return self._for(spec).offers(spec, program)

    async def tasks(self) -> Mapping[TaskId, Found]:
        """See Runtime."""
        found: dict[TaskId, Found] = {}
        for runtime in self._runtimes.values():
            found |= await runtime.tasks()
        return found

    async def has(self, task_id: TaskId) -> bool:
        """See Runtime."""
        return await self._holder(task_id) is not None

    async def prepare(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, tell: Tell) -> Prepared:
        """See Runtime."""
        return await self._for(spec).prepare(task_id, name, spec, hostname, tell)

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        """See Runtime."""
        return await self._for(spec).start(task_id, name, spec, hostname, netns)

    async def wait(self, task_id: TaskId) -> Exit:
        """See Runtime."""
        return await (await self._known(task_id)).wait(task_id)

    async def stop(self, task_id: TaskId, signal: str, grace_s: float) -> Exit:
        """See Runtime."""
        return await (await self._known(task_id)).stop(task_id, signal, grace_s)

    async def execute(self, task_id: TaskId, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """See Runtime."""
        return await (await self._known(task_id)).execute(task_id, command, timeout_s)

    async def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncGenerator[bytes]:
        """See Runtime."""
        runtime = await self._known(task_id)
        async with aclosing(runtime.logs(task_id, follow=follow, tail=tail)) as blocks:
            async for block in blocks:
                yield block

    async def remove(self, task_id: TaskId) -> None:
        """See Runtime; every driver is told, since a preparation that was cut short is known to none."""
        self._holders.pop(task_id, None)
        for runtime in self._runtimes.values():
            await runtime.remove(task_id)

    def close(self) -> None:
        """See Runtime."""
        for runtime in self._runtimes.values():
            runtime.close()

    def _for(self, spec: ServiceSpec) -> Runtime:
        return self._runtimes[choose(spec.image).name]

    async def _holder(self, task_id: TaskId) -> Runtime | None:
        if task_id not in self._holders:
            for runtime in self._runtimes.values():
                if await runtime.has(task_id):
                    self._holders[task_id] = runtime
        return self._holders.get(task_id)

    async def _known(self, task_id: TaskId) -> Runtime:
        runtime = await self._holder(task_id)
        if runtime is None:
            raise NotFound(f"no task {task_id} on this node")
        return runtime
