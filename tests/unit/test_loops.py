"""No loop ends a daemon, whatever it raises; one that returns does, and says so."""

import asyncio
import builtins
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import pytest

from routemesh import errors, loops
from routemesh.errors import KernelError
from routemesh.loops import LoopEnded, Troubles
from routemesh.model import HealthCheck, HealthKind, Protocol, Publish, RestartPolicy, State, Task
from routemesh.nodeplan import NodePlan
from routemesh.store.codec import CodecError
from routemesh.values import replace
from tests.unit.daemons import cluster
from tests.unit.test_agent import WEB, serving

LOOPS = {
    "reports", "watch", "heartbeat", "listeners", "conditions", "ranges", "status", "kernel",
    "leader's watch", "campaign", "leader",
    "gateway's watch", "gateway", "looking at disks", "silent nodes", "removal",
}  # fmt: skip
"""Every loop of a daemon by its name; one more is one more here."""

TOLD = "it happened"
LIVELY = replace(
    WEB,
    publish=(*WEB.publish, Publish(published=8080, target=80, protocol=Protocol.UDP)),
    health=HealthCheck(kind=HealthKind.CMD, command=("check",), interval_s=0.02, retries=3),
    restart=RestartPolicy(delay_s=0.01),
)


def exceptions() -> list[BaseException]:
    """One of each that Python has and that we have, and that of a future which somebody else cancelled."""
    unlike_others = {
        "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, TOLD),
        "UnicodeEncodeError": UnicodeEncodeError("utf-8", "\udcff", 0, 1, TOLD),
        "UnicodeTranslateError": UnicodeTranslateError("\udcff", 0, 1, TOLD),
        "ExceptionGroup": ExceptionGroup(TOLD, [OSError(28, "full")]),
        "BaseExceptionGroup": ExceptionGroup(TOLD, [ValueError("\udcff\n\x1b[31m")]),
    }
    kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds += [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    found = [unlike_others.get(kind.__name__) or kind(TOLD) for kind in kinds if kind is not KernelError]
    other = [asyncio.CancelledError(), sqlite3.OperationalError(TOLD), CodecError(TOLD), KernelError("ip link", TOLD)]
    return [*found, *other, OSError(24, "Too many open files"), ValueError("\udcff\n\x1b[31m" * 100)]


class Thrower:
    """Lets every loop raise each exception, one after the other, instead of acting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.thrown: defaultdict[str, list[BaseException]] = defaultdict(list)
        self._left: defaultdict[str, list[BaseException]] = defaultdict(exceptions)
        for function, patched in (("rounds", self._rounds), ("follow", self._follow)):
            monkeypatch.setattr(loops, function, patched(getattr(loops, function)))

    def is_done(self) -> bool:
        """Whether every loop of the daemon has raised everything."""
        return self.thrown.keys() == LOOPS and not any(self._left.values())

    def _throw(self, loop: str) -> None:
        if self._left[loop]:
            self.thrown[loop].append(self._left[loop].pop())
            raise self.thrown[loop][-1]

    def _rounds(self, real: Callable[..., Awaitable[NoReturn]]) -> Callable[..., Awaitable[NoReturn]]:
        async def rounds(loop: str, act: Callable[[], Awaitable[float]], *others: Any) -> NoReturn:
            async def throw() -> float:
                self._throw(loop)
                return await act()

            await real(loop, throw, *others)

        return rounds

    def _follow(self, real: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def follow(loop: str, watch: Callable[[], AsyncIterator[None]], *others: Any) -> None:
            async def throw() -> AsyncIterator[None]:
                self._throw(loop)
                async for _ in watch():
                    yield

            await real(loop, throw, *others)

        return follow


def test_whatever_a_loop_raises_the_daemon_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(loops, "LAST_PAUSE_S", 0.001)
    thrower = Thrower(monkeypatch)

    async def scenario() -> None:
        async with cluster(1) as running:
            await running.until(lambda _: thrower.is_done())
            await running.create(WEB)
            state = await running.until(lambda state: len(serving(state)) == 2)
            assert running.daemons[0].running
            await running.until(lambda state: not state.nodes[running.daemons[0].id].failures)
            assert all(node.state == "ready" for node in state.nodes.values())

    asyncio.run(scenario())
    assert {loop: len(thrown) for loop, thrown in thrower.thrown.items()} == dict.fromkeys(LOOPS, len(exceptions()))


@pytest.mark.parametrize("exc", [OSError(24, "Too many open files"), RuntimeError(TOLD), errors.Unavailable(TOLD)])
def test_what_a_loop_raises_is_the_nodes_status_until_it_acts_again(monkeypatch: pytest.MonkeyPatch, exc: Exception) -> None:
    async def scenario() -> None:
        async with cluster(1) as running:
            (daemon,) = running.daemons
            raising: list[Exception] = [exc]

            def read(want: NodePlan) -> NodePlan:
                if raising:
                    raise raising[0]
                return real(want)

            real = daemon.kernel.read
            monkeypatch.setattr(daemon.kernel, "read", read)
            await running.create(WEB)
            state = await running.until(lambda state: bool(state.nodes[daemon.id].failures))
            (told,) = state.nodes[daemon.id].failures
            assert told.startswith(f"kernel: {loops.said(exc)}")
            raising.clear()
            await running.until(lambda state: not state.nodes[daemon.id].failures and len(serving(state)) == 2)

    asyncio.run(scenario())


METHODS = [
    *(("store", name) for name in ("snapshot", "update", "renew", "leases", "watch")),
    *(("kernel", name) for name in ("read", "apply", "flush_flows", "flush_untranslated", "listeners", "watch", "netns_path")),
    *(("runtime", name) for name in ("check", "tasks", "start", "wait", "stop", "execute", "remove")),
]


@pytest.mark.parametrize(("of", "method"), METHODS)
def test_whatever_one_call_raises_now_and_then_the_cluster_gets_where_it_should(
    monkeypatch: pytest.MonkeyPatch, of: str, method: str
) -> None:
    """Each second call of one method fails, each time with another exception."""
    monkeypatch.setattr(loops, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(loops, "LAST_PAUSE_S", 0.001)
    calls: Counter[str] = Counter()
    to_raise = exceptions()

    async def scenario() -> None:
        async with cluster(2) as running:
            for whose in {id(whose): whose for daemon in running.daemons if (whose := getattr(daemon, of))}.values():
                _fail_now_and_then(monkeypatch, whose, method, calls, to_raise)
            await running.create(LIVELY)
            await running.until(lambda state: len(serving(state)) == 2)
            await running.store.update(_scaled_to_one)
            await running.until(
                lambda state: len(serving(state)) == 1 and all(_is_settled(task) for task in state.tasks.values())
            )
            await running.until(lambda _: calls[method] > 0)
            assert all(daemon.running for daemon in running.daemons)

    asyncio.run(scenario())


def _fail_now_and_then(
    monkeypatch: pytest.MonkeyPatch, whose: object, method: str, calls: Counter[str], to_raise: list[BaseException]
) -> None:
    real, the_test = getattr(whose, method), asyncio.current_task()

    def fail_or(go_on: Callable[[], Any]) -> Any:
        calls[method] += 1
        if calls[method] % 2 and to_raise:
            raise to_raise.pop()
        return go_on()

    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        if asyncio.current_task() is the_test:
            return await real(*args, **kwargs)
        return await fail_or(lambda: real(*args, **kwargs))

    def synchronous(*args: Any, **kwargs: Any) -> Any:
        return fail_or(lambda: real(*args, **kwargs))

    monkeypatch.setattr(whose, method, asynchronous if asyncio.iscoroutinefunction(real) else synchronous)


def _scaled_to_one(state: State) -> State:
    services = {key: replace(one, spec=replace(one.spec, replicas=1)) for key, one in state.services.items()}
    return replace(state, services=services)


def _is_settled(task: Task) -> bool:
    return task.serving or task.status.state.ended


# A loop that returns.


def test_a_loop_that_returns_ends_the_daemon_with_a_reason() -> None:
    async def returns() -> None:
        await asyncio.sleep(0)

    async def goes_on() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as ended:
        asyncio.run(asyncio.wait_for(loops.together(first=goes_on(), second=returns()), 5))
    (reason,) = ended.value.exceptions
    assert isinstance(reason, LoopEnded) and "loop 'second' has ended" in str(reason)


def test_a_watch_that_ends_ends_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with cluster(1) as running:
            (daemon,) = running.daemons
            await running.until(lambda state: bool(state.nodes))
            await running.store.close()
            async with asyncio.timeout(5):
                while daemon.running:
                    await asyncio.sleep(0.005)

    asyncio.run(scenario())


def test_a_daemon_that_is_asked_to_end_does_though_a_loop_is_in_trouble() -> None:
    async def scenario() -> None:
        async def act() -> float:
            raise OSError(5, "Input/output error")

        troubles = Troubles()
        running = asyncio.create_task(loops.rounds("it", act, asyncio.Event(), troubles))
        async with asyncio.timeout(5):
            while not troubles.lines():
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert troubles.lines() == ("it: Input/output error",)

    asyncio.run(scenario())


# What is said of it.


@pytest.mark.parametrize("exc", exceptions())
def test_what_is_said_of_an_exception_is_one_line_that_can_be_stored(exc: BaseException) -> None:
    text = loops.said(exc)
    assert text.isprintable() and len(text) <= 500 and text.encode()


def test_an_expected_error_is_said_as_it_is_and_a_bug_as_such() -> None:
    assert loops.said(errors.Unavailable("the disk is full")) == "the disk is full"
    assert loops.said(OSError(2, "No such file or directory", "/run/x")) == "/run/x: No such file or directory"
    assert loops.said(TimeoutError()) == "TimeoutError"
    assert loops.said(KeyError("a")) == "'a' (KeyError, a bug in routemesh; the daemon's log has the details)"


def test_a_trouble_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(loops, "LAST_PAUSE_S", 0.0)
    caplog.set_level("INFO")

    async def scenario() -> None:
        left = [errors.Unavailable("no disk")] * 50

        async def act() -> float:
            if left:
                raise left.pop()
            done.set()
            return 60

        done = asyncio.Event()
        running = asyncio.create_task(loops.rounds("it", act, asyncio.Event(), Troubles()))
        async with asyncio.timeout(5):
            await done.wait()
        running.cancel()

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if record.name == loops.__name__]
    assert said == ["it: no disk", "it: works again"]
