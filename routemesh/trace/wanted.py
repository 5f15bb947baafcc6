"""Which packets to watch for, and where, by what is predicted. PURE."""

from dataclasses import dataclass

from routemesh.errors import Unavailable, UserError
from routemesh.explain.ask import Asked, Target
from routemesh.explain.nouns import Explanation
from routemesh.sightings import Probe, SeenPacket, Sent, Wanted
from routemesh.snapshot import endpoint
from routemesh.values import replace
from routemesh.walk import OUTSIDE

PORTS = range(20_000, 32_000)
"""A probe's own port is one below those that kernels give to others."""
TIMEOUT_S, LIVE_TIMEOUT_S = 2.0, 60.0
SETTLE_S, LIVE_SETTLE_S = 0.03, 0.3
"""So long after the answer, or a live connection's first packet, is still watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What to trace. `outside`: an address from which a probe can be sent though no node has it, "" for none.

    `http` and `host` as in Probe; `live`: nothing is sent, somebody's connection is waited for.
    """

    target: Target
    client: str
    outside: str
    http: str
    host: str
    live: bool
    timeout_s: float


def probe_of(asked: Asked, asking: Asking) -> Probe | None:
    """What is to be sent; None where nothing is. Raises RoutemeshError for what can't be sent."""
    if asking.live:
        return None
    if asked.start == OUTSIDE and str(asked.source.address) != asking.outside:
        raise Unavailable(
            f"{asked.client} is not on a node, so nothing can be sent from there: name a node or a task as client, "
            "or wait for its own packets with --live"
        )
    if asking.http and asked.target.protocol.value != "tcp":
        raise UserError("an HTTP request goes over tcp, not udp")
    return Probe(
        node=asked.start.node,
        namespace=asked.start.netns,
        protocol=asked.target.protocol.value,
        source=str(asked.source),
        destination=str(asked.destination),
        http=asking.http,
        host=asking.host,
        timeout_s=asking.timeout_s,
    )


def _foreseen(prediction: Explanation, asked: Asked) -> Wanted:
    """The probe's connection, with the addresses and ports that it is predicted to get on its way."""
    port = asked.source.port
    ends = [
        (str(end.address), end.port, other)
        for way in prediction.ways
        for step in way.there
        for headers in (step.before, step.after)
        if not headers.vni
        for end, other in [(endpoint(headers.source), endpoint(headers.destination).port)]
    ]
    sources = {str(asked.source.address), *(address for address, number, _ in ends if number == port)}
    ports = {asked.target.port, *_targets(asked), *(other for _, number, other in ends if number == port)}
    return Wanted(
        protocol=asked.target.protocol.value,
        port=port,
        sources=tuple(sorted(sources)),
        ports=tuple(sorted(ports)),
        published=asked.target.port,
    )


def wanted(prediction: Explanation, asked: Asked, asking: Asking) -> Wanted:
    """The probe's connection; live, whatever comes to the port, from the client if one is named."""
    foreseen = _foreseen(prediction, asked)
    if not asking.live:
        return foreseen
    return replace(foreseen, port=0, sources=foreseen.sources if asking.client else ())


def somebodys(seen: SeenPacket) -> Sent:
    """What stands for the probe where nothing was sent: somebody's first packet."""
    headers = seen.headers
    return Sent(outcome="live", what=f"{headers.source} opened a connection to {headers.destination}", at=seen.at, took_s=0.0)


def nobody_came(asking: Asking) -> str:
    """What is said when a live trace saw nothing."""
    wanted = asking.target
    return f"nobody opened a connection to {wanted.node}:{wanted.port}/{wanted.protocol} within {asking.timeout_s:g} s"


def namespaces(prediction: Explanation) -> dict[str, set[str]]:
    """The namespaces of each node that a way leads through, besides the nodes' own."""
    found: dict[str, set[str]] = {}
    for way in prediction.ways:
        for step in (*way.there, *way.back):
            if step.node and step.namespace:
                found.setdefault(step.node, set()).add(step.namespace)
    if prediction.question.client_node and prediction.question.client_namespace:
        found.setdefault(prediction.question.client_node, set()).add(prediction.question.client_namespace)
    return found


def _targets(asked: Asked) -> list[int]:
    ports = () if asked.service is None else asked.service.ports
    return [port.target for port in ports if (port.protocol, port.published) == (asked.target.protocol, asked.target.port)]
