"""Reading recordings: everything is understood or named, and damage never passes for absence."""

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.errors import UserError
from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Address,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Link,
    Neighbour,
    Peer,
    Route,
    RoutingRule,
    Sysctl,
    Unknown,
    Vxlan,
    XtChain,
)
from routemesh.recording import cluster, connections, entries, links, routes, tables
from routemesh.recording.read import read
from routemesh.recording.source import Source
from routemesh.snapshot import ClusterSnapshot, Endpoint, Flow, NamedPort, NodeSnapshot, Socket, Unread
from tests.swarm.recorded import DATA, recording

STEPS = (
    "1-no-service",
    "2-service",
    "3-node2-killed",
    "5-overlay",
    *sorted(f"faults/{each.name}" for each in (DATA / "faults").iterdir()),
)
OVERLAY = "1-mwyjqw5o1s"
LEGACY = "host/iptables-legacy-save.txt"


def texts(step: str, node: str) -> dict[str, str]:
    top = DATA / step / node
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


def source(text: str) -> Source:
    return Source("node1/host/file.txt", text, "this")


def all_unread(snapshot: ClusterSnapshot) -> Iterable[Unread]:
    yield from snapshot.unread
    for node in snapshot.nodes.values():
        yield from node.unread
        for namespace in node.namespaces.values():
            yield from namespace.unread


# --- the recordings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_recording_is_understood_to_the_last_line(step: str) -> None:
    closed = "nsenter: reassociate to namespace 'ns/net' failed: Invalid argument"
    usual = "missing: taken as Docker makes them"
    assert {unread.reason for unread in all_unread(recording(step))} <= {
        "missing",
        usual,
        *([closed] if step == "1-no-service" else []),
    }


def test_who_is_who() -> None:
    found = recording("2-service")
    node = found.nodes["swarm1"]
    assert (node.kind, node.engine, node.iptables, node.kernel) == ("swarm", "ipvs", "nft", "6.1.0-50-cloud-amd64")
    assert (node.addresses, node.device) == ((IPv4Address("192.168.77.1"),), "eth0")
    assert set(node.namespaces) == {HOST, OVERLAY, "ingress_sbox", "4f1fb3667fce"}
    assert node.namespaces["ingress_sbox"].path == "/var/run/docker/netns/ingress_sbox"


def test_the_way_through_a_namespace_is_there() -> None:
    node = recording("2-service").nodes["swarm1"]
    sandbox, overlay = node.namespaces["ingress_sbox"], node.namespaces[OVERLAY]
    assert Address("eth0", IPv4Interface("10.0.0.4/32")) in sandbox.items
    assert IpvsService(mark=256, scheduler="rr") in sandbox.items
    assert IpvsDestination(mark=256, address=IPv4Address("10.0.0.6")) in sandbox.items
    assert Sysctl("net/ipv4/vs/conntrack", "1") in sandbox.items
    assert FdbEntry("vxlan0", "02:42:0a:00:00:06", IPv4Address("192.168.77.2")) in overlay.items
    assert Neighbour("vxlan0", IPv4Address("10.0.0.6"), "02:42:0a:00:00:06") in overlay.items
    assert next(link for link in overlay.of(Link) if link.name == "vxlan0").vxlan == Vxlan(4096, IPv4Address(0), 4789, True, True)
    default = Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("172.18.0.1"), link="eth1", protocol=3)
    assert default in sandbox.items
    dockerd = Socket(protocol=Protocol.TCP, address=IPv4Address(0), port=8080, process="dockerd", pid=203, queued=1, backlog=4096)
    assert dockerd in (node.host.sockets or ())


@pytest.mark.parametrize("step", STEPS)
def test_both_ends_of_every_veth_name_each_other(step: str) -> None:
    for node in recording(step).nodes.values():
        veths = {
            (netns, link.name): link for netns, space in node.namespaces.items() for link in space.of(Link) if link.kind == "veth"
        }
        alone = [end for end, link in veths.items() if link.peer is None]
        assert len(alone) == (1 if (step, node.name) == ("1-no-service", "swarm1") else 0)
        for end, link in veths.items():
            if link.peer is not None:
                assert veths[link.peer.netns, link.peer.link].peer == Peer(*end)


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_json_and_text_say_the_same_about_links(node: str) -> None:
    files = texts("2-service", node)
    for path in [path for path in files if path.endswith("ip-addr.json")]:
        as_text = links.read_text(source(files[path.replace(".json", ".txt")]))
        assert links.read_json(source(files[path])) == as_text != ()


def test_a_manager_names_everything() -> None:
    names = recording("faults/00-healthy").names
    dns = next(service for service in names.services if service.name == "dns")
    assert dns.ports == (NamedPort(protocol=Protocol.UDP, published=5353, target=53),)
    assert dns.marks == {"swarm1": 257, "swarm2": 257}
    task = next(task for task in names.tasks if task.name == "web.1")
    assert (task.node, task.netns, task.serving) == ("swarm2", "9c569e2ad052", True)
    assert [(node.name, str(node.ingress_address)) for node in names.nodes] == [("swarm1", "10.0.0.2"), ("swarm2", "10.0.0.3")]


def test_a_container_of_no_service_has_a_name_too() -> None:
    found = {task.name: task for task in recording("5-overlay").names.tasks if not task.service}
    assert {name: (task.node, task.netns) for name, task in found.items()} == {
        "cli1": ("swarm1", "4b8a940d11aa"),
        "cli2": ("swarm2", "3e0e21d2b761"),
    }
    assert [str(address) for address in found["cli1"].addresses.values()] == ["10.0.1.11"]


def test_a_worker_alone_names_what_it_has() -> None:
    found = cluster({"node2": texts("faults/00-healthy", "node2")})
    assert {service.name: service.ports for service in found.names.services} == {
        "dns": (NamedPort(protocol=Protocol.UDP, published=5353, target=53),),
        "web": (NamedPort(protocol=Protocol.TCP, published=8080, target=80),),
    }
    assert {(task.name, task.node, task.netns) for task in found.names.tasks} == {
        ("web.1", "swarm2", "9c569e2ad052"),
        ("dns.1", "swarm2", "e8afeba5159b"),
        ("web.2", "192.168.77.1", ""),
        ("dns.2", "192.168.77.1", ""),
    }
    assert any("manager" in unread.what for unread in found.unread)


def test_a_node_without_a_recording_is_said_to_have_none() -> None:
    nodes = {node.name: node for node in recording("3-node2-killed").names.nodes}
    assert (nodes["swarm2"].absent, nodes["swarm2"].ready, nodes["swarm1"].absent) == ("there is no recording of it", False, "")


# --- formats -----------------------------------------------------------------------------------------------------


def test_routes() -> None:
    text = """default via 10.0.0.1 dev eth0 proto dhcp src 10.0.0.5 metric 100
blackhole 10.9.0.0/16
local 10.0.0.5 dev eth0 table local proto kernel scope host src 10.0.0.5
default via 10.0.0.2 dev eth0 table 82
10.8.0.0/16
\tnexthop via 10.0.0.1 dev eth0 weight 1
\tnexthop via 10.0.0.2 dev eth0 weight 1
fe80::/64 dev eth0 proto kernel metric 256 pref medium
default via fe80::1 dev eth0 metric 1024 pref medium
"""
    found = source(text)
    assert [(str(route.destination), route.kind, route.table, route.metric) for route in routes.read_routes(found)] == [
        ("0.0.0.0/0", "unicast", 254, 100),
        ("10.9.0.0/16", "blackhole", 254, 0),
        ("10.0.0.5/32", "local", 255, 0),
        ("0.0.0.0/0", "unicast", 82, 0),
        ("10.8.0.0/16", "unknown", 254, 0),
    ]
    assert found.unread == []


def test_routing_rules() -> None:
    text = """0:\tfrom all lookup local
82:\tfrom all fwmark 0xa000003 lookup 167772163 proto 82
100:\tnot from 10.0.0.0/8 fwmark 0x1/0xff iif eth0 lookup main
200:\tfrom all to 10.1.0.0/16 blackhole
"""
    found = source(text)
    assert list(routes.read_rules(found)) == [
        RoutingRule(priority=0, fwmark=0, mask=0, table=255, protocol=2),
        RoutingRule(priority=82, fwmark=0xA000003, mask=0xFFFFFFFF, table=167772163),
        RoutingRule(
            priority=100,
            fwmark=1,
            mask=0xFF,
            table=254,
            protocol=0,
            source=IPv4Network("10.0.0.0/8"),
            iif="eth0",
            negate=True,
        ),
        RoutingRule(
            priority=200, fwmark=0, mask=0, table=0, protocol=0, destination=IPv4Network("10.1.0.0/16"), action="blackhole"
        ),
    ]
    assert found.unread == []


def test_ipvs() -> None:
    text = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
FWM  256 wrr persistent 300
  -> 10.0.0.5:0                   Masq    0      3          11
FWM  257 mh (mh-fallback)
TCP  10.0.0.1:80 rr
  -> 10.0.0.9:80                  Masq    1      0          0
"""
    found = source(text)
    assert list(tables.read_ipvs(found)) == [
        IpvsService(mark=256, scheduler="wrr", persistent_s=300),
        IpvsDestination(mark=256, address=IPv4Address("10.0.0.5"), weight=0),
        IpvsService(mark=257, scheduler="mh", fallback=True),
    ]
    assert [unread.what.rpartition(":")[2] for unread in found.unread] == ["7", "8"]
    timeouts = source("Timeout (tcp tcpfin udp): 900 120 300\n")
    assert tables.read_ipvs_timeouts(timeouts) == IpvsTimeouts(tcp_s=900, tcp_fin_s=120, udp_s=300)


def test_a_setting_of_a_device_with_a_dot() -> None:
    found = list(tables.read_sysctls(source("net.ipv4.conf.eth0/100.rp_filter = 1\n")))
    assert found == [Sysctl("net/ipv4/conf/eth0.100/rp_filter", "1")]


def test_conntrack() -> None:
    text = (
        "tcp      6 73 TIME_WAIT src=127.0.0.1 dst=127.0.0.1 sport=50436 dport=8080 src=172.18.0.2 dst=172.18.0.1 sport=8080 "
        "dport=50436 [ASSURED] mark=7 zone-orig=3 use=1\n"
        "udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 mark=0\n"
        "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=3 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=3 mark=0 use=1\n"
    )
    found = source(text)
    tcp, udp = connections.read_conntrack(found)
    client = Endpoint(IPv4Address("127.0.0.1"), 50436)
    assert tcp.original == Flow(Protocol.TCP, client, Endpoint(IPv4Address("127.0.0.1"), 8080))
    assert tcp.status == {"confirmed", "seen-reply", "assured", "snat", "dnat"}
    assert (tcp.zone, tcp.reply_zone, tcp.mark, tcp.state, tcp.timeout_s) == (3, 0, 7, "TIME_WAIT", 73)
    assert (set(udp.status), udp.state) == ({"confirmed"}, "")
    assert found.unread == []


def test_sockets() -> None:
    text = """udp UNCONN 0      0      0.0.0.0:4789 0.0.0.0:*
tcp LISTEN 0      4096         *:8080       *:* users:(("dockerd",pid=203,fd=42))
tcp LISTEN 0      128       [::]:22      [::]:* users:(("sshd",pid=192,fd=4))
udp UNCONN 0      0      127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=9,fd=1))
"""
    found = source(text)
    assert [(str(socket.address), socket.port, socket.process) for socket in connections.read_sockets(found)] == [
        ("0.0.0.0", 4789, ""),
        ("0.0.0.0", 8080, "dockerd"),
        ("::", 22, "sshd"),
        ("127.0.0.53", 53, "systemd-resolve"),
    ]
    assert found.unread == []


@pytest.mark.parametrize(
    ("reader", "line"),
    [
        (routes.read_routes, "10.0.0.0/8 dev eth0 colour blue"),
        (routes.read_rules, "5: from all by moonlight lookup main"),
        (entries.read_neighbours, "10.0.0.1 dev eth0 lladdr 02:42:0a:00:00:01 HUNGRY"),
        (entries.read_fdb, "02:42:0a:00:00:01 dev vxlan0 dst 10.0.0.9 vni 7 self permanent"),
        (tables.read_ipvs, "SCTP 10.0.0.1:80 rr"),
        (tables.read_sysctls, "sysctl: cannot stat /proc/sys/net"),
        (connections.read_conntrack, "tcp 6 73 TIME_WAIT src=10.0.0.1 dst=10.0.0.2"),
        (connections.read_sockets, "tcp ESTAB 0 0 10.0.0.1:80 10.0.0.2:4000"),
        (links.read_text, "    colour blue"),
    ],
)
def test_a_line_that_is_not_understood_is_told(reader: object, line: str) -> None:
    found = source(f"\n{line}\n")
    assert callable(reader)
    assert list(reader(found)) == []
    assert [str(unread) for unread in found.unread] == [
        f"node1/host/file.txt:2 can't be read (not understood: {line.strip()}); without it this can't be told"
    ]


# --- damage ------------------------------------------------------------------------------------------------------

ABOUT = json.dumps({
    "version": 1, "name": "swarm1", "kind": "swarm", "engine": "ipvs", "address": "192.168.77.1",
    "kernel": "6.1", "netns": "/n", "at": 1,
})  # fmt: skip
HEALTHY = {"node1": {**texts("2-service", "node1"), "recording.json": ABOUT}, "node2": texts("2-service", "node2")}
NEEDED = sorted(
    path for path in HEALTHY["node1"]
    if not path.endswith("ip-addr.txt") and path.startswith(("host/", "netns/", "docker/"))
)  # fmt: skip
WHOLE = set(all_unread(cluster(HEALTHY)))


def damaged(path: str, text: str | None) -> ClusterSnapshot:
    files: Mapping[str, str] = {name: found for name, found in HEALTHY["node1"].items() if name != path}
    if path.endswith("ip-addr.json"):
        files = {name: found for name, found in files.items() if name != path.replace(".json", ".txt")}
    return cluster({**HEALTHY, "node1": files if text is None else {**files, path: text}})


@pytest.mark.parametrize("path", NEEDED)
@pytest.mark.parametrize("text", [None, "Segmentation fault\n"])
def test_a_missing_or_broken_file_is_named(path: str, text: str | None) -> None:
    if path.endswith("nft-ruleset.txt") and text is not None:
        return  # its devices of chains are read alone
    told = set(all_unread(damaged(path, text))) - WHOLE
    if path == "docker/info.txt":
        assert "swarm1" in damaged(path, text).nodes
    elif path in ("docker/nodes.json",) and text is None:
        assert any("manager" in unread.what for unread in told)
    else:
        assert any(unread.what.startswith(f"node1/{path}") for unread in told)


@given(path=st.sampled_from(NEEDED), cut=st.floats(0, 1), junk=st.text(max_size=20))
def test_no_damage_ends_the_reading(path: str, cut: float, junk: str) -> None:
    text = HEALTHY["node1"][path]
    at = int(len(text) * cut)
    assert damaged(path, text[:at] + junk + text[at + len(junk) :]).nodes.keys() >= {"swarm2"}


def test_what_a_script_leaves_out_when_it_is_empty_is_empty() -> None:
    files = {path: text for path, text in texts("2-service", "node1").items() if path != "netns/ingress_sbox/ip-neigh.txt"}
    (node,) = cluster({"node1": files}).nodes.values()
    assert [unread.part for unread in node.namespaces["ingress_sbox"].unread] == []
    without_any = {path: text for path, text in files.items() if not path.endswith("ip-neigh.txt")}
    (node,) = cluster({"node1": without_any}).nodes.values()
    assert [unread.part for unread in node.namespaces["ingress_sbox"].unread] == ["neighbours"]


def test_a_node_that_nothing_tells_about_is_called_as_its_directory() -> None:
    worker, manager = (
        {path: text for path, text in texts("2-service", name).items() if path != "docker/info.txt"}
        for name in ("node2", "node1")
    )
    (node,) = cluster({"here": worker}).nodes.values()
    assert (node.name, node.addresses) == ("here", (IPv4Address("192.168.77.2"),))
    assert [unread.what for unread in node.unread] == ["here/docker/info.txt", "here/*/conntrack.txt"]
    assert set(cluster({"here": worker, "there": manager}).nodes) == {"swarm1", "swarm2"}


def test_rules_that_nftables_alone_has_are_told() -> None:
    path = "host/nft-ruleset.txt"
    files = texts("2-service", "node1")
    told = set(all_unread(cluster({"node1": {**files, path: files[path] + "table inet firewalld {\n}\n"}}))) - set(
        all_unread(cluster({"node1": files}))
    )
    assert [unread.reason for unread in told] == ["not understood: table inet firewalld {"]


def test_a_namespace_that_could_not_be_entered_is_one_thing_missing() -> None:
    node: NodeSnapshot = recording("1-no-service").nodes["swarm1"]
    assert "ed49f8fdad3d" not in node.namespaces
    assert [unread.loses for unread in node.unread if unread.part == "all"] == [
        "what is in namespace ed49f8fdad3d",
        "what is in namespace ee4e849e18f6",
    ]


def test_rules_of_every_chain_are_there() -> None:
    chains = {(chain.table, chain.name): chain for chain in recording("2-service").nodes["swarm1"].host.of(XtChain)}
    assert len(chains["nat", "DOCKER-INGRESS"].rules) == 2
    assert chains["filter", "FORWARD"].policy == "DROP"


def test_a_chain_that_both_variants_have_is_not_told_as_one() -> None:
    older = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
    chains = {(chain.table, chain.name): chain for chain in damaged(LEGACY, older).nodes["swarm1"].host.of(XtChain)}
    first = chains["filter", "FORWARD"].rules[0]
    assert first == (Unknown("iptables-legacy has the chain FORWARD too"),)
    assert len(chains["filter", "INPUT"].rules) == 0
    told = set(all_unread(damaged(LEGACY, None)))
    assert any(unread.what == f"node1/{LEGACY}" and unread.part == "filters" for unread in told)


def test_a_directory_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a recording"):
        read([tmp_path])
    with pytest.raises(UserError, match="can't be read: No such file"):
        read([tmp_path / "nowhere"])


def test_a_recording_of_a_later_program_is_told() -> None:
    told = set(all_unread(damaged("recording.json", '{"version": 99}'))) - WHOLE
    assert any("version 99" in unread.reason for unread in told)
