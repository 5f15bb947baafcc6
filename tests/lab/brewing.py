"""`python -m tests.lab.brewing`: routemesh with one more driver; its image `tea` is ready when there is a file RUN_DIR/served.

Its tasks run in network namespaces of its own making, as containers do.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from routemesh.__main__ import main
from routemesh.model import ServiceSpec, TaskId
from routemesh.runtime import Exit, Found, Prepared, Running, Tell
from routemesh.runtime.drivers import DRIVERS, Driver
from routemesh.runtime.process.driver import ProcessRuntime
from routemesh.values import replace

IMAGE = "tea"
_POLL_S = 0.05


class Teas:
    """Fulfils the contract Runtime: a namespace for each task, and its command by the process driver."""

    def __init__(self, run_dir: Path, _: Path) -> None:
        self._own = run_dir / "teas"
        self._own.mkdir(exist_ok=True)
        self._served = run_dir / "served"
        self._processes = ProcessRuntime(self._own / "run", self._own / "logs")

    def check(self, spec: ServiceSpec) -> None:
        self._processes.check(_command(spec))

    def prepares(self, spec: ServiceSpec) -> bool:
        return True

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        return self._processes.offers(_command(spec), program)

    async def tasks(self) -> Mapping[TaskId, Found]:
        made = {TaskId(path.name): Prepared(path) for path in self._own.iterdir() if path.is_file()}
        return made | {**await self._processes.tasks()}

    async def has(self, task_id: TaskId) -> bool:
        return task_id in await self.tasks()

    async def prepare(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, tell: Tell) -> Prepared:
        waited = 0
        while not self._served.exists():
            waited += 1
            tell(f"{name} has drawn {waited} times")
            await asyncio.sleep(_POLL_S)
        netns = self._own / task_id
        if not netns.exists():
            netns.touch()
            subprocess.run(["unshare", f"--net={netns}", "true"], check=True)
        return Prepared(netns)

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        return await self._processes.start(task_id, name, _command(spec), hostname, netns)

    async def wait(self, task_id: TaskId) -> Exit:
        return await self._processes.wait(task_id)

    async def stop(self, task_id: TaskId, signal: str, grace_s: float) -> Exit:
        return await self._processes.stop(task_id, signal, grace_s)

    async def execute(self, task_id: TaskId, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        return await self._processes.execute(task_id, command, timeout_s)

    async def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncGenerator[bytes]:
        async for block in self._processes.logs(task_id, follow=follow, tail=tail):
            yield block

    async def remove(self, task_id: TaskId) -> None:
        await self._processes.remove(task_id)
        netns = self._own / task_id
        if netns.exists():
            subprocess.run(["umount", netns], check=True)
            netns.unlink()

    def close(self) -> None:
        self._processes.close()


def _command(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, image="host")


if __name__ == "__main__":
    DRIVERS[IMAGE] = Driver(name=IMAGE, images="teas", takes=lambda image: image == IMAGE, lacks=lambda: "", open=Teas)
    sys.exit(main())
