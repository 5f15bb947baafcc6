"""The ingress path between two nodes, made by hand of plain commands: what Swarm has in its namespaces, and no more.

    client 192.168.201.100 ── node1 .10 ── docker_gwbridge ── ingress_sbox ── overlay ══ VXLAN ══ overlay of node2 .11 ── task

Port 8080 leads to port 80 of the one task. The client's address is lost, as in Swarm.
Source: ip-link(8), bridge(8), iptables-extensions(8), ipvsadm(8).
"""

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ADDRESS, PORT = "192.168.201.10", 8080
_NETNS = Path("/run/netns")

_WIRE = """
netns add {p}wire
-n {p}wire link add underlay type bridge
-n {p}wire link set underlay up
"""
_MACHINE = """
netns add {p}{name}
-n {p}{name} link set lo up
-n {p}wire link add {name} type veth peer eth0 netns {p}{name}
-n {p}wire link set {name} master underlay up
-n {p}{name} address add {address}/24 dev eth0
-n {p}{name} link set eth0 up
"""
_OVERLAY = """
netns add {p}{name}-overlay
-n {p}{name}-overlay link set lo up
-n {p}{name}-overlay link add br0 mtu 1450 type bridge
-n {p}{name}-overlay link set br0 up
-n {p}{name} link add vxlan0 netns {p}{name}-overlay mtu 1450 type vxlan id 4096 dstport 4789 local {address} proxy
-n {p}{name}-overlay link set vxlan0 master br0 up
-n {p}{name}-overlay neighbour add {remote} lladdr {mac} dev vxlan0 nud permanent
"""
_MEMBER = """
netns add {p}{member}
-n {p}{member} link set lo up
-n {p}{name}-overlay link add {port} mtu 1450 type veth peer eth0 netns {p}{member}
-n {p}{name}-overlay link set {port} master br0 up
-n {p}{member} link set eth0 mtu 1450 address {mac} up
-n {p}{member} address add {overlay}/24 dev eth0
"""
_BRIDGE = """
-n {p}node1 link add docker_gwbridge type bridge
-n {p}node1 address add 172.18.0.1/16 dev docker_gwbridge
-n {p}node1 link set docker_gwbridge up
-n {p}node1 link add gateway type veth peer eth1 netns {p}sandbox
-n {p}node1 link set gateway master docker_gwbridge up
-n {p}sandbox address add 172.18.0.2/16 dev eth1
-n {p}sandbox link set eth1 up
-n {p}sandbox route add default via 172.18.0.1
-n {p}sandbox address add 10.0.0.7/32 dev eth0
"""
_SANDBOX, _TASK = ("10.0.0.2", "02:42:0a:00:00:02"), ("10.0.0.8", "02:42:0a:00:00:08")
_RULES = {
    "node1": (
        "iptables -t nat -N DOCKER-INGRESS",
        f"iptables -t nat -A DOCKER-INGRESS -p tcp -m tcp --dport {PORT} -j DNAT --to-destination 172.18.0.2:{PORT}",
        "iptables -t nat -A DOCKER-INGRESS -j RETURN",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER-INGRESS",
        "iptables -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER-INGRESS",
        "iptables -t nat -A POSTROUTING -o docker_gwbridge -m addrtype --src-type LOCAL -j MASQUERADE",
        "sysctl -qw net.ipv4.ip_forward=1",
    ),
    "sandbox": (
        f"iptables -t mangle -A PREROUTING -p tcp -m tcp --dport {PORT} -j MARK --set-mark 0x100",
        "ipvsadm -A -f 256 -s rr",
        f"ipvsadm -a -f 256 -r {_TASK[0]}:0 -m -w 1",
        "sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.expire_nodest_conn=1 net.ipv4.ip_forward=1",
        "iptables -t nat -A POSTROUTING -d 10.0.0.0/24 -m ipvs --ipvs -j SNAT --to-source 10.0.0.2",
    ),
    "task": (
        f"iptables -t nat -A PREROUTING -d {_TASK[0]}/32 -p tcp -m tcp --dport {PORT} -j REDIRECT --to-ports 80",
        f"iptables -A INPUT -d {_TASK[0]}/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
        f"iptables -A INPUT -d {_TASK[0]}/32 -p tcp -j DROP",
        f"iptables -A OUTPUT -s {_TASK[0]}/32 -p tcp -m tcp --sport 80 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        f"iptables -A OUTPUT -s {_TASK[0]}/32 -p tcp -j DROP",
    ),
    "node1-overlay": (f"bridge fdb add {_TASK[1]} dev vxlan0 dst 192.168.201.11 self permanent",),
    "node2-overlay": (f"bridge fdb add {_SANDBOX[1]} dev vxlan0 dst 192.168.201.10 self permanent",),
}


@contextmanager
def path() -> Iterator[str]:
    """The path, gone afterwards; what all its namespaces are called before their own names (`client`, `task`)."""
    prefix = f"byhand{os.getpid()}-"
    with ExitStack() as stack:
        stack.callback(_remove, prefix)
        for text in _links():
            for line in text.strip().splitlines():
                _run("ip", *shlex.split(line.replace("{p}", prefix)))
        for name, commands in _RULES.items():
            for command in commands:
                _run("ip", "netns", "exec", f"{prefix}{name}", *shlex.split(command))
        yield prefix


def _links() -> Iterator[str]:
    yield _WIRE
    yield _with(_MACHINE, name="client", address="192.168.201.100")
    for name, address, (overlay, mac), member, (remote, remote_mac) in (
        ("node1", ADDRESS, _SANDBOX, "sandbox", _TASK),
        ("node2", "192.168.201.11", _TASK, "task", _SANDBOX),
    ):
        yield _with(_MACHINE, name=name, address=address)
        yield _with(_OVERLAY, name=name, address=address, remote=remote, mac=remote_mac)
        yield _with(_MEMBER, name=name, member=member, port="member", overlay=overlay, mac=mac)
    yield _BRIDGE


def _with(text: str, **values: str) -> str:
    return text.format(p="{p}", **values)


def _remove(prefix: str) -> None:
    for file in _NETNS.glob(f"{prefix}*"):
        subprocess.run(("ip", "netns", "delete", file.name), check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
