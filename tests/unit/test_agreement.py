"""Waiting until all live nodes have applied a revision."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address

import pytest

from routemesh.agent import agreement
from routemesh.agent.agreement import Agreement
from routemesh.decide import admit
from routemesh.decide.liveness import lease_name
from routemesh.model import Lease, Node, NodeId, NodeState
from routemesh.store.memory import MemoryStore
from routemesh.values import replace

HERE, THERE = NodeId("id-here"), NodeId("id-there")


class Counted(MemoryStore):
    """Counts how often the leases are read."""

    reads = 0

    async def leases(self) -> dict[str, Lease]:
        self.reads += 1
        return dict(await super().leases())


def play(scenario: Callable[[Counted, Agreement], Awaitable[None]]) -> None:
    """On a store with two nodes, of which neither has applied anything."""

    async def main() -> None:
        store = Counted()
        for number, node in enumerate((HERE, THERE), 1):
            joined = Node(id=node, name=node.removeprefix("id-"), address=IPv4Address(f"192.168.200.{number}"))
            await store.update(partial(admit.join, node=joined, now=0.0))
            await applied(store, node, 0)
        await scenario(store, Agreement(store))

    asyncio.run(main())


async def applied(store: MemoryStore, node: NodeId, revision: int) -> None:
    """A node acknowledges."""
    assert await store.renew(lease_name(node), node, 60.0, revision)


async def some_turns() -> None:
    """Whoever can go on does."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_thousand_that_wait_for_a_revision_read_it_once_and_go_on_when_the_last_node_has_it() -> None:
    async def scenario(store: Counted, agreement: Agreement) -> None:
        waiting = [asyncio.create_task(agreement.reached(7)) for _ in range(1000)]
        later = asyncio.create_task(agreement.reached(8))
        await some_turns()
        await applied(store, HERE, 7)
        await agreement.look()
        await some_turns()
        assert not any(each.done() for each in waiting)
        await applied(store, THERE, 9)
        await agreement.look()
        await asyncio.gather(*waiting)
        assert not later.done(), "one node has not applied 8"
        await applied(store, HERE, 8)
        await agreement.look()
        await later
        reads = store.reads
        assert reads <= 20
        await agreement.look()
        assert store.reads == reads, "nobody waits"

    play(scenario)


def test_what_was_applied_before_is_not_waited_for_nor_is_a_node_that_is_down() -> None:
    async def scenario(store: Counted, agreement: Agreement) -> None:
        await applied(store, HERE, 5)
        await applied(store, THERE, 5)
        await agreement.reached(5)
        waiting = asyncio.create_task(agreement.reached(6))
        await applied(store, HERE, 6)
        await some_turns()
        assert not waiting.done()
        await store.update(
            lambda state: replace(state, nodes={**state.nodes, THERE: replace(state.nodes[THERE], state=NodeState.DOWN)})
        )
        await agreement.look()
        await waiting

    play(scenario)


def test_a_node_that_never_acknowledges_is_waited_for_a_while_and_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agreement, "ACKNOWLEDGE_TIMEOUT_S", 0.01)

    async def scenario(store: Counted, waits: Agreement) -> None:
        await applied(store, HERE, 6)
        await asyncio.gather(*(waits.reached(6) for _ in range(3)))

    play(scenario)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "revision=6 not acknowledged by ['there'] within 0 s"
