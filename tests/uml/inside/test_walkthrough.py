"""The walk through a Swarm's ingress, command by command, on our nodes: what a person types and what it prints, shape by shape.

Two nodes, a service `web` of two replicas, 8080 published. Source: the tutorial that the project starts from.
"""

import json
import re
from collections.abc import Sequence

import pytest

from tests.lab.cluster import ADDRESSES, Cluster

NODES = ("node1", "node2")
COUNTED = r" *\d+[KMG]? +\d+[KMG]? "


def shows(output: str, *shapes: str) -> None:
    """Each shape, a regular expression of whole lines, is there, in this order."""
    lines = iter(output.splitlines())
    for shape in shapes:
        assert any(re.fullmatch(shape, line.rstrip()) for line in lines), f"no line (left) like {shape!r} in:\n{output}"


def chain(output: str, name: str) -> str:
    """One chain's part of what `iptables -nvL` prints."""
    (found,) = (part for part in output.split("\n\n") if part.startswith(f"Chain {name} "))
    return found


def counted(output: str, what: str) -> int:
    """The packets that the rule with these words has counted."""
    (line,) = (line for line in output.splitlines() if what in line)
    return int(line.split()[0])


def hosts(swarm: Cluster, node: str, times: int) -> Sequence[str]:
    """The containers that answered, in order."""
    return [answer.hostname for answer in swarm.ask(ADDRESSES[node], 8080, times)]


@pytest.mark.parametrize("node", NODES)
def test_1_the_node_translates_the_published_port(swarm: Cluster, node: str) -> None:
    nat = swarm.inside(node, "iptables", "-nvL", "-t", "nat")
    ingress = chain(nat, "DOCKER-INGRESS")
    assert ingress.startswith("Chain DOCKER-INGRESS (2 references)\n")
    shows(
        ingress,
        COUNTED + r"DNAT +(tcp|6) +-- +\* +\* +0\.0\.0\.0/0 +0\.0\.0\.0/0 +tcp dpt:8080 to:172\.18\.0\.2:8080",
        COUNTED + r"RETURN +(all|0) +-- +\* +\* +0\.0\.0\.0/0 +0\.0\.0\.0/0",
    )
    to_ingress = COUNTED + r"DOCKER-INGRESS +(all|0) +-- +\* +\* +0\.0\.0\.0/0 +0\.0\.0\.0/0 +ADDRTYPE match dst-type LOCAL.*"
    shows(chain(nat, "PREROUTING"), to_ingress)
    shows(chain(nat, "OUTPUT"), to_ingress)
    local = r"MASQUERADE +(all|0) +-- +\* +docker_gwbridge +0\.0\.0\.0/0 +0\.0\.0\.0/0 +ADDRTYPE match src-type LOCAL.*"
    shows(chain(nat, "POSTROUTING"), COUNTED + local)


@pytest.mark.parametrize("node", NODES)
def test_2_the_bridge_has_its_address(swarm: Cluster, node: str) -> None:
    shows(
        swarm.inside(node, "ip", "a"),
        r"\d+: docker_gwbridge: <[A-Z_,]*UP[A-Z_,]*> mtu 1500 .*",
        r" +inet 172\.18\.0\.1/16 brd 172\.18\.255\.255 scope global docker_gwbridge",
    )


@pytest.mark.parametrize("node", NODES)
def test_3_the_sandbox_is_among_the_containers_of_the_bridge(swarm: Cluster, node: str) -> None:
    (network,) = json.loads(swarm.cli("network", "inspect", "docker_gwbridge", host=node))
    containers = network["Containers"]
    sandbox = containers.pop("ingress-sbox")
    assert sandbox["Name"] == "gateway_ingress-sbox"
    assert (sandbox["IPv4Address"], sandbox["MacAddress"], sandbox["IPv6Address"]) == ("172.18.0.2/16", "02:42:ac:12:00:02", "")
    (task,) = containers.values()
    assert re.fullmatch("gateway_[0-9a-f]{12}", task["Name"])
    assert (task["IPv4Address"], task["MacAddress"], task["IPv6Address"]) == ("172.18.0.3/16", "02:42:ac:12:00:03", "")


@pytest.mark.parametrize("node", NODES)
def test_4_the_sandbox_is_a_namespace_and_no_container(swarm: Cluster, node: str) -> None:
    listed = swarm.cli("container", "ls", "-a", host=node)
    assert "web." in listed
    assert "ingress" not in listed
    assert swarm.inside(f"{node}/ingress_sbox", "readlink", "/proc/self/ns/net") != swarm.inside(
        node, "readlink", "/proc/self/ns/net"
    )


@pytest.mark.parametrize("node", NODES)
def test_5_the_sandbox_is_on_the_bridge_and_on_the_overlay(swarm: Cluster, node: str) -> None:
    info = swarm.json("node", "inspect", node)[0]
    own, vip = info["ingress_address"], swarm.json("service", "inspect", "web")[0]["vip"]
    mac = "02:42:" + ":".join(f"{int(octet):02x}" for octet in own.split("."))
    shows(
        swarm.inside(f"{node}/ingress_sbox", "ip", "a"),
        r"1: lo: <LOOPBACK,UP,LOWER_UP> .*",
        r"\d+: eth0@if\d+: <[A-Z_,]*UP[A-Z_,]*> mtu 1450 .*",
        rf" +link/ether {mac} .*",
        rf" +inet {own}/24 brd 10\.0\.0\.255 scope global eth0",
        rf" +inet {vip}/32 scope global eth0",
        r"\d+: eth1@if\d+: <[A-Z_,]*UP[A-Z_,]*> mtu 1500 .*",
        r" +link/ether 02:42:ac:12:00:02 .*",
        r" +inet 172\.18\.0\.2/16 brd 172\.18\.255\.255 scope global eth1",
    )


@pytest.mark.parametrize("node", NODES)
def test_6_the_sandbox_marks_the_published_port(swarm: Cluster, node: str) -> None:
    mangle = swarm.inside(f"{node}/ingress_sbox", "iptables", "-nvL", "-t", "mangle")
    marked = r"MARK +(tcp|6) +-- +\* +\* +0\.0\.0\.0/0 +0\.0\.0\.0/0 +tcp dpt:8080 MARK set 0x100"
    shows(chain(mangle, "PREROUTING"), COUNTED + marked)
    vip = swarm.json("service", "inspect", "web")[0]["vip"]
    shows(chain(mangle, "INPUT"), COUNTED + rf"MARK +(all|0) +-- +\* +\* +0\.0\.0\.0/0 +{vip} +MARK set 0x100")


@pytest.mark.parametrize("node", NODES)
def test_7_ipvs_balances_the_mark_over_the_containers(swarm: Cluster, node: str) -> None:
    addresses = sorted(task["address"] for task in swarm.serving("web"))
    shows(
        swarm.inside(f"{node}/ingress_sbox", "ipvsadm", "-Ln"),
        r"FWM +256 rr",
        *(rf"  -> {re.escape(address)}:0 +Masq +1 +\d+ +\d+" for address in addresses),
    )


@pytest.mark.parametrize("node", NODES)
def test_8_the_balanced_packet_leaves_by_the_overlay(swarm: Cluster, node: str) -> None:
    own = swarm.json("node", "inspect", node)[0]["ingress_address"]
    shows(
        swarm.inside(f"{node}/ingress_sbox", "ip", "route"),
        r"default via 172\.18\.0\.1 dev eth1.*",
        rf"10\.0\.0\.0/24 dev eth0 proto kernel scope link src {own}",
        r"172\.18\.0\.0/16 dev eth1 proto kernel scope link src 172\.18\.0\.2",
    )


@pytest.mark.parametrize("node", NODES)
def test_9_requests_alternate_over_both_tasks_and_are_counted(swarm: Cluster, node: str) -> None:
    def counters() -> tuple[int, int]:
        nat = swarm.inside(node, "iptables", "-nvL", "-t", "nat")
        mangle = swarm.inside(f"{node}/ingress_sbox", "iptables", "-nvL", "-t", "mangle")
        return counted(chain(nat, "DOCKER-INGRESS"), "dpt:8080"), counted(chain(mangle, "PREROUTING"), "dpt:8080")

    before = counters()
    answered = hosts(swarm, node, 4)
    assert answered[0] != answered[1]
    assert answered == [*answered[:2], *answered[:2]]
    after = counters()
    assert after[0] - before[0] == 4
    assert after[1] - before[1] >= 4


def test_10_the_task_takes_the_port_that_it_listens_on(swarm: Cluster) -> None:
    (task,) = (task for task in swarm.serving("web") if task["node"] == "node2")
    nat = swarm.inside(f"node2/{task['container']}", "iptables", "-nvL", "-t", "nat")
    redirect = rf"REDIRECT +(tcp|6) +-- +\* +\* +0\.0\.0\.0/0 +{task['address']} +tcp dpt:8080 redir ports 80"
    shows(chain(nat, "PREROUTING"), COUNTED + redirect)
