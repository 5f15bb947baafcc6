"""What every kernel does: the same tests for the fake and for Linux, which is why the fake can be trusted."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

import pytest

from routemesh import names
from routemesh.diff import diff
from routemesh.kernel import Kernel
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.kernel.linux import LinuxKernel
from routemesh.nodeplan import (
    HOST,
    Address,
    Chain,
    Change,
    Create,
    Delete,
    Element,
    FdbEntry,
    Hook,
    Item,
    Link,
    Map,
    Neighbour,
    Netns,
    NodePlan,
    Op,
    Peer,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    Verdict,
    VerdictLookup,
    Vxlan,
    key,
    namespace,
)
from routemesh.values import replace
from tests.kernel.private import private_netns
from tests.support import wait_until

K = TypeVar("K", bound=Item)

ANY = IPv4Network("0.0.0.0/0")
MAC = "02:42:0a:00:00:09"
OTHER_MAC = "02:42:0a:00:00:08"
BRIDGE = Link(name="br0", kind="bridge", mtu=1450, mac="02:42:0a:00:00:01")
BRIDGE_ADDRESS = Address("br0", IPv4Interface("10.0.0.1/24"))
TUNNEL = Link(name="vxlan0", kind="vxlan", mtu=1450, master="br0", vxlan=Vxlan(4096, IPv4Address("127.0.0.1"), 4789))
PORT = Link(name="port", kind="veth", mtu=1450, master="br0", peer=Peer("task", "eth0"), flood=False)
END = Link(name="eth0", kind="veth", mtu=1450, mac=MAC, peer=Peer("overlay", "port"))
END_ADDRESS = Address("eth0", IPv4Interface("10.0.0.9/24"))
VIP = Address("eth0", IPv4Interface("10.0.0.7/32"))
DEFAULT_ROUTE = Route(destination=ANY, via=IPv4Address("10.0.0.1"), link="eth0")
ENTRY = FdbEntry("port", MAC)
RULE = RoutingRule(priority=82, fwmark=0x0A000000, mask=0xFF000000, table=82)
GATEWAY = Neighbour("eth0", IPv4Address("10.0.0.1"), "02:42:0a:00:00:01")
TABLE = Table("ip")
PORTS = Map("ip", "ports", ("proto", "port"), "verdict")
TARGET = Chain("ip", "target", None, ((Verdict("accept"),),))
ENTRANCE = Chain(
    "ip", "entrance", Hook("filter", "prerouting", 0), ((VerdictLookup(("meta l4proto", "th dport"), "ports"),),)
)  # fmt: skip
PUBLISHED = Element("ip", "ports", ("tcp", 8080), Verdict("goto", "target"))

PLAN: dict[str, tuple[Item, ...]] = {
    HOST: (Netns("overlay"), Netns("task")),
    "overlay": (BRIDGE, TUNNEL, PORT, BRIDGE_ADDRESS, ENTRY),
    "task": (END, Sysctl("net/ipv4/conf/eth0/rp_filter", "0"), END_ADDRESS, DEFAULT_ROUTE, RULE, GATEWAY),
}
"""A task on an overlay: something of every kind but nftables."""


def planned(items: dict[str, tuple[Item, ...]]) -> NodePlan:
    return NodePlan({netns: namespace(inside) for netns, inside in items.items()})


def without(plan: NodePlan, *gone: tuple[str, Item]) -> NodePlan:
    names = {(netns, key(item)) for netns, item in gone}
    return NodePlan(
        {
            netns: left
            for netns, items in plan.namespaces.items()
            if (left := {name: item for name, item in items.items() if (netns, name) not in names})
        }
    )


class KernelContract(ABC):
    """Every test starts from an empty kernel."""

    @pytest.fixture
    @abstractmethod
    def kernel(self) -> Iterator[Kernel]:
        """A kernel that has nothing of ours."""

    @abstractmethod
    def add_foreign_link(self, kernel: Kernel, name: str) -> None:
        """Somebody else makes a link in the node's namespace."""

    @abstractmethod
    def delete_by_hand(self, kernel: Kernel, netns: str, neighbour: Neighbour) -> None:
        """Somebody else deletes a neighbour."""

    def build(self, kernel: Kernel, items: dict[str, tuple[Item, ...]] = PLAN) -> NodePlan:
        plan = planned(items)
        self.do(kernel, *diff(NodePlan(), plan))
        assert diff(kernel.read(plan), plan) == ()
        return plan

    def do(self, kernel: Kernel, *ops: Op) -> None:
        failures = kernel.apply(ops)
        assert failures == (), [str(failure) for failure in failures]

    def refused(self, kernel: Kernel, *ops: Op) -> str:
        (failure,) = kernel.apply(ops)
        return str(failure)

    def of_kind(self, kernel: Kernel, netns: str, kind: type[K]) -> set[K]:
        return {item for item in kernel.read(NodePlan()).namespaces.get(netns, {}).values() if isinstance(item, kind)}

    # --- namespaces ------------------------------------------------------------------------------------------------

    def test_starts_empty(self, kernel: Kernel) -> None:
        assert kernel.read(NodePlan()) == NodePlan()

    def test_builds_a_whole_plan_and_leaves_it_alone(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        self.do(kernel, *diff(NodePlan(), plan))
        assert diff(kernel.read(plan), plan) == ()

    def test_removes_a_whole_plan(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        everything = diff(plan, NodePlan())
        self.do(kernel, *everything)
        assert kernel.read(plan) == NodePlan()
        self.do(kernel, *everything)

    def test_a_namespace_takes_all_along_and_the_ends_of_its_veths_elsewhere(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        self.do(kernel, Delete(HOST, Netns("task")))
        left = {**PLAN, HOST: (Netns("overlay"),), "overlay": (BRIDGE, TUNNEL, BRIDGE_ADDRESS)}
        assert diff(kernel.read(plan), without(planned(left), *(("task", item) for item in PLAN["task"]))) == ()

    def test_a_namespace_can_be_made_again(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        self.do(kernel, Delete(HOST, Netns("overlay")))
        self.do(kernel, *diff(kernel.read(plan), plan))
        assert diff(kernel.read(plan), plan) == ()

    def test_refuses_what_is_in_a_namespace_that_is_not_there(self, kernel: Kernel) -> None:
        ops = [Create("nowhere", item) for item in (BRIDGE, Sysctl("net/ipv4/ip_forward", "1"), BRIDGE_ADDRESS, TABLE)]
        failures = kernel.apply(ops)
        assert [failure.op for failure in failures] == ops
        assert {failure.reason for failure in failures} == {"there is no namespace nowhere"}
        self.do(kernel, *(Delete(op.netns, op.item) for op in ops))

    # --- links -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("first", [("overlay", PORT), ("task", END)])
    def test_makes_a_veth_from_either_end(self, kernel: Kernel, first: tuple[str, Link]) -> None:
        self.build(kernel, {HOST: PLAN[HOST], "overlay": (BRIDGE,)})
        ends = [Create("overlay", PORT), Create("task", END)]
        self.do(kernel, *sorted(ends, key=lambda op: (op.netns, op.item) != first))
        (end,), ports = self.of_kind(kernel, "task", Link), self.of_kind(kernel, "overlay", Link)
        assert end == END
        assert {replace(port, mac=None) for port in ports if port.name == "port"} == {PORT}

    def test_gives_a_link_a_mac_when_nobody_asks_for_one(self, kernel: Kernel) -> None:
        self.do(kernel, Create(HOST, replace(BRIDGE, mac=None)))
        (bridge,) = self.of_kind(kernel, HOST, Link)
        assert bridge.mac is not None
        assert bridge == replace(BRIDGE, mac=bridge.mac)

    @pytest.mark.parametrize(
        ("netns", "link", "other"),
        [
            ("overlay", BRIDGE, replace(BRIDGE, mtu=1400)),
            ("overlay", BRIDGE, replace(BRIDGE, mac=OTHER_MAC)),
            ("overlay", BRIDGE, replace(BRIDGE, up=False)),
            ("overlay", PORT, replace(PORT, mtu=1400)),
            ("overlay", PORT, replace(PORT, flood=True)),
            ("overlay", PORT, replace(PORT, isolated=True)),
            ("overlay", TUNNEL, replace(TUNNEL, master=None)),
            ("overlay", TUNNEL, replace(TUNNEL, flood=False)),
            ("overlay", TUNNEL, replace(TUNNEL, vxlan=Vxlan(4097, IPv4Address("127.0.0.1"), 4790))),
            ("task", END, replace(END, mac=OTHER_MAC)),
        ],
    )
    def test_changes_a_link(self, kernel: Kernel, netns: str, link: Link, other: Link) -> None:
        plan = self.build(kernel)
        for old, new in ((link, other), (other, link)):
            self.do(kernel, Change(netns, old, new))
            assert new in {replace(found, mac=new.mac) for found in self.of_kind(kernel, netns, Link)}
        self.do(kernel, *diff(kernel.read(plan), plan))

    def test_a_change_in_place_keeps_what_hangs_on_the_link(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        self.do(kernel, Change("overlay", BRIDGE, replace(BRIDGE, mtu=1400)), Change("task", END, replace(END, mtu=1400)))
        kept = without(kernel.read(plan), ("overlay", BRIDGE), ("task", END))
        assert diff(kept, without(plan, ("overlay", BRIDGE), ("task", END))) == ()

    def test_a_link_takes_along_what_hangs_on_it_and_its_peer(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        self.do(kernel, Delete("task", END))
        found = kernel.read(plan)
        assert set(found.namespaces["task"].values()) == {RULE}
        assert (
            diff(without(found, ("task", RULE)), planned({HOST: PLAN[HOST], "overlay": (BRIDGE, TUNNEL, BRIDGE_ADDRESS)})) == ()
        )

    def test_a_bridge_leaves_its_ports_behind(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Delete("overlay", BRIDGE))
        left = kernel.read(NodePlan()).namespaces["overlay"].values()
        unnamed = {replace(item, mac=None) if isinstance(item, Link) else item for item in left}
        assert unnamed == {replace(TUNNEL, master=None), replace(PORT, master=None, flood=True)}

    def test_several_links_go_together(self, kernel: Kernel) -> None:
        bridges = [Link(name=f"bridge{number}", kind="bridge") for number in range(5)]
        self.do(kernel, *(Create(HOST, bridge) for bridge in bridges))
        self.do(kernel, *(Delete(HOST, bridge) for bridge in bridges[1:]))
        assert {bridge.name for bridge in self.of_kind(kernel, HOST, Link)} == {"bridge0"}

    def test_a_link_of_others_is_in_the_way_and_is_left_alone(self, kernel: Kernel) -> None:
        self.add_foreign_link(kernel, names.GWBRIDGE)
        ours = Link(name=names.GWBRIDGE, kind="bridge")
        assert "docker_gwbridge that is not routemesh's" in self.refused(kernel, Create(HOST, ours))
        (sentence,) = kernel.foreign(planned({HOST: (ours,)}))
        assert "docker_gwbridge" in sentence
        self.do(kernel, Delete(HOST, ours))
        assert kernel.foreign(planned({HOST: (ours,)})) == (sentence,)
        assert kernel.foreign(planned({HOST: (BRIDGE,)})) == ()
        assert kernel.read(NodePlan()) == NodePlan()

    # --- what hangs on links ---------------------------------------------------------------------------------------

    def test_a_link_has_several_addresses(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Create("task", VIP))
        assert self.of_kind(kernel, "task", Address) == {END_ADDRESS, VIP}
        self.do(kernel, Delete("task", END_ADDRESS))
        assert self.of_kind(kernel, "task", Address) == {VIP}

    def test_without_an_address_a_link_loses_routes_and_neighbours(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Delete("task", END_ADDRESS))
        assert {type(item) for item in kernel.read(NodePlan()).namespaces["task"].values()} == {Link, RoutingRule}

    def test_a_link_that_goes_down_loses_routes_and_neighbours(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Change("task", END, replace(END, up=False)))
        assert {type(item) for item in kernel.read(NodePlan()).namespaces["task"].values()} == {Link, Address, RoutingRule}

    def test_a_new_mac_makes_a_link_forget_its_neighbours(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Change("task", END, replace(END, mac=OTHER_MAC)))
        assert self.of_kind(kernel, "task", Neighbour) == set()
        assert self.of_kind(kernel, "task", Route) == {DEFAULT_ROUTE}

    def test_a_port_that_leaves_its_bridge_loses_its_static_entries(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Change("overlay", PORT, replace(PORT, master=None, flood=True)))
        assert self.of_kind(kernel, "overlay", FdbEntry) == set()

    @pytest.mark.parametrize(
        ("netns", "old", "new"),
        [
            ("task", DEFAULT_ROUTE, replace(DEFAULT_ROUTE, via=IPv4Address("10.0.0.2"))),
            ("task", replace(DEFAULT_ROUTE, table=82), replace(DEFAULT_ROUTE, table=82, via=IPv4Address("10.0.0.2"))),
            ("task", RULE, replace(RULE, mask=0xFFFF0000)),
            ("task", RULE, replace(RULE, table=83)),
            ("task", GATEWAY, replace(GATEWAY, mac=OTHER_MAC)),
            ("overlay", FdbEntry("vxlan0", MAC, IPv4Address("192.0.2.1")), FdbEntry("vxlan0", MAC, IPv4Address("192.0.2.2"))),
        ],
    )
    def test_changes_deletes_and_creates_an_entry(self, kernel: Kernel, netns: str, old: Item, new: Item) -> None:
        self.build(kernel)
        kind = type(old)
        others = self.of_kind(kernel, netns, kind) - {old}
        for op, present in (
            (Create(netns, old), {old}),
            (Create(netns, old), {old}),
            (Change(netns, old, new), {new}),
            (Delete(netns, new), set()),
            (Delete(netns, new), set()),
            (Create(netns, old), {old}),
        ):
            self.do(kernel, op)
            assert self.of_kind(kernel, netns, kind) == others | present

    def test_sets_and_reads_just_the_wanted_settings(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        setting = Sysctl("net/ipv4/conf/eth0/rp_filter", "2")
        self.do(kernel, Create("task", setting))
        assert self.of_kind(kernel, "task", Sysctl) == set()
        assert kernel.read(plan).namespaces["task"][key(setting)] == setting
        self.do(kernel, Delete("task", setting))

    @pytest.mark.parametrize(
        ("netns", "item", "reason"),
        [
            (HOST, replace(BRIDGE, master="br1"), "there is no link br1 to be its master"),
            (HOST, replace(PORT, master=None, peer=Peer("nowhere", "eth0")), "there is no namespace nowhere"),
            (HOST, BRIDGE_ADDRESS, "there is no link br0"),
            (HOST, Neighbour("br0", IPv4Address("10.0.0.2"), MAC), "there is no link br0"),
            (HOST, FdbEntry("br0", MAC), "there is no link br0"),
            (HOST, DEFAULT_ROUTE, "there is no link eth0"),
            (HOST, Sysctl("net/ipv4/conf/br0/forwarding", "1"), "No such file or directory"),
            ("task", replace(DEFAULT_ROUTE, table=9, via=IPv4Address("192.0.2.1")), "Nexthop has invalid gateway"),
            ("task", FdbEntry("eth0", MAC), "Operation not supported"),
        ],
    )
    def test_refuses_an_item_whose_referent_is_missing_and_does_the_rest(
        self, kernel: Kernel, netns: str, item: Item, reason: str
    ) -> None:
        self.build(kernel)
        rule = replace(RULE, priority=99)
        ops = (Create(netns, item), Create(netns, rule))
        (failure,) = kernel.apply(ops)
        assert (failure.op, failure.reason) == (ops[0], reason)
        assert failure.command
        assert rule in self.of_kind(kernel, netns, RoutingRule)

    def test_takes_many_entries_at_once(self, kernel: Kernel) -> None:
        self.build(kernel)
        pool = IPv4Network("10.1.0.0/16")
        macs = [(pool[number], names.mac(pool[number])) for number in range(1, 601)]
        entries: list[Item] = [Neighbour("vxlan0", address, mac) for address, mac in macs]
        entries += [FdbEntry("vxlan0", mac, IPv4Address("192.0.2.1")) for _, mac in macs]
        entries.insert(300, Neighbour("nowhere", IPv4Address("10.1.9.9"), MAC))
        (failure,) = kernel.apply([Create("overlay", entry) for entry in entries])
        assert failure.op == Create("overlay", entries.pop(300))
        assert self.of_kind(kernel, "overlay", Neighbour) | self.of_kind(kernel, "overlay", FdbEntry) == {*entries, ENTRY}
        self.do(kernel, *(Delete("overlay", entry) for entry in entries))
        assert self.of_kind(kernel, "overlay", Neighbour) | self.of_kind(kernel, "overlay", FdbEntry) == {ENTRY}

    # --- watching --------------------------------------------------------------------------------------------------

    def test_tells_what_others_change_and_not_what_we_do(self, kernel: Kernel) -> None:
        plan = self.build(kernel)
        changes: list[None] = []
        kernel.watch(lambda: changes.append(None))
        self.do(kernel, Create("task", VIP), Delete("task", GATEWAY), Create("task", GATEWAY), Delete("overlay", TUNNEL))
        self.do(kernel, *diff(kernel.read(plan), plan))
        assert changes == []
        self.delete_by_hand(kernel, "task", GATEWAY)
        wait_until(lambda: changes, what="a word about the change")
        assert diff(kernel.read(plan), plan) == (Create("task", GATEWAY),)


class TablesContract(KernelContract):
    """With nftables."""

    def test_nftables_of_several_namespaces(self, kernel: Kernel) -> None:
        rules = (TABLE, PORTS, TARGET, ENTRANCE, PUBLISHED)
        plan = self.build(kernel, {**PLAN, HOST: (*PLAN[HOST], *rules), "task": (*PLAN["task"], *rules)})
        closed = replace(PUBLISHED, value=Verdict("drop"))
        self.do(kernel, Change("task", PUBLISHED, closed))
        assert diff(kernel.read(plan), plan) == (Change("task", closed, PUBLISHED),)
        self.do(kernel, Change("task", closed, PUBLISHED), Delete(HOST, TABLE))
        assert diff(kernel.read(plan), plan) == tuple(Create(HOST, rule) for rule in rules)

    def test_an_element_without_its_map_is_refused_alone(self, kernel: Kernel) -> None:
        orphan = Element("ip", "nothing", ("tcp", 80), Verdict("drop"))
        (failure,) = kernel.apply([Create(HOST, item) for item in (TABLE, PORTS, TARGET, orphan, PUBLISHED)])
        assert failure.op == Create(HOST, orphan)
        assert self.of_kind(kernel, HOST, Element) == {PUBLISHED}

    def test_our_own_transactions_are_no_news(self, kernel: Kernel) -> None:
        self.build(kernel)
        changes: list[None] = []
        kernel.watch(lambda: changes.append(None))
        self.do(kernel, Create("task", TABLE))
        self.delete_by_hand(kernel, "task", GATEWAY)
        wait_until(lambda: changes, what="a word about the change")
        assert changes == [None]


class TestFakeKernel(TablesContract):
    @pytest.fixture
    def kernel(self) -> Iterator[Kernel]:
        yield FakeKernel()

    def add_foreign_link(self, kernel: Kernel, name: str) -> None:
        assert isinstance(kernel, FakeKernel)
        kernel.add_foreign_link(HOST, name)

    def delete_by_hand(self, kernel: Kernel, netns: str, neighbour: Neighbour) -> None:
        assert isinstance(kernel, FakeKernel)
        kernel.by_others(Delete(netns, neighbour))


class OnLinux:
    """The real kernel, in a namespace of its own that plays the node's."""

    WITH_TABLES = True

    @pytest.fixture
    def kernel(self, tmp_path: Path) -> Iterator[Kernel]:
        with private_netns(with_tables=self.WITH_TABLES) as node, node.enter(), closing(LinuxKernel(tmp_path)) as kernel:
            try:
                yield kernel
            finally:
                found = kernel.read(NodePlan()).namespaces.get(HOST, {}).values()
                kernel.apply([Delete(HOST, item) for item in found if isinstance(item, Netns)])

    def add_foreign_link(self, kernel: Kernel, name: str) -> None:
        subprocess.run(("ip", "link", "add", name, "type", "bridge"), check=True)

    def delete_by_hand(self, kernel: Kernel, netns: str, neighbour: Neighbour) -> None:
        enter = ("nsenter", f"--net={kernel.netns_path(netns)}")
        subprocess.run((*enter, "ip", "neigh", "delete", str(neighbour.ip), "dev", neighbour.link), check=True)


class TestLinuxKernel(OnLinux, TablesContract):
    """Both halves of the contract."""
