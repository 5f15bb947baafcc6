"""What IPVS does to a packet: services by firewall mark, masquerading and direct routing. PURE.

A request is caught on its way to this namespace's own sockets, after mangle and filter INPUT, scheduled, and sent on through the
output and postrouting hooks with the mark that it has; whether the namespace forwards does not matter. Answers of a server to
which packets are masqueraded are caught at the forward hook and get the source that was asked: these must be forwarded.

Source: the kernel's ip_vs_core.c (ip_vs_in_hook, ip_vs_schedule, ip_vs_leave, ip_vs_out_hook, ip_vs_route_me_harder),
ip_vs_proto_tcp.c (tcp_conn_schedule), ip_vs_xmit.c (__ip_vs_get_out_rt, ip_vs_nat_xmit, ip_vs_dr_xmit), ip_vs_nfct.c
(ip_vs_update_conntrack), and the schedulers, ip_vs_*.c.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from routemesh.model import Protocol
from routemesh.nodeplan import IpvsDestination, IpvsService
from routemesh.reasons.ends import LoopbackToServer, NoServer, ServerGone
from routemesh.reasons.events import AnsweredAs, Scheduled, SentToServer
from routemesh.reasons.unclear import BalancedToItself, MethodUnknown, SchedulerUnknown
from routemesh.snapshot import Endpoint, Flow
from routemesh.values import replace
from routemesh.walk.balancer import Balanced
from routemesh.walk.conntrack import flow_of
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import UnknownRule
from routemesh.walk.stack import is_loopback

_FTP_DATA = 20


def schedule(flight: Flight, hook: str) -> None:
    """Send a packet for a virtual service to its real server; leave one that is for none to the sockets (ip_vs_in_hook).

    An error about an answer goes to the server too, also one that would be forwarded (ip_vs_forward_icmp).
    """
    if flight.balanced or (hook == "forward" and not flight.packet.error):
        return
    balancer = flight.trip.balancer(flight.stack.place)
    connection = balancer.requests.get(flow_of(flight.packet))
    if connection is None and flight.packet.error:
        return
    if connection is None:
        connection = _new_connection(flight)
        if connection is None:
            return
        balancer.add(connection)
    elif not any(connection.server.address == server.address for each in flight.stack.servers.values() for server in each):
        flight.drop(ServerGone(connection.server))
    _transmit(flight, hook, connection)


def translate_answer(flight: Flight, hook: str) -> None:
    """Give a real server's answer, or an error about what was sent to it, the source that was asked (ip_vs_out_hook)."""
    stack, packet = flight.stack, flight.packet
    connection = None if flight.balanced else flight.trip.balancer(stack.place).answers.get(flow_of(packet))
    if connection is None:
        return
    asked = connection.asked.destination
    flight.note(AnsweredAs(asked), None, after=replace(packet, source=asked))
    flight.balanced = True
    if not connection.tracked:
        flight.untrack()
    if hook != "input" and stack.reroutes_answers():
        flight.route()


# --- a new connection -----------------------------------------------------------------------------------------------


def _new_connection(flight: Flight) -> Balanced | None:
    packet, stack = flight.packet, flight.stack
    opens = packet.protocol is not Protocol.TCP or ("syn" in packet.flags and "rst" not in packet.flags)
    service = stack.services.get(packet.mark) if packet.mark else None
    if service is None or not opens or packet.source.port == _FTP_DATA:
        return None
    chosen = _chosen(flight, service, stack.servers[service.mark])
    if chosen is None:
        # The socket's own answer, a reset, never comes: IPVS knows no TCP (ip_vs_leave).
        flight.refuse(NoServer(service.mark), service)
    if chosen.method not in ("masq", "route"):
        raise UnknownRule(stack.place, MethodUnknown(service.mark, chosen.address, chosen.method))
    server = Endpoint(chosen.address, chosen.port or packet.destination.port)
    connection = Balanced(flow_of(packet), server, chosen.method == "masq", stack.tracks_balanced())
    direct = chosen.method != "masq"
    flight.note(Scheduled(service.mark, service.scheduler, server.address, direct), chosen)
    return connection


def _chosen(flight: Flight, service: IpvsService, servers: Sequence[IpvsDestination]) -> IpvsDestination | None:
    """The server of a new connection; None where there is none for it."""
    scheduler = _SCHEDULERS.get(service.scheduler)
    if scheduler is None:
        raise UnknownRule(flight.stack.place, SchedulerUnknown(service.mark, service.scheduler))
    ways = [(server, weight) for server in servers if (weight := scheduler.weight(service, server)) > 0]
    if not any(server.weight for server, _ in ways):
        return None
    number = flight.trip.choose([weight for _, weight in ways], estimated=scheduler.estimated)
    server = ways[number][0]
    return server if server.weight else None


# --- schedulers -----------------------------------------------------------------------------------------------------


class _Scheduler(msgspec.Struct, frozen=True):
    """`weight`: how much of the connections a server is given. `estimated`: that depends on hashes or open connections."""

    weight: Callable[[IpvsService, IpvsDestination], int]
    estimated: bool


def _equal(_: IpvsService, server: IpvsDestination) -> int:
    return min(server.weight, 1)


def _weighted(_: IpvsService, server: IpvsDestination) -> int:
    return server.weight


def _hashed(service: IpvsService, server: IpvsDestination) -> int:
    """One of weight 0 keeps a place in the table; without fallback, a client that is hashed there is refused (ip_vs_sh_get)."""
    return server.weight if service.fallback else max(server.weight, 1)


_SCHEDULERS: Mapping[str, _Scheduler] = {
    "rr": _Scheduler(_equal, estimated=False),
    "wrr": _Scheduler(_weighted, estimated=False),
    "lc": _Scheduler(_equal, estimated=True),
    "wlc": _Scheduler(_weighted, estimated=True),
    "sed": _Scheduler(_weighted, estimated=True),
    "nq": _Scheduler(_weighted, estimated=True),
    "sh": _Scheduler(_hashed, estimated=True),
    "mh": _Scheduler(_hashed, estimated=True),
}


# --- to the server --------------------------------------------------------------------------------------------------


def _transmit(flight: Flight, hook: str, connection: Balanced) -> None:
    """By masquerading the packet gets the server's address; by direct routing it goes to the server as it is."""
    stack, packet, server = flight.stack, flight.packet, connection.server
    here = stack.is_local(server.address)
    if here and hook == "output":
        raise UnknownRule(stack.place, BalancedToItself(server.address))
    if not here and is_loopback(packet.source.address):
        flight.drop(LoopbackToServer(packet.source.address))
    flight.balanced = True
    if not here:
        flight.route_to(server.address, 0)  # ip_route_output_key of the address alone
        flight.check_size()
    if connection.translated:
        flight.note(SentToServer(server), None, after=replace(packet, destination=server))
    _let_track(flight, connection)
    flight.taken = not here


def _let_track(flight: Flight, connection: Balanced) -> None:
    """Make replies come in from the server; NAT does not know, so later packets of the connection are IPVS's to translate."""
    tracked, asked = flight.connection, connection.asked
    if not connection.tracked:
        flight.untrack()
    elif connection.translated and tracked is not None and not tracked.confirmed:
        reply = Flow(asked.protocol, connection.server, tracked.reply.destination)
        flight.trip.conntrack(flight.stack.place).expect(tracked, reply)
