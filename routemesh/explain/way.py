"""A walk's branch as a way for people: every hop with its place, what decided, and what became of the packet. PURE."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Address
from shlex import quote
from typing import assert_never

from routemesh.explain.deaf import Silent, silent
from routemesh.explain.doubles import doubles
from routemesh.explain.nouns import Kind, Step, Tool, Way
from routemesh.explain.shown import command, in_namespace, kind_of, rule_text
from routemesh.nodeplan import HOST, Chain, Element, Item, XtChain, XtRule
from routemesh.reasons import causes, events
from routemesh.reasons.named import named
from routemesh.reasons.words import of_doubt, of_end, of_event
from routemesh.sightings import Headers
from routemesh.snapshot import ClusterSnapshot, NamedTask, NodeSnapshot
from routemesh.values import differing, replace
from routemesh.walk import OUTSIDE, Branch, Delivered, Dropped, Hop, Packet, Place, Refused, ReplyArrives, ReplyLost, Unclear


class Places:
    """What the namespaces of a cluster are called."""

    def __init__(self, cluster: ClusterSnapshot) -> None:
        self.cluster = cluster
        self._tasks = {(task.node, task.netns): task for task in cluster.names.tasks if task.netns}
        self._addresses = {address: task for task in cluster.names.tasks for address in task.addresses.values()}
        self._networks = {network.netns: network.name for network in cluster.names.networks if network.netns}

    @cached_property
    def doubles(self) -> Mapping[IPv4Address, Sequence[Place]]:
        """See doubles.doubles."""
        return doubles(self.cluster)

    @cached_property
    def silent(self) -> Silent:
        """See deaf.silent."""
        return silent(self.cluster)

    def task(self, place: Place) -> NamedTask | None:
        """The task whose namespace it is."""
        return self._tasks.get((place.node, place.netns))

    def meant(self, branch: Branch) -> NamedTask | None:
        """The task whose address the packet was sent to."""
        for hop in reversed(branch.hops):
            if hop.after.destination.address in self._addresses:
                return self._addresses[hop.after.destination.address]
        return None

    def called(self, place: Place) -> str:
        """What people call it."""
        if place == OUTSIDE:
            return "outside"
        if place.netns == HOST:
            return f"{place.node}"
        task = self.task(place)
        if task is not None:
            return f"{place.node}: task {task.name}"
        network = self._networks.get(place.netns)
        if network is not None:
            return f"{place.node}: overlay {network}"
        return f"{place.node}: {place.netns}"


def arrives(branch: Branch) -> bool:
    """Whether a process gets the request and the client the answer, small ones at least."""
    return isinstance(branch.outcome, Delivered) and isinstance(branch.outcome.reply, ReplyArrives)


def way(places: Places, branch: Branch, *, taken: bool = True) -> Way:
    """A branch, there and back. `taken`: who gets it is who should."""
    there = tuple(_steps(places, branch.hops))
    back = tuple(_steps(places, branch.reply_hops, answer=True))
    outcome = branch.outcome
    delivered = isinstance(outcome, Delivered)
    arrived = taken and arrives(branch)
    if not arrived:
        there, back = _with_failure(there, back, branch, turned=delivered and taken)
    failure = None if arrived else failure_of(branch)
    task = places.task(outcome.place) or places.meant(branch)
    return Way(
        share=(branch.share.numerator, branch.share.denominator),
        estimated=branch.estimated,
        there=there,
        back=back,
        arrives=arrived,
        end=ending(places, branch),
        task=task.name if task is not None else "",
        node=outcome.place.node,
        peer=str(outcome.peer) if isinstance(outcome, Delivered) else "",
        reason=None if failure is None else named(failure[1]),
    )


def failure_of(branch: Branch) -> tuple[Place, causes.Failure | causes.OfDoubt] | None:
    """Where a branch does not end well, and why; None where it does."""
    match branch.outcome:
        case Delivered(reply=ReplyArrives(), full_size=ReplyLost(place, end)):
            return place, causes.LargeLost(end)
        case Delivered(reply=ReplyArrives(), full_size=Unclear(place, doubt)):
            return place, causes.LargeUntold(doubt)
        case Delivered(reply=ReplyArrives()):
            return None
        case Delivered(reply=ReplyLost(place, end)):
            return place, causes.AnswerLost(end)
        case Delivered(reply=Unclear(place, doubt)):
            return place, causes.AnswerUntold(doubt)
        case Unclear(place, doubt):
            return place, causes.Untold(doubt)
        case Refused(place, end) | Dropped(place, end):
            return place, causes.Lost(end)
        case Delivered():
            raise AssertionError(branch.outcome)
        case _:
            assert_never(branch.outcome)


def ending(places: Places, branch: Branch) -> str:
    """How a branch ends, in a sentence."""
    outcome = branch.outcome
    where = places.called(outcome.place)
    match outcome:
        case Delivered(process=process) if places.task(outcome.place) is None and places.cluster.names.tasks:
            return f"is taken by {process or 'a process'} in {where}"
        case Delivered(reply=ReplyArrives(), full_size=ReplyLost(place, end)):
            lost = f"large packets are lost in {places.called(place)}: {of_end(end)}"
            return f"reaches {where}, and the answer comes back, but {lost}"
        case Delivered(reply=ReplyArrives()):
            return f"reaches {where}, and the answer comes back"
        case Delivered(reply=ReplyLost(place, end)):
            return f"reaches {where}, but the answer is lost in {places.called(place)}: {of_end(end)}"
        case Delivered(reply=Unclear(place, doubt)):
            return f"reaches {where}; what becomes of the answer can't be told in {places.called(place)}: {of_doubt(doubt)}"
        case Unclear(_, doubt):
            return f"can't be told in {where}: {of_doubt(doubt)}"
        case Refused(_, end) | Dropped(_, end):
            return f"ends in {where}: {of_end(end)}"
        case Delivered():
            raise AssertionError(outcome)
        case _:
            assert_never(outcome)


def _steps(places: Places, hops: tuple[Hop, ...], *, answer: bool = False) -> Iterator[Step]:
    for hop in hops:
        before, after = headers(hop.before), headers(hop.after)
        task = places.task(hop.place)
        node = places.cluster.nodes.get(hop.place.node)
        yield Step(
            node=hop.place.node,
            namespace=hop.place.netns,
            place=places.called(hop.place),
            device=hop.device,
            what=of_event(hop.event),
            kind=_kind(hop),
            rule=rule_text(hop.item, hop.rule),
            show=in_namespace(node, _where(hop), _show(node, hop, answer=answer)),
            before=before,
            after=after,
            event=named(hop.event),
            tool=_tool(node, hop.item),
            family=hop.item.family if isinstance(hop.item, Chain | Element) else "",
            chain=events.chain_of(hop.event),
            changed=differing(before, after),
            service=task.service if task is not None else "",
            task=task.name if task is not None else "",
        )


def _kind(hop: Hop) -> Kind:
    match hop.event:
        case events.Resolved(learned=True):  # who answers ARP is somewhere else; here is what was learned of it
            return "neighbour"
        case _ if hop.item is not None:
            return kind_of(hop.item)
        case events.Translated() | events.OtherPort():
            return "conntrack"
        case events.SentToServer() | events.AnsweredAs():
            return "ipvs"
        case events.Accepted():
            return "socket"
        case _:
            return "other"


def _tool(node: NodeSnapshot | None, item: Item | None) -> Tool:
    if isinstance(item, Chain | Element):
        return "nft"
    if isinstance(item, XtChain | XtRule):
        return "iptables-legacy" if node is not None and node.iptables == "legacy" else "iptables"
    return ""


def _where(hop: Hop) -> str:
    """In which namespace what decided is: a tunnel's device is not where its packets come in."""
    return hop.event.place.netns if isinstance(hop.event, events.OutOfTunnel) else hop.place.netns


def _show(node: NodeSnapshot | None, hop: Hop, *, answer: bool) -> str:
    """The command that shows what decided; "" where only the packet brings it (what ARP answers, a client's port)."""
    if isinstance(hop.event, events.Resolved) and hop.event.learned:
        return ""
    if isinstance(hop.event, events.Learned) and isinstance(hop.item, Element):
        return f"nft list map {hop.item.family} {quote(hop.item.table)} {quote(hop.item.map)}"
    protocol = hop.before.protocol.value
    match _kind(hop):
        case "conntrack":
            return f"conntrack -L -p {protocol} {_tracked(hop, answer=answer)}"
        case "ipvs" if hop.item is None:
            return "ipvsadm -Lcn"
        case "socket":
            return "" if answer else f"ss -ln{protocol[0]}p 'sport = :{hop.after.destination.port}'"
        case _:
            return command(node, hop.item)


def _tracked(hop: Hop, *, answer: bool) -> str:
    """The end by which conntrack(8) finds the connection: the other one may be translated already."""
    packet = hop.before
    if not answer:
        return f"--orig-src {packet.source.address}"
    turned = isinstance(hop.event, events.Translated) and hop.event.end == "destination"
    return f"--reply-dst {packet.destination.address}" if turned else f"--reply-src {packet.source.address}"


def headers(packet: Packet) -> Headers:
    """A packet's headers as texts."""
    return Headers(
        protocol=packet.protocol.value,
        source=str(packet.source),
        destination=str(packet.destination),
        source_mac=packet.source_mac,
        destination_mac=packet.destination_mac,
        mark=packet.mark,
        vni=packet.inner.vni if packet.inner is not None else 0,
    )


Steps = tuple[Step, ...]


def _why(branch: Branch) -> str:
    match branch.outcome:
        case Refused(_, end) | Dropped(_, end) | Delivered(reply=ReplyLost(_, end)):
            return of_end(end)
        case Unclear(_, doubt) | Delivered(reply=Unclear(_, doubt)):
            return f"can't be told: {of_doubt(doubt)}"
        case Delivered():
            return ""
        case _:
            assert_never(branch.outcome)


def _with_failure(there: Steps, back: Steps, branch: Branch, *, turned: bool) -> tuple[Steps, Steps]:
    """The last step of the direction in which it ends is the one that failed; at a socket, why stands in place of the port."""
    why = _why(branch)
    last = (back if turned else there)[-1:]
    failed = tuple(replace(step, failed=True, why=why, what=why if why and step.kind == "socket" else step.what) for step in last)
    return (there, (*back[:-1], *failed)) if turned else ((*there[:-1], *failed), back)
