"""Every reason in words: the one place where they become sentences. PURE.

A sentence is for people alone: it may be put better at any time. Each function has a line for each kind, and mypy sees to it.
"""

from collections.abc import Sequence
from typing import assert_never

from routemesh.reasons import causes, ends, events, unclear
from routemesh.reasons.causes import Reason
from routemesh.reasons.ends import End
from routemesh.reasons.events import Event
from routemesh.reasons.unclear import Doubt
from routemesh.snapshot import Bound, Unread

NOT_OURS = "it is not the mesh's own: only its owner knows what it is for"
"""Said where a packet ended by what somebody else has made, before the commands that show that."""


def of_event(event: Event) -> str:
    """What happened to the packet."""
    if isinstance(event, events.OfStack):
        return _of_stack(event)
    if isinstance(event, events.OfConnections):
        return _of_connections(event)
    if isinstance(event, events.OfRules):
        return _of_rule(event)
    return f"{'refused' if event.refused else 'dropped'}: {of_end(event.end)}"


def of_end(end: End) -> str:
    """Why a packet went no further."""
    if isinstance(end, ends.OfDevices):
        return _at_device(end)
    if isinstance(end, ends.OfTunnels):
        return _at_tunnel(end)
    if isinstance(end, ends.OfRoutes):
        return _without_route(end)
    return _by_rule(end) if isinstance(end, ends.OfRules) else _unanswered(end)


def of_doubt(doubt: Doubt) -> str:
    """On what it depends what becomes of a packet."""
    if isinstance(doubt, unclear.OfReading):
        return _unread(doubt)
    if isinstance(doubt, unclear.OfLinks):
        return _ambiguous(doubt)
    if isinstance(doubt, unclear.OfDecisions):
        return _undecided(doubt)
    return f"{_in_rule(doubt)} in chain {doubt.space} {doubt.chain}"


def of_cause(reason: Reason) -> str:
    """What is wrong."""
    if isinstance(reason, causes.OfWays):
        return _of_way(reason)
    if isinstance(reason, causes.OfMissing):
        return _missing(reason)
    return _of_service(reason) if isinstance(reason, causes.OfService) else _of_proxy(reason)


# --- what happened ------------------------------------------------------------------------------------------------


def _of_stack(event: events.OfStack) -> str:
    match event:
        case events.Routed(link, None):
            return f"route dev {link}"
        case events.Routed(link, via):
            return f"route via {via} dev {link}"
        case events.Resolved(address, mac, state):
            return f"neighbour {address} is {mac}" + (f", {state}" if state else "")
        case events.Bridged(bridge, port):
            return f"bridge {bridge} to port {port}"
        case events.IntoTunnel(vni, to):
            return f"vxlan {vni} to {to}"
        case events.OutOfTunnel(vni, place, link):
            return f"vxlan {vni} into {place} {link}"
        case events.Accepted(protocol, port):
            return f"is here, for {protocol}/{port}"
    assert_never(event)


def _of_connections(event: events.OfConnections) -> str:
    match event:
        case events.Translated(end, to):
            return f"conntrack {end} {to}"
        case events.OtherPort(port):
            return f"conntrack takes another source port, say {port}, because answers would look like another connection's"
        case events.Scheduled(mark, scheduler, server, direct):
            return f"ipvs FWM {mark} {scheduler} to {server}{' by direct routing' if direct else ''}"
        case events.SentToServer(server):
            return f"ipvs destination {server}"
        case events.AnsweredAs(asked):
            return f"ipvs answers as {asked}"
    assert_never(event)


_TRANSLATIONS = {"dnat": "dnat to", "redirect": "redirect to", "snat": "snat to", "masquerade": "masquerade as"}


def _of_rule(event: events.OfRules) -> str:
    return f"{event.kind} {event.chain} {_rule_effect(event)}"


def _rule_effect(event: events.OfRules) -> str:
    match event:
        case events.Assigned(field=field, value=value):
            return f"{field} set {value}"
        case events.Learned(map=name, value=value):
            return f"@{name} learns {value}"
        case events.Clamped(mss_bytes=mss):
            return f"maxseg at most {mss}"
        case events.Untracked():
            return "keeps connection tracking from it"
        case events.Rewritten(how=how, address=address, port=port):
            return f"{_TRANSLATIONS[how]} {address or ''}{'' if port is None else f':{port}'}"
        case events.Led(verdict=verdict, target=target):
            return f"{verdict} {target}"
    assert_never(event)


# --- why it went no further ---------------------------------------------------------------------------------------


def _at_device(end: ends.OfDevices) -> str:
    match end:
        case ends.LinkDown(link):
            return f"{link} is down"
        case ends.NoCarrier(link):
            return f"{link} has no carrier"
        case ends.BridgeDown(bridge, link):
            return f"{bridge}, the bridge of {link}, is down or not there"
        case ends.FarEndGone(link):
            return f"the other end of {link} is down or not there"
        case ends.WrongMac(mac, link):
            return f"it is for {mac}, not for {link}"
        case ends.TooLarge(size, link, mtu):
            return f"its {size} bytes exceed the MTU of {link}, {mtu}"
        case ends.NoPort(mac):
            return f"no port has {mac}, and no port floods"
        case ends.BehindSamePort(mac, link):
            return f"{mac} is behind the port {link}, through which it came"
        case ends.Isolated(mac, link):
            return f"{mac} is behind {link}, which is isolated as is the port through which it came"
        case ends.NoNeighbour(link, address):
            return f"nobody on {link} answers ARP for {address}"
        case ends.WrongNeighbour(address, mac, own):
            return f"the ARP table has {mac} for {address}, which has {own}"
    assert_never(end)


def _at_tunnel(end: ends.OfTunnels) -> str:
    match end:
        case ends.NoFdbEntry(mac, link):
            return f"{link} does not know which node has {mac}"
        case ends.TunnelFromElsewhere(address, link):
            return f"{address}, from which {link} sends, is not an address of the node"
        case ends.NoTunnel(vni, port):
            return f"no tunnel here has VNI {vni} and UDP port {port}"
    assert_never(end)


def _without_route(end: ends.OfRoutes) -> str:
    match end:
        case ends.NoRoute(destination):
            return f"there is no route to {destination}"
        case ends.BlackHole(destination):
            return f"the route to {destination} is a black hole"
        case ends.RouteRefuses(destination, kind):
            return f"the route to {destination} says {kind}"
        case ends.NotForwarding():
            return "it is not for this namespace, which forwards nothing"
        case ends.LoopbackOnWire(link):
            return f"a loopback address on the wire, and route_localnet is off on {link}"
        case ends.LoopbackLeaves(link):
            return f"its source is a loopback address, and route_localnet is off on {link}"
        case ends.OwnSource(address):
            return f"its source {address} is this namespace's own address"
        case ends.ReversePath(source, link, rp_filter):
            return f"the route back to {source} does not lead through {link}, and rp_filter is {rp_filter}"
        case ends.LeadsAway(destination, link, behind):
            return f"the route to {destination} leads to {link}, and that address is behind {behind}"
        case ends.NotOwnAddress(address):
            return f"{address} is not an address of this namespace"
        case ends.NobodysAddress(address):
            return f"{address} belongs to no node"
        case ends.GoesInCircles():
            return "it goes round in circles"
    assert_never(end)


def _by_rule(end: ends.OfRules) -> str:
    match end:
        case ends.RuleDrops(kind, chain, some):
            return f"{kind} {chain} drops {'some of the packets, by lot' if some else 'it'}"
        case ends.NotTracked(kind, chain):
            return f"{kind} {chain} keeps connection tracking from it, and so nothing translates it"
        case ends.PolicyDrops(kind, chain):
            return f"the policy of {kind} {chain} drops it"
        case ends.RuleRejects(kind, chain, answer):
            return f"{kind} {chain} rejects with {answer}"
        case ends.IpsecBlocks(direction, source, destination):
            return f"an IPsec policy ({direction}, {source} to {destination}) blocks it"
        case ends.RedirectedNowhere(link):
            return f"redirected, but {link} has no address"
        case ends.NothingToMasquerade():
            return "masqueraded, but this namespace has no address"
        case ends.TableFull(connections, limit):
            return f"the connection tracking table is full ({connections} of {limit}), and this connection is new"
        case ends.AnswersClash():
            return "answers to it would look like those of another connection, and no NAT makes them differ"
        case ends.NoServer(mark):
            return f"ipvs service FWM {mark} has no server for it"
        case ends.ServerGone(server):
            return f"ipvs leads its connection to {server}, which is no longer a server"
        case ends.LoopbackToServer(source):
            return f"ipvs sends nothing from {source} to another namespace"
    assert_never(end)


def listening(instead: Sequence[Bound]) -> str:
    """Where processes wait instead, as a clause: whoami listens on 127.0.0.1:80."""
    by: dict[str, list[str]] = {}
    for each in instead:
        by.setdefault(each.process or "a process", []).append(str(each))
    return ", ".join(f"{process} listens on {' and '.join(places)}" for process, places in by.items())


def _unanswered(end: ends.OfAnswers) -> str:
    match end:
        case ends.NobodyListens(protocol, port, instead):
            return f"nothing listens on {protocol}/{port}{f'; {listening(instead)}' if instead else ''}"
        case ends.Unheard(why, sender, at, lost):
            where = f" ({at}: {of_end(lost)})" if lost is not None else ""
            return f"{of_end(why)}, and {'the client' if sender is None else sender} does not hear of it{where}"
        case ends.Astray(protocol, source, destination, client, error):
            arrived = f"{'icmp about ' if error else ''}{protocol} {source} → {destination}"
            return f"it arrives as {arrived}, which answers nothing that {client} asked"
        case ends.LargeAstray(size):
            return f"packets of {size} bytes go astray"
        case ends.EverSmaller():
            return "its packets become ever smaller"
        case ends.EitherWay(first, other):
            return f"{of_end(first)}; or else, {of_end(other)}"
    assert_never(end)


# --- why that can't be told ---------------------------------------------------------------------------------------


def _unread(doubt: unclear.OfReading) -> str:
    match doubt:
        case unclear.NotRead(what, reason, loses):
            return f"what was not read: {Unread(what, reason, loses)}"
        case unclear.ItemUnknown(kind):
            return f"a {kind}, which this version does not know"
        case unclear.SettingNotRead(path):
            return f"{path}, which was not read"
        case unclear.ListenersNotRead(protocol, port):
            return f"{protocol}/{port}: what listens there was not read"
        case unclear.NodeNotRead(address, node, absent):
            return f"{address}: that is {node}, {absent or 'which was not read'}"
        case unclear.FarEndUnseen(link):
            return f"the other end of {link}, in a namespace that was not seen"
        case unclear.LinkOdd(link, setting):
            return f"{link}, which has {setting}"
        case unclear.IpsecTransforms(direction, source, destination):
            return f"an IPsec policy ({direction}, {source} to {destination}): what becomes of it once encrypted is not seen"
        case unclear.WayUnseen(link, address):
            return f"the route to {address} by {link}: that is not the underlay, and what is behind it is not seen"
        case unclear.OtherMac(address, mac, own):
            return f"ARP for {address}: {mac} answered, and that node has {own}"
        case unclear.ArpUnseen(address):
            return f"ARP for {address}, which only a namespace that was not seen may answer"
    assert_never(doubt)


def _ambiguous(doubt: unclear.OfLinks) -> str:
    match doubt:
        case unclear.ArpBySeveral(address, macs):
            return f"ARP for {address}, which {' and '.join(macs)} answer"
        case unclear.ArpThroughTunnel(address, link):
            return f"ARP for {address} through {link}, which does not answer it itself"
        case unclear.ArpSetting(link, setting, value):
            return f"ARP on {link} with {setting} {value}"
        case unclear.FramesFiltered(family, chain):
            return f"chain {chain}, which filters {'ARP' if family == 'arp' else 'frames'}"
        case unclear.SeveralCopies(mac):
            return f"a frame to {mac}, of which several ports get a copy"
        case unclear.SeveralTunnels(vni):
            return f"VNI {vni}, which several tunnels have"
        case unclear.AnswerFrom(asked, preferred):
            return f"the answer from {asked}, which a process on all addresses may send from {preferred} instead"
    assert_never(doubt)


def _undecided(doubt: unclear.OfDecisions) -> str:
    match doubt:
        case unclear.RoutingRuleUnknown(priority, conditions):
            return f"routing rule {priority}" + (f", which has conditions {conditions}" if conditions else "")
        case unclear.RouteUnknown(network, kind):
            return f"the route to {network}, which is {kind}"
        case unclear.SchedulerUnknown(mark, scheduler):
            return f"ipvs service FWM {mark} with scheduler {scheduler}"
        case unclear.MethodUnknown(mark, server, method):
            how = "by IPIP" if method == "tunnel" else "in an unknown way"
            return f"ipvs service FWM {mark}, which reaches server {server} {how}"
        case unclear.BalancedToItself(server):
            return f"ipvs, which leads a packet of this namespace's own to its own address {server},"
    assert_never(doubt)


def _in_rule(doubt: unclear.OfRules) -> str:
    match doubt:
        case unclear.StatementUnknown(statement=statement):
            return f"a rule with {statement}"
        case unclear.MatchUnknown(match=compared, problem=problem):
            return f"{compared} ({problem})" if problem else compared
        case unclear.FieldUnknown(field=field):
            return f"'{field}'"
        case unclear.MapUnknown(key=key, map=name):
            return f"a look-up of {key} in @{name}, which is of another type or not there,"
        case unclear.LearningUnknown(statement=statement):
            return f"{statement}, which adds to a map of another type,"
        case unclear.ChainUnknown(verdict=verdict, target=target):
            return f"{verdict} {target}, a chain that is not there,"
        case unclear.NoVerdict(element=element):
            return f"{element}, which holds no verdict,"
        case unclear.TranslationUnknown(how=how, to=to, hook=hook):
            return f"'{_TRANSLATIONS[how]} {to}' at hook {hook}"
    assert_never(doubt)


# --- what is wrong ------------------------------------------------------------------------------------------------


def _of_way(reason: causes.OfWays) -> str:
    match reason:
        case causes.Lost(end):
            return of_end(end)
        case causes.AnswerLost(end):
            return f"the answer is lost: {of_end(end)}"
        case causes.LargeLost(end):
            return f"large packets are lost: {of_end(end)}"
        case causes.Untold(doubt):
            return f"what happens can't be told: {of_doubt(doubt)}"
        case causes.AnswerUntold(doubt):
            return f"what becomes of the answer can't be told: {of_doubt(doubt)}"
        case causes.LargeUntold(doubt):
            return f"what becomes of large packets can't be told: {of_doubt(doubt)}"
        case causes.ByOthers(failure, tool, table, rule):
            return f"{_of_way(failure)} ({f'{tool}, ' if tool else ''}{table}{f': {rule}' if rule else ''})"
        case causes.WrongTaker(process, service):
            return f"{process or 'a process'}, which is not a task of {service}, takes the connection"
    assert_never(reason)


def _missing(reason: causes.OfMissing) -> str:
    then = _of_way(reason.then)
    match reason:
        case causes.NotLed(port, protocol, causes.WrongTaker()):
            return f"port {port}/{protocol} is not forwarded to the sandbox: {then}"
        case causes.NotLed(port, protocol):
            return f"port {port}/{protocol} is not forwarded to the sandbox: nothing translates it, and {then}"
        case causes.NoMark(port, protocol):
            return f"port {port}/{protocol} gets no firewall mark, so nothing balances it, and {then}"
        case causes.NotBalanced(mark):
            return f"nothing balances what has mark {mark:#x}, and {then}"
        case causes.NotRedirected(port, protocol, target):
            return f"published port {port}/{protocol} is not redirected to {target}, and {then}"
        case causes.ClientInRange(client, network, subnet):
            return (
                f"{client} is in the range {subnet} of {network}, which the mesh has for itself on every node, and {then}; "
                "such a client needs another address, or a translation before the nodes, or the cluster other ranges"
            )
    assert_never(reason)


def _of_service(reason: causes.OfService) -> str:
    match reason:
        case ends.LinkDown():
            return _at_device(reason)
        case causes.UnlikePlanned():
            return "it differs from the plan"
        case causes.Doubled(address, task):
            return f"{address} is {task}'s address, but it is here too"
        case causes.NotServed(task):
            return f"{task} serves, but gets no connections"
        case causes.KeptAway(service):
            return f"{service} has no task that this node may use (labels routemesh.locality, routemesh.weight)"
        case causes.NoTaskHere(service, nodes):
            return f"{service} publishes the port in host mode, and has no task on this node: ask {', '.join(nodes) or 'no node'}"
        case causes.NoTasks(service):
            return f"{service} has no task"
        case causes.NoneServes(tasks):
            return f"none of its tasks takes connections ({'; '.join(tasks)})"
        case causes.NotAnswering():
            return f"it accepts, but does not answer: {of_server(reason)}"
    assert_never(reason)


def of_server(reason: causes.NotAnswering) -> str:
    """What a server does with the connections that wait for it."""
    port = f"{reason.protocol}/{reason.port}"
    server = f"{reason.process or 'its server'}{f' ({reason.pid})' if reason.pid else ''}"
    number = "one connection waits" if reason.queued == 1 else f"{reason.queued} connections wait"
    waiting = f"{number} on {port}, not accepted by {server}"
    if reason.stopped:
        return f"{server}, which listens on {port}, is stopped{f'; {number}' if reason.queued else ''}"
    return f"{waiting}{f', as many as may: its backlog is {reason.backlog}' if 0 < reason.backlog < reason.queued else ''}"


def unchecked(service: str) -> str:
    """That a service has no health check, and what that means."""
    return f"{service} has no health check: tasks get connections as soon as they run"


def _of_proxy(reason: causes.OfProxies) -> str:
    match reason:
        case causes.ProxyUnlike(what):
            return what
        case causes.ProxyAnswers(status, why):
            return f"it answers {status} itself: {why}"
    assert_never(reason)
