"""What a Swarm lacks is named with the command that makes it; a healthy one lacks nothing."""

import json
from collections.abc import Iterator

import pytest

from routemesh.doctor import Severity
from routemesh.doctor.facts import Difference
from routemesh.doctor.mesh import findings, recorded
from routemesh.language.xtrule import rule_text
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    Item,
    Link,
    Neighbour,
    Route,
    Sysctl,
    XtChain,
)
from routemesh.recording.expected import lacking
from routemesh.recording.read import read
from routemesh.snapshot import ClusterSnapshot, Names, Unread
from routemesh.values import replace
from tests.swarm.differences import ROWS, Row
from tests.swarm.recorded import DATA, compare, recording

NODE = "swarm1"


HEALTHY = ("1-no-service", "2-service", "3-node2-killed", "4-udp-host-ports", "5-overlay", "faults/00-healthy")


@pytest.mark.parametrize("step", HEALTHY)
def test_a_healthy_swarm_lacks_nothing(step: str) -> None:
    assert lacking(recording(step)) == {node: [] for node in recording(step).nodes}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.object)
def test_what_a_swarm_does_otherwise_than_routemesh_is_not_reported(row: Row) -> None:
    shown = [(step, node) for step in HEALTHY for node in recording(step).nodes if any(map(row.shows, compare(step, node)))]
    assert shown, "no recording of a healthy Swarm has it"
    assert [lack for step, node in shown for lack in lacking(recording(step))[node]] == []


@pytest.mark.parametrize("step", HEALTHY)
def test_doctor_finds_nothing_wrong_in_a_healthy_swarm(step: str) -> None:
    cluster = recording(step)
    told = findings(cluster, recorded(lacking(cluster)))
    wrong = [each for each in told if each.state is Severity.WRONG or each.ours]
    assert told and [each for each in wrong if "diff 8086/tcp" not in each.effect] == [], "nothing listened where that leads"


def test_a_swarm_is_never_told_of_routemeshs_own_commands() -> None:
    for fault in FAULTS:
        cluster = recording(f"faults/{fault}")
        found = findings(cluster, recorded(lacking(cluster)))
        assert Severity.WRONG in {each.state for each in found}, fault
        for each in found:
            assert not each.ours and "routemesh" not in each.fix and " more" not in each.fix


FAULTS = {
    "09-ipvs-dest-weight-0": ("ingress_sbox", "ipvsadm -e -f 256 -r 10.0.0.5:0 -m -w 1"),
    "13-fdb-wrong-vtep": (
        "1-po75a2uo3p",
        "bridge fdb replace 02:42:0a:00:00:05 dev vxlan0 dst 192.168.77.2 self permanent",
    ),
    "15b-neigh-wrong-mac-cache-flushed": (
        "1-po75a2uo3p",
        "ip neighbour replace 10.0.0.5 dev vxlan0 lladdr 02:42:0a:00:00:05 nud permanent protocol 82",
    ),
    "19b-sbox-veth-off-bridge": (HOST, "ip link set veth7e83a91 master docker_gwbridge"),
    "01-dnat-deleted": (HOST, "-I DOCKER-INGRESS 2 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080"),
    "08-ipvs-dest-deleted": ("ingress_sbox", "ipvsadm -a -f 256 -r 10.0.0.5:0 -m -w 1"),
    "12-fdb-deleted": (
        "1-po75a2uo3p",
        "bridge fdb add 02:42:0a:00:00:05 dev vxlan0 dst 192.168.77.2 self permanent",
    ),
    "21-task-redirect-deleted": (
        "9c569e2ad052",
        "iptables -t nat -I PREROUTING 1 -d 10.0.0.5/32 -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_what_is_lacking(fault: str) -> None:
    told = json.loads((DATA / "faults" / fault / "fault.json").read_text())
    netns, command = FAULTS[fault]
    (lack,) = [(node, each) for node, found in lacking(recording(f"faults/{fault}")).items() for each in found]
    assert (lack[0].replace("swarm", "node"), lack[1].netns or "host") == (told["broken_node"], told["broken_namespace"])
    assert lack[1].netns == netns
    assert lack[1].command.endswith(command)


# --- each thing taken away ---------------------------------------------------------------------------------------


def without(netns: str, item: Item, instead: Item | None = None) -> ClusterSnapshot:
    cluster = recording("2-service")
    node = cluster.nodes[NODE]
    space = node.namespaces[netns]
    items = tuple(each for each in (instead if other == item else other for other in space.items) if each is not None)
    spaces = {**node.namespaces, netns: replace(space, items=items)}
    return replace(cluster, nodes={**cluster.nodes, NODE: replace(node, namespaces=spaces)})


def needed() -> Iterator[tuple[str, Item]]:
    """What the mesh can't do without in each namespace of a node; docker0, the machine's own device and DNS are none of it."""
    for netns, space in recording("2-service").nodes[NODE].namespaces.items():
        for item in space.items:
            match item:
                case IpvsService() | IpvsDestination() | Neighbour(state="permanent") | FdbEntry(kind="static"):
                    yield netns, item
                case Address(link=link) | Route(link=link, protocol=3) if link not in ("lo", "docker0") and (
                    netns or link != "eth0"
                ):
                    yield netns, item
                case Sysctl("net/ipv4/ip_forward") if netns in (HOST, "ingress_sbox"):
                    yield netns, item


MADE_BY: dict[type[Item], str] = {
    IpvsService: "ipvsadm -A ",
    IpvsDestination: "ipvsadm -a ",
    Neighbour: "ip neighbour ",
    FdbEntry: "bridge fdb ",
    Address: "ip address add ",
    Route: "ip route ",
    Sysctl: "sysctl -w ",
}
"""By which command each kind comes back."""


def named(item: Item) -> str:
    """The word of an item by which the command that makes it must name it."""
    match item:
        case IpvsService(mark=mark):
            return f"-f {mark} "
        case IpvsDestination() | Address():
            return str(item.address)
        case Neighbour():
            return str(item.ip)
        case FdbEntry():
            return item.mac
        case Route():
            return f"dev {item.link}"
        case Sysctl():
            return item.path
        case _:
            raise AssertionError(item)


def is_told(cluster: ClusterSnapshot, netns: str) -> list[Difference]:
    return [lack for lack in lacking(cluster)[NODE] if lack.netns == netns]


@pytest.mark.parametrize(("netns", "item"), list(needed()))
def test_whatever_is_taken_away_is_told(netns: str, item: Item) -> None:
    (lack,) = is_told(without(netns, item), netns)
    command = MADE_BY[type(item)]
    assert command in lack.command and named(item) in lack.command, lack


def rules() -> Iterator[tuple[str, XtChain, int]]:
    engine = (
        "DOCKER",
        "DOCKER_OUTPUT",
        "DOCKER_POSTROUTING",
        "DOCKER-USER",
        "DOCKER-ISOLATION-STAGE-1",
        "DOCKER-ISOLATION-STAGE-2",
    )
    for netns, space in recording("2-service").nodes[NODE].namespaces.items():
        for chain in space.of(XtChain):
            for place, rule in enumerate(chain.rules):
                if chain.name not in engine and not any(name in str(rule) for name in ("docker0", "127.0.0.11", "chain='DOCKER")):
                    yield netns, chain, place


@pytest.mark.parametrize(("netns", "chain", "place"), list(rules()))
def test_a_rule_that_is_taken_away_is_told(netns: str, chain: XtChain, place: int) -> None:
    rest = replace(chain, rules=chain.rules[:place] + chain.rules[place + 1 :])
    (lack,) = is_told(without(netns, chain, rest), netns)
    assert f"iptables -t {chain.table} -I {chain.name} " in lack.command


def links() -> Iterator[tuple[str, Link]]:
    for netns, space in recording("2-service").nodes[NODE].namespaces.items():
        yield from (
            (netns, link) for link in space.of(Link) if link.kind in ("bridge", "veth", "vxlan") and link.name != "docker0"
        )


@pytest.mark.parametrize(("netns", "link"), list(links()))
def test_a_device_that_is_down_or_too_small_or_no_port_is_told(netns: str, link: Link) -> None:
    down = is_told(without(netns, link, replace(link, up=False)), netns)
    small = is_told(without(netns, link, replace(link, mtu=1000)), netns)
    assert [lack.command.rpartition("ip link set ")[2] for lack in (*down, *small)] == [
        f"{link.name} up",
        f"{link.name} mtu {link.mtu}",
    ]
    if link.master:
        (alone,) = is_told(without(netns, link, replace(link, master=None)), netns)
        assert alone.command.endswith(f"{link.name} master {link.master}")


def marks() -> Iterator[tuple[XtChain, int]]:
    for chain in recording("2-service").nodes[NODE].namespaces["ingress_sbox"].of(XtChain):
        yield from ((chain, place) for place, rule in enumerate(chain.rules) if isinstance(rule[-1], Assign))


@pytest.mark.parametrize(("chain", "place"), list(marks()))
def test_a_rule_with_another_mark_is_taken_out_and_put_in(chain: XtChain, place: int) -> None:
    """Put in before the wrong one, the right mark would be overwritten by it."""
    right = chain.rules[place]
    wrong = (*right[:-1], Assign("meta mark", 999))
    other = replace(chain, rules=(*chain.rules[:place], wrong, *chain.rules[place + 1 :]))
    (lack,) = is_told(without("ingress_sbox", chain, other), "ingress_sbox")
    first, then = lack.command.split(" && ")
    assert f"iptables -t mangle -D {chain.name} " in first and first.endswith("--set-xmark 0x3e7/0xffffffff")
    assert f"iptables -t mangle -I {chain.name} {place + 1} " in then
    assert lack.what == f"rule '{rule_text(wrong)}' in mangle {chain.name} should be '{rule_text(right)}'"


def test_another_scheduler_is_changed() -> None:
    item = next(each for each in recording("2-service").nodes[NODE].namespaces["ingress_sbox"].of(IpvsService))
    (lack,) = is_told(without("ingress_sbox", item, replace(item, scheduler="sh")), "ingress_sbox")
    assert "ipvsadm -E -f 256 -s rr" in lack.command and "has scheduler sh instead of rr" in lack.what


def test_a_weight_is_told() -> None:
    item = next(each for each in recording("2-service").nodes[NODE].namespaces["ingress_sbox"].of(IpvsDestination))
    (lack,) = is_told(without("ingress_sbox", item, replace(item, weight=0)), "ingress_sbox")
    assert lack.what == f"IPVS destination {item.address} of FWM 256 has weight 0 instead of 1"


def test_nothing_is_said_of_what_was_not_read_or_of_whom_nobody_knows() -> None:
    cluster = without("ingress_sbox", IpvsService(mark=256, scheduler="rr"))
    node = cluster.nodes[NODE]
    closed = replace(node.namespaces["ingress_sbox"], unread=(Unread("ipvsadm", "gone", "how", "balancing"),))
    unread = replace(cluster, nodes={NODE: replace(node, namespaces={**node.namespaces, "ingress_sbox": closed})})
    assert lacking(unread) == {NODE: []}
    assert lacking(replace(cluster, names=Names())) == {}


def test_a_kernel_without_ipvs_is_told_first() -> None:
    cluster = recording("2-service")
    node = cluster.nodes[NODE]
    space = node.namespaces["ingress_sbox"]
    items = tuple(
        item
        for item in space.items
        if not isinstance(item, IpvsService | IpvsDestination) and not (isinstance(item, Sysctl) and "/vs/" in item.path)
    )
    spaces = {**node.namespaces, "ingress_sbox": replace(space, items=items)}
    found = lacking(replace(cluster, nodes={NODE: replace(node, namespaces=spaces)}))[NODE]
    assert [lack.command.rpartition(" ")[0] for lack in found[:2]] == [
        "modprobe",
        "nsenter --net=/var/run/docker/netns/ingress_sbox ipvsadm -A -f 256 -s",
    ]
    assert [lack.what for lack in found].count("IPVS is not there: nothing balances connections") == 1


@pytest.mark.parametrize("step", ["2-service", "faults/00-healthy", "5-overlay"])
def test_a_worker_alone_lacks_nothing(step: str) -> None:
    assert lacking(read([DATA / step / "node2"])) == {"swarm2": []}


def test_a_workers_fault_is_told_without_a_manager() -> None:
    (node,) = lacking(read([DATA / "faults" / "21-task-redirect-deleted" / "node2"])).values()
    assert [lack.netns for lack in node] == ["9c569e2ad052"]
