"""What a node lets pass besides its own traffic: the rules are the same in both engines. PURE.

`return` leaves a packet to whatever else there is: in a base chain of nftables it is the policy, which accepts.
"""

from routemesh import names
from routemesh.nodeplan import Capabilities, Match, Rule, Verdict
from routemesh.plan.view import NodeView

_PASS, _DROP = Verdict("return"), Verdict("drop")
_LOOPBACK = "127.0.0.0/8"


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
