"""A small cluster that has one of everything, and its network with one thing missing."""

from collections.abc import Iterator
from typing import NamedTuple

from routemesh import names
from routemesh.diff import applied
from routemesh.model import ClientIp, State, TaskId, TaskState, TaskStatus
from routemesh.nodeplan import Chain, Change, Delete, Item, Netns, Op, Rule, XtChain, key
from routemesh.values import replace
from routemesh.walk import Network, Place
from tests.property.clusters import CLUSTER, INGRESS, Addresses, node, placed, service, task

TARGET = 9000
KEEPING, OTHERS = ({names.container_id(TaskId(f"task{slot}")) for slot in slots} for slots in ((1, 2), (3, 4)))
"""The namespaces of the tasks that are told the client's address, and of the others."""


def two_nodes(engine: str = "nftables", *, bridges: bool = False) -> State:
    """Two nodes; a service that keeps the client's address and one that does not, each with a task on each node.

    `bridges`: one task is on the first bridge of its node, the others on further ones.
    """
    ingress = Addresses(INGRESS.subnet[2])
    nodes = [node(number, "up", engine, ingress) for number in range(2)]
    owners = [(number, TARGET) for number in (0, 1, 1, 1, 0, 0)]
    services = [service(number, 2, owners, client_ip, ingress) for number, client_ip in enumerate(ClientIp)]
    gateways = {node.id: Addresses(CLUSTER.gwbridge_subnet[3]) for node in nodes}
    running = TaskStatus(state=TaskState.RUNNING, at=0.0)
    homes = [(of, home.id) for of in services for home in nodes]
    tasks = [placed(task(slot, of, running), home, ingress, gateways[home]) for slot, (of, home) in enumerate(homes, start=1)]
    if bridges:
        tasks = [replace(each, bridge=each.slot // 2) for each in tasks]
    return State(
        cluster=CLUSTER,
        nodes={node.id: node for node in nodes},
        services={service.id: service for service in services},
        tasks={task.id: task for task in tasks},
        networks={INGRESS.id: INGRESS},
    )


class Removal(NamedTuple):
    """An item, or one rule of a chain, that a node lacks."""

    node: str
    netns: str
    item: Item
    rule: Rule | None = None

    def __str__(self) -> str:
        return f"{self.node} {self.netns or 'host'} {key(self.item)} {self.rule or ''}"

    @property
    def places(self) -> frozenset[Place]:
        """The namespaces that it changes."""
        gone = {self.item.name} if isinstance(self.item, Netns) else set()
        return frozenset(Place(self.node, netns) for netns in {self.netns, *gone})

    @property
    def op(self) -> Op:
        """What removes it."""
        if self.rule is None or not isinstance(self.item, Chain | XtChain):
            return Delete(self.netns, self.item)
        rules = tuple(rule for rule in self.item.rules if rule != self.rule)
        return Change(self.netns, self.item, replace(self.item, rules=rules))

    def of(self, net: Network) -> Network:
        """The network without it."""
        host = net.hosts[self.node]
        hosts = {**net.hosts, self.node: replace(host, plan=applied(host.plan, [self.op]))}
        return Network(hosts, net.listening, net.sysctls, net.wildcard_udp)


def removals(net: Network) -> Iterator[Removal]:
    """Every item, and every rule of every chain."""
    for name, host in net.hosts.items():
        for netns, items in host.plan.namespaces.items():
            for item in items.values():
                yield Removal(name, netns, item)
                for rule in item.rules if isinstance(item, Chain | XtChain) else ():
                    yield Removal(name, netns, item, rule)
