"""Question: how long is the wait for a service, for more replicas, for the mesh to drop a dead one, for a daemon?

Setup: a lab of 3 nodes, nginx as the program (it is ready some milliseconds after its start). A client that is not part of the
cluster asks every node without pause, a connection per request. From the moment in which the command is typed (API: the request
is sent): `service create` of 2 replicas until every node has given a good answer; `service scale` from 2 to 20 until 20 different
replicas have answered through every node. From SIGKILL of one replica until its address is in no node's balancing map. From a
daemon's start until it answers.
Budgets (issue): 500 ms, 2 s, 500 ms, 1 s.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from bench import webserver
from bench.cluster import addresses, answer, as_client, client, lab, remove_service, scratch, until
from bench.measurement import Limit, Measurement
from routemesh import names
from routemesh.kernel import netns
from routemesh.kernel.tables.nft import Nft
from routemesh.lab import daemons
from routemesh.lab.find import Lab
from routemesh.model import Publish, ServiceSpec
from routemesh.nodeplan import Element
from routemesh.wire import TaskInfo

RUNS = 7
CREATE_MS, SCALE_MS, CRASH_MS, START_MS = 500, 2_000, 500, 1_000
FEW, MANY = 2, 20
NAME, PORT, TARGET = "web", 8080, 80


def measure(runs: int) -> Iterator[Measurement]:
    """Each step of a service's life, then a daemon's start."""
    with lab("nginx") as cluster, scratch() as directory, as_client(cluster):
        command = webserver.answering(directory, TARGET)
        lives = [_life(cluster, command) for _ in range(runs)]
        by_api = [_create_by_api(cluster, command) for _ in range(runs)]
        starts = [_restart(cluster) for _ in range(runs)]
    created, scaled, crashed = zip(*lives, strict=True)
    yield Measurement(f"service create, {FEW} replicas: answers through every node", created, "ms", Limit(CREATE_MS))
    yield Measurement("  API only, without the command's own start", by_api, "ms")
    yield Measurement(f"scale {FEW} to {MANY}: all answer through every node", scaled, "ms", Limit(SCALE_MS))
    yield Measurement(f"crash of one of {MANY}: out of every node's map", crashed, "ms", Limit(CRASH_MS))
    yield Measurement("daemon's start until it answers", starts, "ms", Limit(START_MS))


def _life(cluster: Lab, command: tuple[str, ...]) -> tuple[float, float, float]:
    """Create, scale, crash, remove."""
    create = ("service", "create", "--detach", f"--name={NAME}", f"--replicas={FEW}", f"--publish={PORT}:{TARGET}", "host")
    created = _elapsed_ms(partial(_type, cluster, *create, *command), partial(_until_answers, cluster, 1))
    _until_converged(cluster)
    scale = ("service", "scale", "--detach", f"{NAME}={MANY}")
    scaled = _elapsed_ms(partial(_type, cluster, *scale), partial(_until_answers, cluster, MANY))
    _until_converged(cluster)
    crashed = _crash(cluster)
    remove_service(cluster, NAME)
    return created, scaled, crashed


def _create_by_api(cluster: Lab, command: tuple[str, ...]) -> float:
    publish = (Publish(published=PORT, target=TARGET),)
    spec = ServiceSpec(name=NAME, command=command, replicas=FEW, publish=publish)
    took = _elapsed_ms(partial(client(cluster).create_service, spec), partial(_until_answers, cluster, 1))
    _until_converged(cluster)
    remove_service(cluster, NAME)
    return took


def _elapsed_ms(*steps: Callable[[], object]) -> float:
    started = time.perf_counter()
    for step in steps:
        step()
    return (time.perf_counter() - started) * 1000


def _type(cluster: Lab, *words: str) -> None:
    """What a person types."""
    command = (sys.executable, "-m", "routemesh", "--host", f"unix://{cluster.node('node1').socket}", *words)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _until_converged(cluster: Lab) -> None:
    until(lambda: client(cluster).progress(NAME).converged, f"service {NAME} converged")


def _until_answers(cluster: Lab, replicas: int) -> None:
    """Return when so many different replicas have answered through every node."""
    for name, address in addresses(cluster).items():
        seen: set[str | None] = set()

        def enough(address: str = address, seen: set[str | None] = seen) -> bool:
            seen.add(answer(address, PORT))
            return len(seen - {None}) >= replicas

        until(enough, f"{replicas} replicas answered through {name}")


def _crash(cluster: Lab) -> float:
    """Kill a replica's main process."""
    with ExitStack() as stack:
        rulesets = []
        for name in cluster.node_names:
            sandbox = cluster.node(name).run_dir / "netns" / names.SANDBOX
            rulesets.append(stack.enter_context(closing(Nft(names.SANDBOX, partial(netns.entered, sandbox)))))
        task = next(task for task in client(cluster).tasks(NAME) if task.serving)
        assert task.address is not None
        address = IPv4Address(task.address)
        assert all(address in _backends(ruleset) for ruleset in rulesets)
        kill = partial(os.kill, _main_process(task), signal.SIGKILL)
        gone = partial(until, lambda: not any(address in _backends(ruleset) for ruleset in rulesets), f"{task.name} was out")
        return _elapsed_ms(kill, gone)


def _backends(ruleset: Nft) -> Collection[object]:
    return {item.value for item in ruleset.read() if isinstance(item, Element) and item.map == "backends"}


def _main_process(task: TaskInfo) -> int:
    """The one child of the task's init."""
    return int(Path(f"/proc/{task.pid}/task/{task.pid}/children").read_text().split()[0])


def _restart(cluster: Lab) -> float:
    """Kill the last node's daemon and start it again."""
    node = cluster.node(cluster.node_names[-1])
    pid = daemons.daemon_pid(node)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemons.daemon_pid(node) is None, f"{node.name} had ended")
    return _elapsed_ms(partial(daemons.spawn, cluster, node.name), partial(daemons.wait_ready, [node]))
