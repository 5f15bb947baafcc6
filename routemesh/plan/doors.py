"""What a node lets pass besides its own traffic: the rules are the same in both engines. PURE.

`return` leaves a packet to whatever else there is: in a base chain of nftables it is the policy, which accepts.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from routemesh import names
from routemesh.nodeplan import Capabilities, Chain, Element, Hook, InSet, Item, Key, Map, Match, Rule, Table, Verdict
from routemesh.plan.view import NodeView

_PASS, _DROP = Verdict("return"), Verdict("drop")
_LOOPBACK = "127.0.0.0/8"
_BEFORE_ALL = -300
"""The priority of ebtables' nat table (NF_BR_PRI_NAT_DST_BRIDGED), ahead of br_netfilter, which translates."""


def forwarding(view: NodeView, caps: Capabilities) -> tuple[Rule, ...]:
    """Into docker_gwbridge goes what was published and what answers; out of it what is of its own range.

    What is forwarded between other devices is their owner's affair, and forbidden where he has not switched it on: devices
    forward so that published ports are reached by them, which must not make a router of the node.
    """
    into, out = Match("oifname", names.GWBRIDGE), Match("iifname", names.GWBRIDGE)
    mesh: tuple[Rule, ...] = (
        (into, Match("ct state", "established,related"), _PASS),
        (into, Match("ct status", "dnat"), _PASS),
        (into, _DROP),
        (Match("ip saddr", str(view.cluster.gwbridge_subnet), negate=True), out, _DROP),
    )
    return mesh if caps.forwards else (*mesh, (out, _PASS), (_DROP,))


def tunnel(view: NodeView) -> Rule:
    """What comes for the overlays' VXLAN devices, which take a frame from anybody: only peers may send any.

    No other device of the node's namespace has the port (see Kernel.foreign).
    """
    return Match("meta l4proto", "udp"), Match("th dport", str(view.cluster.vxlan_port))


def loopback() -> tuple[Rule, ...]:
    """docker_gwbridge routes loopback addresses, for answers to the node's own 127.0.0.1, which never are on the wire.

    Before connection tracking gives answers their destination back.
    """
    out = Match("iifname", names.GWBRIDGE)
    return ((Match("ip daddr", _LOOPBACK), out, _DROP), (Match("ip saddr", _LOOPBACK), out, _DROP))


def ports(caps: Capabilities, tasks: Iterable[tuple[str, IPv4Address]]) -> Iterator[Item]:
    """What the ports of tasks let into a bridge: IPv4 and ARP from the task's own MAC and address; tasks are (port, address).

    So nothing of IPv6, no router advertisement either. Other ports, and the ports of others' bridges, are not affected.
    """
    if not caps.bridge_tables:
        return
    sender: tuple[Key, ...] = (
        ("iifname", "ether saddr", "ip saddr"),
        ("iifname", "ether saddr", "arp saddr ip"),
        ("iifname", "arp saddr ether", "arp saddr ip"),
    )
    packet, frame, said = (InSet(key, "senders") for key in sender)
    rules: tuple[Rule, ...] = (
        (packet, Verdict("accept")),
        (frame, said, Verdict("accept")),
        (InSet(("iifname",), "guarded"), _DROP),
    )
    yield Table("bridge")
    yield Map("bridge", "senders", ("link", "mac", "ip"))
    yield Map("bridge", "guarded", ("link",))
    yield Chain("bridge", "filter-prerouting", Hook("filter", "prerouting", _BEFORE_ALL), rules)
    for port, address in tasks:
        yield Element("bridge", "senders", (port, names.mac(address), address))
        yield Element("bridge", "guarded", (port,))
