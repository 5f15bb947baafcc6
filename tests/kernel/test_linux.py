"""What only the real kernel can show: others at work beside us, restarts, threads, what a person sees."""

import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from errno import EIO, EMFILE
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from routemesh import names
from routemesh.diff import diff
from routemesh.errors import KernelError
from routemesh.kernel import foreign, memory, netlink
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.netlink import entries, links
from routemesh.kernel.owner import LAB
from routemesh.nodeplan import (
    HOST,
    Address,
    Change,
    Create,
    Delete,
    FdbEntry,
    Item,
    Link,
    Neighbour,
    Netns,
    NodePlan,
    Op,
    Sysctl,
    Table,
)
from routemesh.values import replace
from tests.kernel.private import Private, private_netns
from tests.kernel.test_contract import BRIDGE, DEFAULT_ROUTE, END, GATEWAY, MAC, PLAN, PORT, RULE, TUNNEL, planned
from tests.support import wait_until

REMOTE = FdbEntry("vxlan0", "02:42:0a:00:00:63", IPv4Address("192.0.2.1"))
UNDERLAY = IPv4Address("192.0.2.10")
NODE_PLAN = {
    **PLAN,
    HOST: (*PLAN[HOST], Link(name="gateway", kind="bridge"), Address("gateway", IPv4Interface("172.18.0.1/16")), Table("ip")),
    "overlay": (*PLAN["overlay"], REMOTE),
}


@pytest.fixture
def node() -> Iterator[Private]:
    """The node's own namespace; the test is in it."""
    with private_netns() as node, node.enter():
        yield node


@pytest.fixture
def kernel(node: Private, tmp_path: Path) -> Iterator[LinuxKernel]:
    with closing(LinuxKernel(tmp_path)) as kernel:
        try:
            yield kernel
        finally:
            kernel.apply([Delete(HOST, Netns(name)) for name in namespaces(kernel)])


@pytest.fixture
def plan(kernel: LinuxKernel) -> NodePlan:
    """Something of every kind, built and read."""
    plan = planned(NODE_PLAN)
    do(kernel, *diff(NodePlan(), plan))
    assert diff(kernel.read(plan), plan) == ()
    return plan


def namespaces(kernel: LinuxKernel) -> list[str]:
    return [item.name for item in kernel.read(NodePlan()).namespaces.get(HOST, {}).values() if isinstance(item, Netns)]


def do(kernel: LinuxKernel, *ops: Op) -> None:
    failures = kernel.apply(ops)
    assert failures == (), [str(failure) for failure in failures]


def shell(kernel: LinuxKernel, netns: str, command: str) -> str:
    done = subprocess.run(
        ("nsenter", f"--net={kernel.netns_path(netns)}", "sh", "-c", command), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def counted_dumps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rtnetlink tables that are read from now on; those of nftables have larger numbers."""
    dumps: list[int] = []
    ask = netlink.Requests.ask

    def counted(requests: netlink.Requests, message: netlink.Message) -> list[netlink.Reply]:
        dumps.extend([message.kind] if message.flags and message.kind < 256 else [])
        return ask(requests, message)

    monkeypatch.setattr(netlink.Requests, "ask", counted)
    return dumps


# --- others at work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("netns", "by_hand"),
    [
        ("overlay", f"bridge fdb delete {MAC} dev port master static"),
        ("overlay", f"bridge fdb replace {MAC} dev port master dynamic"),
        ("overlay", f"bridge fdb delete {REMOTE.mac} dev vxlan0 self dst 192.0.2.1"),
        ("overlay", f"bridge fdb replace {REMOTE.mac} dev vxlan0 self permanent dst 192.0.2.2"),
        ("overlay", f"bridge fdb add {names.mac(UNDERLAY)} dev vxlan0 self permanent dst 192.0.2.2"),
        ("overlay", "bridge link set dev port flood on"),
        ("overlay", "bridge link set dev port isolated on"),
        ("overlay", "bridge link set dev port learning on"),
        ("overlay", "ip link set port nomaster"),
        ("overlay", "ip link delete port"),
        ("overlay", "ip link delete vxlan0"),
        ("overlay", "ip link delete br0"),
        ("overlay", "ip link set br0 down"),
        ("overlay", "ip link set br0 mtu 1400"),
        ("overlay", "ip link set vxlan0 type vxlan learning"),
        ("overlay", "ip link set port alias mine"),
        ("overlay", "ip link set port down && ip link set port name elsewhere && ip link set elsewhere up"),
        ("overlay", "ip address flush dev br0"),
        ("task", "ip address add 10.0.0.77/24 dev eth0"),
        ("task", "ip route delete default"),
        ("task", "ip route replace default via 10.0.0.2 dev eth0 proto 82"),
        ("task", "ip route add 192.0.2.0/24 via 10.0.0.2 proto 82"),
        ("task", "ip rule delete pref 82"),
        ("task", "ip rule add pref 83 fwmark 1 lookup 83 proto 82"),
        ("task", "ip neigh delete 10.0.0.1 dev eth0"),
        ("task", "ip neigh replace 10.0.0.1 dev eth0 lladdr 02:00:00:00:00:01 nud permanent"),
        ("task", "ip neigh replace 10.0.0.1 dev eth0 lladdr 02:00:00:00:00:01 nud reachable"),
        ("task", "ip link set eth0 address 02:00:00:00:00:01"),
        ("task", "ip link set eth0 down"),
        pytest.param("task", f"ip link set eth0 netns {os.getpid()}", id="task-ip link set eth0 netns PID"),
        (HOST, "ip link delete gateway"),
        (HOST, "nft delete table ip routemesh"),
        (HOST, "umount {overlay}"),
        (HOST, "umount {task} && rm {task}"),
        (HOST, "umount {task} && unshare --net={task} true"),
    ],
)
def test_sees_and_repairs_what_others_change(kernel: LinuxKernel, plan: NodePlan, netns: str, by_hand: str) -> None:
    changes: list[None] = []
    kernel.watch(lambda: changes.append(None))
    paths = {name: shlex.quote(str(kernel.netns_path(name))) for name in ("overlay", "task")}
    shell(kernel, netns, by_hand.format(**paths))
    wait_until(lambda: changes, what="a word about the change")
    repairs = diff(kernel.read(plan), plan)
    assert repairs != ()
    do(kernel, *repairs)
    do(kernel, *diff(kernel.read(plan), plan))  # what hung on a link that had to be made again
    assert diff(kernel.read(plan), plan) == ()


def test_sees_a_setting_that_others_change_at_the_next_reading(kernel: LinuxKernel, plan: NodePlan) -> None:
    shell(kernel, "task", "sysctl -w net.ipv4.conf.eth0.rp_filter=1")
    repairs = diff(kernel.read(plan), plan)
    assert [op.new for op in repairs if isinstance(op, Change)] == [Sysctl("net/ipv4/conf/eth0/rp_filter", "0")]
    do(kernel, *repairs)
    assert diff(kernel.read(plan), plan) == ()


def test_reads_everything_again_after_more_events_than_it_could_hear(kernel: LinuxKernel, plan: NodePlan) -> None:
    changes: list[None] = []
    kernel._events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # as little as the kernel gives
    entries = [Neighbour("vxlan0", IPv4Address("10.2.0.0") + number, MAC) for number in range(500)]
    batch = "\n".join(f"neigh add {entry.ip} dev vxlan0 lladdr {entry.mac} nud permanent" for entry in entries)
    shell(kernel, "overlay", f"ip -batch - <<END\n{batch}\nEND")
    kernel.watch(lambda: changes.append(None))
    wait_until(lambda: changes, what="a word about lost events")
    assert {op.item for op in diff(kernel.read(plan), plan) if isinstance(op, Delete)} == set(entries)


def test_does_not_read_again_what_nobody_changed(kernel: LinuxKernel, plan: NodePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = counted_dumps(monkeypatch)
    do(kernel, Delete("task", GATEWAY), Create("overlay", Neighbour("vxlan0", IPv4Address("10.0.0.99"), MAC)))
    extra = Neighbour("vxlan0", IPv4Address("10.0.0.99"), MAC)
    assert diff(kernel.read(plan), plan) == (Create("task", GATEWAY), Delete("overlay", extra))
    assert dumps == []


def test_has_looked_at_what_it_made(kernel: LinuxKernel, plan: NodePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a carrier, which comes some time after a link, is not news."""
    do(kernel, Create(HOST, Link(name="another", kind="bridge")))
    dumps = counted_dumps(monkeypatch)
    assert [op.item.name for op in diff(kernel.read(plan), plan) if isinstance(op, Delete) and isinstance(op.item, Link)] == [
        "another"
    ]
    assert dumps == []


def test_reads_everything_again_when_the_memory_is_old(
    kernel: LinuxKernel, plan: NodePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = counted_dumps(monkeypatch)
    kernel.read(plan)
    assert dumps == []
    monkeypatch.setattr(memory, "MEMORY_S", 0.0)
    assert diff(kernel.read(plan), plan) == ()
    assert len(dumps) == 3 * 7, "links, addresses, rules, neighbours, FDB, our routes and the kernel's of three namespaces"


# --- what is not ours ----------------------------------------------------------------------------------------------


def test_leaves_routes_of_others_alone(kernel: LinuxKernel, plan: NodePlan) -> None:
    shell(kernel, "task", "ip route add 192.0.2.0/24 via 10.0.0.3")
    before = shell(kernel, "task", "ip route")
    assert diff(kernel.read(plan), plan) == ()
    route = replace(DEFAULT_ROUTE, destination=IPv4Network("192.0.2.0/24"))
    (failure,) = kernel.apply([Create("task", route)])
    assert failure.reason == "there is one already that is not routemesh's; its owner must choose another"
    do(kernel, Delete("task", route))
    assert shell(kernel, "task", "ip route") == before


def test_creating_a_route_that_we_have_otherwise_replaces_it(kernel: LinuxKernel, plan: NodePlan) -> None:
    other = replace(DEFAULT_ROUTE, via=IPv4Address("10.0.0.2"))
    do(kernel, Create("task", other), Create("task", other))
    assert diff(kernel.read(plan), plan) == (Change("task", other, DEFAULT_ROUTE),)


def test_a_rule_of_ours_stands_beside_the_same_rule_of_others(kernel: LinuxKernel, plan: NodePlan) -> None:
    rule = replace(RULE, priority=90)
    shell(kernel, "task", f"ip rule add pref 90 fwmark {rule.fwmark}/{rule.mask} lookup {rule.table}")
    before = shell(kernel, "task", "ip rule")
    assert diff(kernel.read(plan), plan) == ()
    do(kernel, Create("task", rule))
    assert diff(kernel.read(plan), plan) == (Delete("task", rule),)
    do(kernel, Delete("task", rule))
    assert shell(kernel, "task", "ip rule") == before


def test_puts_nothing_on_links_of_others(kernel: LinuxKernel, node: Private) -> None:
    node.run("ip", "link", "add", "theirs", "type", "bridge")
    before = node.run("ip", "-details", "address")
    items: tuple[Item, ...] = (Address("theirs", IPv4Interface("10.0.0.1/24")), Neighbour("theirs", IPv4Address("10.0.0.2"), MAC))
    failures = kernel.apply([Create(HOST, item) for item in items])
    assert [failure.reason for failure in failures] == ["link theirs is not routemesh's"] * 2
    do(kernel, *(Delete(HOST, item) for item in items), Delete(HOST, Link(name="theirs", kind="bridge")))
    assert node.run("ip", "-details", "address") == before


def test_leaves_a_link_of_others_alone_that_has_the_name_of_a_peer(kernel: LinuxKernel) -> None:
    do(kernel, Create(HOST, Netns("overlay")), Create(HOST, Netns("task")), Create("overlay", BRIDGE))
    shell(kernel, "task", "ip link add eth0 type bridge")
    before = shell(kernel, "task", "ip link")
    (failure,) = kernel.apply([Create("overlay", PORT)])
    assert failure.reason == "there is a link eth0 that is not routemesh's; its owner must give it another name"
    assert shell(kernel, "task", "ip link") == before


def test_two_owners_in_one_namespace_do_not_see_each_other(kernel: LinuxKernel, tmp_path: Path) -> None:
    ours, theirs = Link(name="ours", kind="bridge", mac=MAC), Link(name="theirs", kind="bridge", mac=MAC)
    address = Address("theirs", IPv4Interface("10.0.0.1/24"))
    route = replace(DEFAULT_ROUTE, link="theirs", via=IPv4Address("10.0.0.9"))
    with closing(LinuxKernel(tmp_path / "lab", owner=LAB)) as lab:
        do(kernel, Create(HOST, ours), Create(HOST, Table("ip")))
        do(lab, Create(HOST, theirs), Create(HOST, address), Create(HOST, route))
        assert set(kernel.read(NodePlan()).namespaces[HOST].values()) == {ours, Table("ip")}
        assert set(lab.read(NodePlan()).namespaces[HOST].values()) == {theirs, address, route}


def test_names_tunnels_and_swarms_in_the_way(
    kernel: LinuxKernel, node: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Link(name=names.GWBRIDGE, kind="bridge")
    wanted = planned({HOST: (gateway,), "overlay": (TUNNEL,)})
    node.run("ip", "link", "add", "flannel", "type", "vxlan", "id", "1", "dstport", "4789", "local", "127.0.0.1")
    node.run("ip", "link", "add", "calico", "type", "vxlan", "id", "4096", "dstport", "9999", "local", "127.0.0.1")
    node.run("ip", "link", "add", names.GWBRIDGE, "type", "bridge")
    monkeypatch.setattr(foreign, "SWARM_SANDBOX", tmp_path / "ingress_sbox")
    tunnels = (
        f"VXLAN device {name} on this node has {what}, which the overlay needs; if it is Docker's, let Docker leave its swarm, "
        f"else its owner must choose another (ip -details link show {name} tells more)"
        for name, what in (("flannel", "UDP port 4789"), ("calico", "VNI 4096"))
    )
    assert kernel.foreign(wanted) == (
        "link docker_gwbridge on this node is not routemesh's, which needs that name: Docker keeps one for its containers "
        "(docker network inspect docker_gwbridge tells which); let them leave that network and Docker its swarm, "
        "or use another machine",
        *tunnels,
    )
    foreign.SWARM_SANDBOX.touch()
    assert "Docker Swarm is active here" in kernel.foreign(wanted)[0]


def test_a_tunnel_that_the_kernel_refuses_says_why(kernel: LinuxKernel, node: Private) -> None:
    node.run("ip", "link", "add", "flannel", "type", "vxlan", "id", "4096", "dstport", "4789", "local", "127.0.0.1")
    do(kernel, Create(HOST, Netns("overlay")))
    (failure,) = kernel.apply([Create("overlay", replace(TUNNEL, master=None))])
    assert failure.reason == "A VXLAN device with the specified VNI already exists"


# --- restarts, threads, descriptors --------------------------------------------------------------------------------


def test_a_new_object_finds_everything_and_leaves_it_alone(kernel: LinuxKernel, plan: NodePlan, tmp_path: Path) -> None:
    with closing(LinuxKernel(tmp_path)) as another:
        assert diff(another.read(plan), plan) == ()
        do(another, *diff(NodePlan(), plan))
        do(another, Delete(HOST, Netns("task")))
        assert namespaces(another) == ["overlay"]
    assert namespaces(kernel) == ["overlay"]


def test_finishes_a_veth_whose_making_was_interrupted(kernel: LinuxKernel) -> None:
    do(kernel, Create(HOST, Netns("overlay")), Create(HOST, Netns("task")), Create("overlay", BRIDGE))
    path = shlex.quote(str(kernel.netns_path("task")))
    shell(kernel, "overlay", f"ip link add port type veth peer name eth0 netns {path} && ip link set port alias routemesh")
    made = shell(kernel, "overlay", "ip -brief link show port").split()[0]
    do(kernel, Create("task", END), Create("overlay", PORT))
    assert shell(kernel, "overlay", "ip -brief link show port").split()[0] == made
    plan = planned({HOST: PLAN[HOST], "overlay": (BRIDGE, PORT), "task": (END,)})
    assert diff(kernel.read(plan), plan) == ()


def test_works_from_any_thread_and_leaves_it_where_it_was(kernel: LinuxKernel, plan: NodePlan) -> None:
    """A namespace belongs to a thread, and the one that calls may be in another than the one that made the object."""
    seen: list[object] = []

    def work() -> None:
        with private_netns() as elsewhere, elsewhere.enter():
            before = os.stat("/proc/thread-self/ns/net").st_ino
            do(kernel, Delete(HOST, Netns("task")))
            do(kernel, *diff(kernel.read(plan), plan))
            seen.append(diff(kernel.read(plan), plan))
            seen.append(os.stat("/proc/thread-self/ns/net").st_ino == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(), True]


def test_lets_go_of_namespaces_that_are_gone(kernel: LinuxKernel, plan: NodePlan) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    do(kernel, Delete(HOST, Netns("task")))
    kernel.read(plan)
    before = descriptors()
    for _ in range(3):
        do(kernel, *diff(kernel.read(plan), plan))
        do(kernel, *diff(kernel.read(plan), plan))
        kernel.read(plan)
        shell(kernel, HOST, f"umount {shlex.quote(str(kernel.netns_path('task')))}")
    do(kernel)
    assert descriptors() == before


def test_close_ends_the_watch(node: Private, tmp_path: Path) -> None:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    kernel = LinuxKernel(tmp_path)
    kernel.watch(lambda: None)
    assert threading.active_count() == before[0] + 1
    kernel.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


# --- what a person sees --------------------------------------------------------------------------------------------


def test_namespaces_are_private_quiet_and_have_a_loopback(kernel: LinuxKernel, plan: NodePlan) -> None:
    assert shell(kernel, "task", "ip -6 address") == ""
    assert "LOOPBACK,UP" in shell(kernel, "task", "ip -brief link show lo")
    assert kernel.netns_path("task").parent.stat().st_mode & 0o077 == 0


def test_a_bridge_keeps_its_mtu_when_ports_with_less_come(kernel: LinuxKernel) -> None:
    plan = planned({HOST: PLAN[HOST], "overlay": (BRIDGE, replace(PORT, mtu=1300)), "task": (replace(END, mtu=1300),)})
    do(kernel, *diff(NodePlan(), plan))
    assert diff(kernel.read(plan), plan) == ()


def test_a_static_entry_is_one_entry(kernel: LinuxKernel, plan: NodePlan) -> None:
    """Not another one for a VLAN, as bridges make by default."""
    assert shell(kernel, "overlay", "bridge fdb show dev port").count(MAC) == 1


def test_the_tunnels_socket_is_in_the_nodes_namespace(kernel: LinuxKernel, plan: NodePlan) -> None:
    assert ":4789" in shell(kernel, HOST, "ss -lun")
    assert ":4789" not in shell(kernel, "overlay", "ss -lun")


def test_a_failures_command_fails_for_a_person_for_the_same_reason(kernel: LinuxKernel, plan: NodePlan) -> None:
    (failure,) = kernel.apply([Create("task", replace(DEFAULT_ROUTE, table=9, via=IPv4Address("192.0.2.1")))])
    done = subprocess.run(failure.command, shell=True, capture_output=True, text=True, timeout=30)  # noqa: S602  # as people do
    assert done.returncode != 0
    assert failure.reason in done.stderr


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Netns("../escape"), "a namespace's name is made of letters, digits, '_', '-' and '.'"),
        (Sysctl("net/../kernel/panic", "1"), "only settings below net/ belong to a namespace"),
        (Sysctl("kernel/panic", "1"), "only settings below net/ belong to a namespace"),
        (replace(BRIDGE, mac="nonsense"), "nonsense is not a MAC address"),
        (replace(BRIDGE, name="a-name-that-is-too-long"), "Attribute failed policy validation"),
        (Link(name="veth0", kind="veth"), "a veth needs its parameters"),
    ],
)
def test_refuses_nonsense(kernel: LinuxKernel, item: Item, reason: str) -> None:
    (failure,) = kernel.apply([Create(HOST, item)])
    assert failure.reason == reason
    assert kernel.read(NodePlan()) == NodePlan()


def test_capabilities(node: Private, tmp_path: Path) -> None:
    node.run("ip", "link", "add", "underlay", "mtu", "1400", "type", "bridge")
    node.run("ip", "address", "add", f"{UNDERLAY}/24", "dev", "underlay")
    node.run("ip", "link", "set", "underlay", "up")
    with closing(LinuxKernel(tmp_path, UNDERLAY)) as kernel:
        found = kernel.capabilities()
    assert (found.mtu_bytes, found.nf_tables, found.kernel) == (1400, True, os.uname().release)


def test_devices_may_have_any_name(kernel: LinuxKernel, node: Private) -> None:
    for name in (b"we+ird~1#", b"\xff\x1b"):
        node.run("ip", "link", "add", os.fsdecode(name), "type", "veth", "peer", "name", f"peer{len(name)}")
    caps = kernel.renewed(kernel.capabilities())
    assert "we+ird~1#" in caps.links
    assert not [link for link in caps.links if "\\" in link], "no setting has the name by which it is shown"
    do(kernel, Create(HOST, Sysctl("net/ipv4/conf/we+ird~1#/forwarding", "1")))


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("GET_LINK", "ip -details link show"),
        ("GET_ADDRESS", "ip address show"),
        ("GET_RULE", "ip rule show"),
        ("GET_ROUTE", "ip route show table all"),
        ("GET_NEIGHBOUR", "ip neighbour show"),
    ],
)
def test_a_read_that_fails_is_told_with_its_own_command_and_cause(
    kind: str, asked: str, kernel: LinuxKernel, plan: NodePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"GET_LINK": links.GET_LINK}.get(kind) or getattr(entries, kind)
    dump = netlink.Requests.dump

    def dump_unless(requests: netlink.Requests, kind: int, body: bytes) -> object:
        if kind == refused:
            raise OSError(EMFILE, os.strerror(EMFILE))
        return dump(requests, kind, body)

    monkeypatch.setattr(netlink.Requests, "dump", dump_unless)
    monkeypatch.setattr(memory, "MEMORY_S", 0.0)
    with pytest.raises(KernelError) as told:
        kernel.read(plan)
    assert (told.value.command, told.value.reason, told.value.errno) == (asked, "Too many open files", EMFILE)


def test_settings_and_namespaces_that_can_not_be_read_are_told_as_such(
    kernel: LinuxKernel, plan: NodePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(EIO, os.strerror(EIO))

    with monkeypatch.context() as patched:
        patched.setattr("routemesh.kernel.sysctl.read", refuse)
        with pytest.raises(KernelError, match=r"sysctl net/\S+.*: Input/output error$"):
            kernel.read(plan)
    monkeypatch.setattr("routemesh.kernel.netns.identities", refuse)
    with pytest.raises(KernelError, match=rf"^ls -l {tmp_path}/netns: Input/output error$"):
        kernel.read(plan)


# --- namespaces of others ------------------------------------------------------------------------------------------


def test_a_namespace_that_was_handed_over_is_taken_and_given_back(kernel: LinuxKernel, node: Private, tmp_path: Path) -> None:
    with private_netns() as theirs:
        kernel.hand_over("task", theirs.path)
        assert namespaces(kernel) == []
        assert len(_held(theirs)) == 1
        wanted = planned(PLAN)
        do(kernel, *diff(kernel.read(wanted), wanted))
        assert diff(kernel.read(wanted), wanted) == ()
        assert kernel.netns_path("task").stat().st_ino == theirs.path.stat().st_ino
        assert "eth0" in theirs.run("ip", "link")
        kernel.hand_over("task", theirs.path)  # once more, as the next daemon does
        assert _held(theirs) == []
        do(kernel, *diff(kernel.read(NodePlan()), NodePlan()))
        wait_until(lambda: "eth0" not in theirs.run("ip", "link"))
        assert not kernel.netns_path("task").exists()


def _held(space: Private) -> list[Path]:
    """This process's descriptors of a namespace."""
    return [file for file in Path("/proc/self/fd").iterdir() if file.exists() and file.stat().st_ino == space.path.stat().st_ino]


def test_a_namespace_is_held_from_the_hand_over_on(kernel: LinuxKernel, node: Private) -> None:
    with private_netns() as theirs:
        number = theirs.path.stat().st_ino
        kernel.hand_over("task", theirs.path)
    do(kernel, Create(HOST, Netns("task")))
    assert kernel.netns_path("task").stat().st_ino == number


def test_a_namespace_that_is_not_wanted_any_more_is_let_go(kernel: LinuxKernel, node: Private) -> None:
    with private_netns() as theirs:
        kernel.hand_over("task", theirs.path)
        kernel.hand_over("task", None)
        assert _held(theirs) == []
        do(kernel, Create(HOST, Netns("task")))
        assert kernel.netns_path("task").stat().st_ino != theirs.path.stat().st_ino


def test_what_no_task_may_have_is_not_taken(kernel: LinuxKernel, node: Private, tmp_path: Path) -> None:
    do(kernel, Create(HOST, Netns("task")))
    mere_file = tmp_path / "mere"
    mere_file.touch()
    with private_netns() as theirs, private_netns() as others:
        kernel.hand_over("other", theirs.path)
        for name, path, reason in (
            ("new", node.path, "the node's own"),
            ("new", mere_file, "no namespace"),
            ("new", tmp_path / "missing", "No such file"),
            ("new", kernel.netns_path("task"), "is task already"),
            ("new", theirs.path, "is other already"),
            ("task", others.path, "another namespace is task already"),
        ):
            with pytest.raises(KernelError, match=reason):
                kernel.hand_over(name, path)
        assert namespaces(kernel) == ["task"]
