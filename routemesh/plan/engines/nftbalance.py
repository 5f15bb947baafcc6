"""How the `nftables` engine chooses a task for a new connection: by turns, by lot, by the client's address, or from memory. PURE.

Each pool has a chain `FWM-<mark>`. Without affinity it is one rule: a number, which a map turns into a task.

    rr, wrr    numgen inc: the places of a round, in turn         (docs/adr/0002)
    random     numgen random: any place of that round
    sh         jhash of the client's address: a place of that round
    mh         jhash of the client's address: a place of Maglev's table

The hash takes the address alone, as IPVS's sh and mh do unless told otherwise: with the port in it every connection of a client
would be another's. It is seeded with the service's mark, so that all nodes, which have the same tasks, choose the same.

With affinity the node remembers whom a client was led to (docs/adr/0008); for those it does not know, the hash decides.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from routemesh.model import LAST_FWMARK, Scheduler
from routemesh.nodeplan import (
    Assign,
    Chain,
    Counter,
    Dnat,
    Element,
    Index,
    Item,
    ItemKey,
    Jhash,
    Key,
    Learn,
    Lookup,
    Map,
    Numgen,
    Rule,
)
from routemesh.plan import maglev
from routemesh.plan.pools import Pool
from routemesh.plan.turns import in_turn

SCHEDULERS = frozenset({Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM, Scheduler.SH, Scheduler.MH})
"""Those of the others weigh how many connections a task has, which nftables does not know."""

CLIENTS, CHOICES, TASKS = "clients", "choices", "tasks"
MOST_CLIENTS = 65536
"""That a node remembers, of all services; about 10 MB of the kernel's memory. Those beyond are hashed at every connection."""

_CLIENT: Key = ("ip saddr", "meta mark")
_TASK: Key = ("meta mark", "ct mark")


def maps(pools: Iterable[Pool]) -> Iterator[Map]:
    """The maps that the chains of these pools ask."""
    yield Map("ip", "backends", ("mark", "index"), "ip")
    if any(pool.balancing.affinity_s for pool in pools):
        yield Map("ip", CLIENTS, ("ip", "mark"), "mark", learns=MOST_CLIENTS)
        yield Map("ip", CHOICES, ("mark", "index"), "mark")
        yield Map("ip", TASKS, ("mark", "mark"), "ip")


def chain(pool: Pool) -> Iterator[Item]:
    """A pool's chain, and the map elements by which it chooses; the pool is open."""
    round_ = _round(pool)
    number = _number(pool, len(round_))
    addresses = [pool.members[place].address for place in round_]
    name = f"FWM-{pool.mark}"
    if not pool.balancing.affinity_s:
        yield Chain("ip", name, rules=((Counter(), Dnat(Lookup(("meta mark", number), "backends"))),))
        for index, address in enumerate(addresses):
            yield Element("ip", "backends", (pool.mark, index), address)
        return
    yield Chain("ip", name, rules=_from_memory(number, pool.balancing.affinity_s))
    for index, address in enumerate(addresses):
        yield Element("ip", CHOICES, (pool.mark, index), int(address))
    for address in dict.fromkeys(addresses):
        yield Element("ip", TASKS, (pool.mark, int(address)), address)


def learns(sandbox: Iterable[Item]) -> bool:
    """Whether, by its plan, a sandbox remembers clients."""
    return any(isinstance(item, Map) and item.name == CLIENTS for item in sandbox)


def remembered(sandbox: Iterable[Item]) -> frozenset[ItemKey]:
    """The tasks that a client may be remembered with, by the sandbox's plan: mark, and address as a number."""
    return frozenset(item.key for item in sandbox if isinstance(item, Element) and item.map == TASKS)


def outdated(sandbox: Iterable[Item], learned: Iterable[Element]) -> tuple[Element, ...]:
    """What was learned about clients of tasks that get no new connections any more."""
    known = remembered(sandbox)
    return tuple(element for element in learned if (element.key[1], element.value) not in known)


def _from_memory(number: Index, timeout_s: int) -> tuple[Rule, ...]:
    """The connection's mark names the task: the hash's choice, unless the client is known. Each rule may end without effect.

    Where the clients' map is full, the choice stays; where the remembered task is gone, the choice is made again.
    """
    choose = Assign("ct mark", Lookup(("meta mark", number), CHOICES))
    to_task = Dnat(Lookup(_TASK, TASKS))
    return (
        (Counter(), choose),
        (Learn(map=CLIENTS, key=_CLIENT, value="ct mark", timeout_s=timeout_s),),
        (Assign("ct mark", Lookup(_CLIENT, CLIENTS)),),
        (to_task,),
        (choose,),
        (to_task,),
    )


def _scheduler(pool: Pool) -> Scheduler:
    """With affinity always a hash: nodes that take turns, each by itself, would lead one client to several tasks."""
    scheduler = pool.balancing.scheduler
    if pool.balancing.affinity_s and scheduler is not Scheduler.SH:
        return Scheduler.MH
    return scheduler


def _round(pool: Pool) -> tuple[int, ...]:
    """Which member each index leads to."""
    weights = tuple(member.weight for member in pool.members)
    if pool.balancing.scheduler is Scheduler.RR:
        weights = tuple(min(weight, 1) for weight in weights)
    if _scheduler(pool) is Scheduler.MH:
        return maglev.table(tuple(member.name for member in pool.members), weights)
    return in_turn(weights)


def _number(pool: Pool, below: int) -> Index:
    match _scheduler(pool):
        case Scheduler.SH | Scheduler.MH:
            return Jhash(field="ip saddr", modulus=below, seed=pool.mark & LAST_FWMARK)
        case Scheduler.RANDOM:
            return Numgen(below, "random")
        case Scheduler.RR | Scheduler.WRR | Scheduler.LC | Scheduler.WLC | Scheduler.SED | Scheduler.NQ:
            return Numgen(below)  # in turn; the last four are refused in admission, and a plan is made of any state
        case unknown:
            assert_never(unknown)
