"""In what routemesh's ipvs engine differs from Swarm: each difference with its reason, and how to tell it in a comparison.

docs/swarm.md has the table that `table()` makes; tests/swarm/test_golden.py insists on it, and that recordings show every row.
"""

from collections.abc import Callable
from dataclasses import dataclass

from routemesh import names
from routemesh.nodeplan import (
    Address,
    Assign,
    Chain,
    ClampMss,
    Element,
    FdbEntry,
    IpvsMatch,
    IpvsTimeouts,
    Link,
    Map,
    Masquerade,
    Match,
    Neighbour,
    Route,
    RoutingRule,
    Statement,
    Sysctl,
    Table,
    Verdict,
)
from routemesh.plan.engines.ipvs import RETURN_CHAIN, RETURN_PRIORITY
from tests.swarm.recorded import Difference, Placed, Policy

ENGINE_CHAINS = ("DOCKER", "DOCKER-USER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2")
DNS = "127.0.0.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table. `kept`: it is there only for services whose clients' addresses are kept."""

    object: str
    swarm: str
    routemesh: str
    why: str
    shows: Callable[[Difference], bool]
    kept: bool = False


def table() -> str:
    """The rows as docs/swarm.md has them."""
    lines = (f"| {row.object} | {row.swarm} | {row.routemesh} | {row.why} |" for row in ROWS)
    return "\n".join(["| object | Swarm | routemesh | why |", "|---|---|---|---|", *lines, ""])


def _rule(fact: object) -> tuple[Statement, ...]:
    return fact.rule if isinstance(fact, Placed) else ()


def _says(fact: object, *statements: Statement) -> bool:
    """Whether a fact is a rule with all of these statements."""
    return bool(statements) and all(statement in _rule(fact) for statement in statements)


def _has(fact: object, *kinds: type) -> bool:
    """Whether a fact is a rule with a statement of each of these kinds."""
    return all(any(isinstance(statement, kind) for statement in _rule(fact)) for kind in kinds)


def _of_docker0(difference: Difference) -> bool:
    fact = difference.swarm
    if difference.ours is not None:
        return False
    if isinstance(fact, Link | Address):
        return "docker0" in (getattr(fact, "name", ""), getattr(fact, "link", ""))
    return any(isinstance(part, Match) and part.value == "docker0" for part in _rule(fact))


def _of_the_machine(difference: Difference) -> bool:
    fact = difference.swarm
    return difference.role == "host" and difference.ours is None and (
        (isinstance(fact, Link) and fact.kind == "other") or (isinstance(fact, Address | Route) and fact.link == "eth0")
    )  # fmt: skip


def _of_engine_chains(difference: Difference) -> bool:
    fact = difference.swarm
    if difference.role != "host" or difference.ours is not None or not isinstance(fact, Placed):
        return False
    jumps = [part.chain for part in fact.rule if isinstance(part, Verdict) and part.kind == "jump"]
    return fact.chain in ENGINE_CHAINS or any(chain in ENGINE_CHAINS for chain in jumps)


def _of_dns(difference: Difference) -> bool:
    values = [part.value for part in _rule(difference.swarm) if isinstance(part, Match)]
    return difference.ours is None and DNS in values


def _of_encryption(difference: Difference) -> bool:
    return difference.role == "host" and difference.ours is None and "--u32" in str(difference.swarm)


def _left_over(difference: Difference) -> bool:
    fact = difference.swarm
    return difference.ours is None and isinstance(fact, Link) and fact.kind == "veth" and fact.peer is None


def _return_path(difference: Difference) -> bool:
    fact = difference.ours
    match fact:
        case Placed(table="mangle", chain=chain):
            return (
                chain == RETURN_CHAIN or _says(fact, Verdict("jump", RETURN_CHAIN)) or _says(fact, Assign("meta mark", "ct mark"))
            )
        case RoutingRule(priority=priority):
            return priority == RETURN_PRIORITY
        case Route(table=table):
            return table != 254
        case _:
            return False


def _udp_source(difference: Difference) -> bool:
    fact = difference.ours
    if isinstance(fact, Route):
        return difference.role == "task" and difference.changed == {"protocol", "source"}
    through = (Match("iifname", names.GWBRIDGE_LINK), Match("oifname", names.GWBRIDGE_LINK))
    return difference.role == "task" and difference.swarm is None and any(_says(fact, each) for each in through)


def _strays(difference: Difference) -> bool:
    fact = difference.ours
    in_chain = isinstance(fact, Placed) and fact.chain == names.STRAY_CHAIN
    return difference.swarm is None and (in_chain or _says(fact, Match("ct state", "invalid")))


def _doors(difference: Difference) -> bool:
    fact = difference.ours
    in_chain = isinstance(fact, Placed) and fact.chain == names.FORWARD_CHAIN
    loopback = any(isinstance(part, Match) and part.value == "127.0.0.0/8" for part in _rule(fact))
    to_chain = _says(fact, Verdict("jump", names.FORWARD_CHAIN))
    return difference.role == "host" and difference.swarm is None and (in_chain or to_chain or loopback)


def _peers(difference: Difference) -> bool:
    fact = difference.ours
    in_chain = isinstance(fact, Placed) and fact.chain == names.PEER_CHAIN
    to_chain = _says(fact, Verdict("jump", names.PEER_CHAIN))
    return difference.role == "host" and difference.swarm is None and (in_chain or to_chain)


def _senders(difference: Difference) -> bool:
    fact = difference.ours
    rules = isinstance(fact, Table | Map | Chain | Element) and fact.family == "bridge"
    fixed = isinstance(fact, Neighbour) and fact.link in (names.GWBRIDGE, names.GWBRIDGE_LINK)
    return difference.swarm is None and (rules or fixed)


def _jump(difference: Difference) -> bool:
    to_ingress = Verdict("jump", names.INGRESS_CHAIN)
    facts = [fact for fact in (difference.swarm, difference.ours) if fact is not None]
    of_forward = all(isinstance(fact, Placed) and (fact.table, fact.chain) == ("filter", "FORWARD") for fact in facts)
    return of_forward and any(_says(fact, to_ingress) for fact in facts)


def _mac(name: str) -> Callable[[Difference], bool]:
    return lambda found: isinstance(found.ours, Link) and found.ours.name == name and "mac" in found.changed


def _port(*changed: str) -> Callable[[Difference], bool]:
    return lambda found: isinstance(found.ours, Link) and found.ours.kind == "veth" and found.changed == set(changed)


ROWS: tuple[Row, ...] = (
    Row(
        object="peer that a task sees",
        swarm="the sandbox of the node: `POSTROUTING -d 10.0.0.0/24 -m ipvs --ipvs -j SNAT`",
        routemesh="the client; SNAT only for `172.18.0.0/16`, the node and its tasks as clients, "
        "and by mark for services with `routemesh.client-ip=snat`",
        why="the client's address is what Swarm's users miss most",
        shows=lambda found: found.role == "sandbox" and any(_has(fact, IpvsMatch) for fact in (found.swarm, found.ours)),
    ),
    Row(
        object="a task's way back",
        swarm="its default route or the sandbox's address, by the SNAT",
        routemesh=f"mangle `{RETURN_CHAIN}` marks the connection by the sandbox it came from; a rule and a table for each node",
        why="without SNAT the reply must return through the entry node",
        shows=_return_path,
        kept=True,
    ),
    Row(
        object="`tcp_max_tw_buckets` of a task",
        swarm="the kernel's",
        routemesh="0",
        why="a client's port that comes again through another node would meet its socket in TIME_WAIT and lose a second",
        shows=lambda found: isinstance(found.ours, Sysctl) and found.ours.path == "net/ipv4/tcp_max_tw_buckets",
        kept=True,
    ),
    Row(
        object="a UDP task's source address",
        swarm="default route without `src`",
        routemesh="default route `src` the overlay address, translated on eth1; filter lets it out and its answers in there",
        why="a server that is bound to no address must answer from the one that the client asked",
        shows=_udp_source,
        kept=True,
    ),
    Row(
        object="MSS",
        swarm="as the ends announce it",
        routemesh="mangle POSTROUTING of the sandbox lowers it to the overlay's",
        why="the answer leaves through an interface of 1500, the overlay carries 1450",
        shows=lambda found: found.swarm is None and _has(found.ours, ClampMss),
    ),
    Row(
        object="a task's call to its own node",
        swarm="translated by br_netfilter inside of docker_gwbridge",
        routemesh="nat POSTROUTING `-s 172.18.0.0/16 -o docker_gwbridge -m conntrack --ctstate DNAT -j MASQUERADE`",
        why="must also work where br_netfilter is not loaded",
        shows=lambda found: (
            found.swarm is None and _says(found.ours, Match("ct status", "dnat")) and _has(found.ours, Masquerade)
        ),
    ),
    Row(
        object="a packet that conntrack calls INVALID",
        swarm="is not translated; the node's, the sandbox's or the task's own stack answers",
        routemesh="is dropped in mangle PREROUTING of the node (to published ports by `ROUTEMESH-STRAYS`, from docker_gwbridge), "
        "the sandbox and the task",
        why="a stray segment would be answered by a reset that ends the connection it resembles",
        shows=_strays,
    ),
    Row(
        object="IPVS idle timeouts",
        swarm="900 s for TCP, 120, 300",
        routemesh="432000, 120, 300",
        why="as long as conntrack's: no idle connection is lost",
        shows=lambda found: isinstance(found.ours, IpvsTimeouts),
    ),
    Row(
        object="`conn_reuse_mode` of the sandbox",
        swarm="0",
        routemesh="1 from Linux 5.9 on, 0 before",
        why="0 sends a client's port that comes again to a task that is draining; 1 costs a second before 5.9",
        shows=lambda found: isinstance(found.ours, Sysctl) and found.ours.path == "net/ipv4/vs/conn_reuse_mode",
    ),
    Row(
        object="ports of docker_gwbridge and br0",
        swarm="learn and flood",
        routemesh="do neither; a static FDB entry for the MAC of each port",
        why="every MAC is known; unknown MACs are not flooded",
        shows=lambda found: _port("flood", "learning")(found) or (found.swarm is None and isinstance(found.ours, FdbEntry)),
    ),
    Row(
        object="tasks' ports of docker_gwbridge and br0",
        swarm="filter FORWARD drops from port to port of docker_gwbridge",
        routemesh="isolated as well",
        why="works without br_netfilter too",
        shows=_port("flood", "learning", "isolated"),
    ),
    Row(
        object="vxlan0",
        swarm="learns; sends from the address that the route selects",
        routemesh="does not learn; `local` is the node's address",
        why="its tables have all that it needs; the answer must come from the address that the peers know",
        shows=lambda found: (
            isinstance(found.ours, Link) and found.ours.kind == "vxlan" and {"vxlan", "learning"} <= found.changed
        ),
    ),
    Row(
        object="MACs of docker_gwbridge and br0",
        swarm="random",
        routemesh="02:42 and the address, as every other MAC",
        why="the same after a restart: no neighbour is wrong",
        shows=lambda found: _mac(names.GWBRIDGE)(found) or _mac(names.OVERLAY_BRIDGE)(found),
    ),
    Row(
        object="protocol of routes",
        swarm="boot (3)",
        routemesh="82",
        why="how routemesh knows its own",
        shows=lambda found: isinstance(found.ours, Route) and found.changed == {"protocol"},
    ),
    Row(
        object="DNS of tasks and sandbox",
        swarm=f"nat rules for {DNS}, chains DOCKER_OUTPUT, DOCKER_POSTROUTING",
        routemesh="none in this plan",
        why="they belong to the container engine, not to the mesh",
        shows=_of_dns,
    ),
    Row(
        object="chains DOCKER, DOCKER-USER, DOCKER-ISOLATION-STAGE-1, -2",
        swarm="there, with jumps to them",
        routemesh="not there",
        why="they are for containers with ports of their own, which routemesh does not have",
        shows=_of_engine_chains,
    ),
    Row(
        object="docker0",
        swarm="there, with its rules",
        routemesh="not there",
        why="no container is on it",
        shows=_of_docker0,
    ),
    Row(
        object="policy of filter FORWARD",
        swarm="DROP",
        routemesh="left as it is",
        why="the machine's firewall is its owner's; what the mesh needs is accepted by rules at the head",
        shows=lambda found: found.swarm == Policy("filter", "FORWARD", "DROP") and found.ours is None,
    ),
    Row(
        object="filter FORWARD's jump to DOCKER-INGRESS",
        swarm="for every packet",
        routemesh="for what goes to docker_gwbridge",
        why="it accepts published ports, between other devices too",
        shows=_jump,
    ),
    Row(
        object="what else goes into docker_gwbridge, or out of it",
        swarm="everything that has a route",
        routemesh=f"mangle `{names.FORWARD_CHAIN}` drops what is neither for a published port nor an answer; mangle "
        "PREROUTING what is for 127.0.0.0/8",
        why="a neighbour with a route to 172.18.0.0/16 must not reach what is not published, nor a task the node's 127.0.0.1",
        shows=_doors,
    ),
    Row(
        object="what a task may send",
        swarm="frames and ARP with any address",
        routemesh="table `bridge routemesh` on the node and in the overlay: IPv4 and ARP with its own MAC and address; permanent "
        "neighbours on docker_gwbridge",
        why="a task could take the sandbox's address, and with it every published port of the node",
        shows=_senders,
    ),
    Row(
        object="VXLAN packets to a node",
        swarm="are accepted from anybody",
        routemesh=f"from the other nodes' addresses alone: mangle INPUT, `{names.PEER_CHAIN}`",
        why="anyone who can send a packet to a node would be on the overlay",
        shows=_peers,
    ),
    Row(
        object="the machine's own devices and routes",
        swarm="eth0 and its routes",
        routemesh="never touched",
        why="they are not the mesh's",
        shows=_of_the_machine,
    ),
    Row(
        object="networks of a service's own",
        swarm="1-&lt;id&gt; and lb_&lt;id&gt; of each, further interfaces of tasks (then eth1 is the ingress network's)",
        routemesh="not there",
        why="only the ingress network is made",
        shows=lambda found: found.role == "elsewhere",
    ),
    Row(
        object="encrypted networks",
        swarm="mangle OUTPUT and filter INPUT rules by VNI, and xfrm",
        routemesh="not there",
        why="not made; the underlay is trusted, or encrypted as a whole",
        shows=_of_encryption,
    ),
    Row(
        object="what stopped tasks leave",
        swarm="namespace and veth for some seconds",
        routemesh="gone with the task",
        why="nothing waits for them",
        shows=_left_over,
    ),
)
