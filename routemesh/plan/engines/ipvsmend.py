"""What a person types where a rule of the `ipvs` engine, or of a Docker Swarm, is missing. PURE."""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

from routemesh import names
from routemesh.language import command
from routemesh.nodeplan import HOST, Change, Create, IpvsDestination, IpvsService, Item, key
from routemesh.plan.engines.entry import Port
from routemesh.snapshot import Endpoint


def to_sandbox(port: Port, sandbox: IPv4Address) -> str:
    """As entry.Mend."""
    to = Endpoint(sandbox, port.number)
    return f"iptables -t nat -I {names.INGRESS_CHAIN} {_matching(port)} -j DNAT --to-destination {to}"


def mark(sandbox: Iterable[Item], tasks: Collection[IPv4Address], told: int | None) -> int | None:
    """As entry.Mend; None where IPVS does not balance."""
    items = tuple(sandbox)
    if not any(isinstance(item, IpvsService) for item in items):
        return None
    return next((item.mark for item in items if isinstance(item, IpvsDestination) and item.address in tasks), told)


def to_balancer(port: Port, mark: int) -> str:
    """As entry.Mend."""
    return f"iptables -t mangle -A PREROUTING {_matching(port)} -j MARK --set-mark {mark:#x}"


def to_target(port: Port, address: IPv4Address, target: int) -> str:
    """As entry.Mend."""
    return f"iptables -t nat -A PREROUTING -d {address} {_matching(port)} -j REDIRECT --to-ports {target}"


def to_task(sandbox: Iterable[Item], mark: int, address: IPv4Address) -> str:
    """As entry.Mend."""
    wanted = IpvsDestination(mark=mark, address=address)
    there = next((item for item in sandbox if isinstance(item, IpvsDestination) and key(item) == key(wanted)), None)
    return command(Create(HOST, wanted) if there is None else Change(HOST, there, wanted))


def _matching(port: Port) -> str:
    return f"-p {port.protocol} -m {port.protocol} --dport {port.number}"
