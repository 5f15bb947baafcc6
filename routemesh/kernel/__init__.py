"""The node's kernel: the contract of the only code that touches it.

All methods are synchronous and are called from one thread (rules 3 and 4): a network namespace belongs to a thread.
"""

from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol

from routemesh.model import Listener
from routemesh.model import Protocol as L4
from routemesh.nodeplan import Capabilities, Element, Failure, NodePlan, Op
from routemesh.nodeplan.ranges import Occupied


class Kernel(Protocol):
    """What the agent needs of a kernel."""

    def capabilities(self) -> Capabilities:
        """What this kernel offers; probed anew at each call."""
        ...

    def renewed(self, caps: Capabilities) -> Capabilities:
        """The same, with what may change at any time as it is now: links and forwarding."""
        ...

    def underlay_mtu(self) -> int:
        """The MTU of the link that has the node's address, in bytes; 0 where none that is up has it. Raises KernelError."""
        ...

    def read(self, want: NodePlan) -> NodePlan:
        """Everything of ours that the kernel has, in every namespace of ours whether wanted or not.

        Ours: our namespaces (below the run directory); links with our alias; addresses, permanent neighbours and permanent
        FDB entries on them; routes and rules of ROUTE_PROTOCOL; tables named `routemesh`; in the sandbox, IPVS's services by
        firewall mark; of iptables, in the node's namespace, rules with the comment `routemesh`, and chains of our names beside
        them or wanted, in the others everything. Of sysctls and IPVS's timeouts, just those that `want` names. Where iptables is
        neither wanted nor was found at the first look, it is not looked at again.
        """
        ...

    def apply(self, ops: Sequence[Op]) -> tuple[Failure, ...]:
        """Carry out what `diff` found, in the order given; nftables ops of one namespace are one atomic transaction, and so are
        those on one table of iptables.

        A failed op does not stop the others (rule 9). Idempotent: what is already so is not a failure.
        """
        ...

    def flush_flows(self, netns: str, protocol: L4, pool: IPv4Network, keep: Collection[IPv4Address]) -> int:
        """Delete conntrack entries of `protocol` in `netns` whose reply comes from an address of `pool` that is not in `keep`.

        Returns how many there were.
        """
        ...

    def flush_untranslated(self, netns: str, protocol: L4, ports: Collection[int]) -> int:
        """Delete conntrack entries of `protocol` to one of `ports` that were made before the port was published (no DNAT)."""
        ...

    def unfinished(self, netns: str) -> int:
        """How many TCP connections `netns` has whose other end has not been told all; 0 where there is no such namespace."""
        ...

    def reset(self, netns: str) -> int:
        """Reset them, so that their other ends hear of it; how many."""
        ...

    def learned(self, netns: str) -> tuple[Element, ...]:
        """What packets have added to nftables maps (Learn) in `netns`, which `read` leaves out; () where there is none."""
        ...

    def unlearn(self, netns: str, elements: Sequence[Element]) -> None:
        """Delete such entries, one by one or many; fine when they are gone."""
        ...

    def occupied(self) -> tuple[Occupied, ...]:
        """What address ranges the node's own namespace has, by addresses and routes that are not ours."""
        ...

    def listeners(self) -> tuple[Listener, ...]:
        """Who listens on TCP ports or is bound to UDP ports in the node's namespace, this process excepted."""
        ...

    def foreign(self, want: NodePlan) -> tuple[str, ...]:
        """What stands in the way of `want`, one sentence each: a link of a wanted name without our alias, another's VXLAN
        device on our UDP port or VNI, an active Docker Swarm (its docker_gwbridge, its ingress_sbox below /run/docker/netns)."""
        ...

    def hand_over(self, name: str, namespace: Path | None) -> None:
        """When a namespace `name` is made next, take the one at `namespace`, which somebody else has made; None: make one again.

        It is held until then. Fine when it has that name already. Raises KernelError: there is none, it is the node's own or has
        another name of ours, or another one has that name.
        """
        ...

    def netns_path(self, name: str) -> Path:
        """The file by which a namespace of ours can be entered: `nsenter --net=PATH`."""
        ...

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` (from any thread) soon after anybody but us changed something in the node's or our namespaces."""
        ...

    def close(self) -> None:
        """Let go of sockets; what is in the kernel stays."""
        ...
