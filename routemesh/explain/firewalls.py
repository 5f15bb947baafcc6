"""Whose rules they are, by the names that tools give their chains and tables; and how a tool is told to let something pass. PURE.

Source: firewalld (src/firewall/core/nftables.py, ipXtables.py), ufw (src/backend_iptables.py), moby (daemon/libnetwork/iptables,
"Packet filtering and firewalls"), netavark, libvirt (network/bridge_driver_linux), fail2ban, kube-proxy, Calico, csf.
"""

import re
from collections.abc import Iterable

from routemesh.model import VXLAN_PORT
from routemesh.nodeplan import BUILT_IN, Chain, Item, Rule, XtChain
from routemesh.walk import Packet

_TOOLS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("firewalld", re.compile(r"firewalld|(IN|OUT|FWD|FWDI|FWDO|PRE|POST)_\w+|(INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING)_\w+")),
    ("ufw", re.compile(r"ufw6?-.+")),
    ("Docker", re.compile(r"DOCKER(-(USER|FORWARD|ISOLATION.*|CT|BRIDGE|INTERNAL))?|docker-bridges")),
    ("Podman", re.compile(r"NETAVARK.*|netavark|CNI-.+")),
    ("kube-proxy", re.compile(r"KUBE-.+|kube-proxy")),
    ("Calico", re.compile(r"cali-.+|calico")),
    ("Cilium", re.compile(r"(OLD_)?CILIUM_.+")),
    ("libvirt", re.compile(r"LIBVIRT_.+|libvirt_network")),
    ("fail2ban", re.compile(r"f2b-.+")),
    ("csf", re.compile(r"LOCAL(INPUT|OUTPUT)|DENY(IN|OUT)|ALLOW(IN|OUT)|LOGDROP(IN|OUT)")),
)  # fmt: skip


def by_whom(item: Chain | XtChain, rule: Rule | None, there: Iterable[Item]) -> str:
    """The tool that a chain is of, by its name or its table's; "" for nobody known.

    A rule in a built-in chain may be anybody's; its policy (no `rule`) is that of the one tool which has chains beside it.
    """
    if isinstance(item, Chain):
        return _named(item.table) or _named(item.name)
    if item.name not in BUILT_IN.get(item.table, ()):
        return _named(item.name)
    if rule is not None:
        return ""
    beside = (_named(each.name) for each in there if isinstance(each, XtChain) and each.table == item.table)
    found = [tool for tool in dict.fromkeys(beside) if tool]
    return found[0] if len(found) == 1 else ""


def _named(name: str) -> str:
    return next((tool for tool, pattern in _TOOLS if pattern.fullmatch(name)), "")


def letting_pass(tool: str, packet: Packet) -> str:
    """The command by which the tool lets packets like this one through; "" where it is not known."""
    to, port, protocol = packet.destination.address, packet.destination.port, packet.protocol
    tunnel = packet.inner is not None and port == VXLAN_PORT
    match tool:
        case "ufw" if tunnel:
            return f"ufw allow {port}/{protocol}"
        case "ufw":
            return f"ufw route allow proto {protocol} to {to} port {port}"
        case "firewalld" if tunnel:
            return f"firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload"
        case "firewalld":
            zone = "firewall-cmd --permanent --zone=trusted --add-interface=docker_gwbridge"
            return f"{zone} && firewall-cmd --reload"
        case "Docker":
            return f"iptables -I DOCKER-USER -p {protocol} -d {to} --dport {port} -j ACCEPT"
        case _:
            return ""
