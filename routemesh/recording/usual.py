"""What Docker makes of a node's kernel settings, for recordings of a Swarm that were made without sysctl.txt. PURE.

Source: the recorded Swarm (tests/data/swarm, which tests/swarm/test_recording.py compares with this); moby
daemon/libnetwork, osl/namespace_linux.go (ApplyOSTweaks), service_linux.go, drivers/bridge/setup_ip_forwarding.go.
"""

from collections.abc import Iterable, Iterator

from routemesh import names
from routemesh.nodeplan import Sysctl
from routemesh.snapshot import LINK_SYSCTLS

_BALANCING = "net/ipv4/vs/"


def settings(netns: str, links: Iterable[str]) -> Iterator[Sysctl]:
    """Of a namespace ("host", or its name) with these devices."""
    balances = netns in (names.SANDBOX, "host") or netns.startswith("lb_")
    yield Sysctl("net/ipv4/ip_forward", "1")
    yield Sysctl("net/bridge/bridge-nf-call-iptables", "1")
    yield Sysctl(f"{_BALANCING}conntrack", "1" if balances and netns != "host" else "0")
    yield Sysctl(f"{_BALANCING}conn_reuse_mode", "0" if balances else "1")
    yield Sysctl(f"{_BALANCING}expire_nodest_conn", "1" if balances else "0")
    yield Sysctl(f"{_BALANCING}expire_quiescent_template", "1" if balances else "0")
    yield Sysctl(f"{_BALANCING}snat_reroute", "1")
    for link in dict.fromkeys(("all", "default", *links)):
        for name in LINK_SYSCTLS:
            on = name == "forwarding" or (name == "route_localnet" and link == names.GWBRIDGE)
            yield Sysctl(f"net/ipv4/conf/{link}/{name}", str(int(on)))
