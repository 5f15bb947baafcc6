"""Why a way does not end as it should, and what mends it. PURE.

A walk tells where a packet ended. What a person needs is what is missing there, in the words of the mesh; and of what is ours,
the command that a node's own plan has for it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from routemesh import names
from routemesh.explain import mend, nearby, theirs, untracked
from routemesh.explain.ask import Asked
from routemesh.explain.blame import Blame
from routemesh.explain.faults import Fault
from routemesh.explain.mend import Advice, Repairs
from routemesh.explain.shown import rule_text
from routemesh.explain.way import Places, failure_of
from routemesh.nodeplan import HOST, Chain, XtChain
from routemesh.reasons import causes
from routemesh.reasons.ends import NobodyListens
from routemesh.reasons.events import Stopped
from routemesh.snapshot import OUTSIDE, NamedTask
from routemesh.values import replace
from routemesh.walk import Branch, Delivered, Hop, Place, Walk


def of_branch(places: Places, asked: Asked, branch: Branch, number: int, blame: Blame, *, arrived: bool) -> Iterator[Fault]:
    """What is wrong on one way; nothing where it ends well. What is switched off comes first, for all else may follow from it."""
    repairs, failure = blame.repairs, failure_of(branch)
    if failure is None:
        yield from _wrong_place(places, asked, branch, number, blame)
        return
    place, reason = failure
    hops = (*branch.hops, *branch.reply_hops)
    returning = isinstance(branch.outcome, Delivered)
    # The steps are those of small packets, which get through where large ones do not.
    step = -1 if arrived else len(hops) - 1 if returning else len(branch.hops) - 1
    last = hops[step] if 0 <= step < len(hops) else None
    down = tuple(nearby.links_down(places, branch, number, repairs))
    if isinstance(reason, causes.Lost | causes.AnswerLost) and any(
        each.at == place and each.reason == reason.end for each in down
    ):
        yield from (replace(each, step=step) if each.at == place else each for each in down)
        return
    yield from down
    hop = untracked.met(places, branch, place, causes.end_of(reason))
    if hop is not None and not theirs.foreign(places, _stopped(last)):
        yield untracked.fault(places, branch, hop, number, blame)
        return
    yield from nearby.doubled(places, branch, number, repairs)
    missing = _in_range(places, asked, reason) if returning else _missing(places, asked, place, reason, last)
    ended_by = _stopped(last)
    by = theirs.foreign(places, ended_by)
    how = _by_others(reason, ended_by, by) if isinstance(reason, causes.Failure) else reason
    goes, remains = blame.goes(branch), blame.remains(branch)
    planned = () if remains else mend.planned(repairs, place)
    end = causes.end_of(how)
    at_end = Advice(planned)
    if end is not None and not goes:
        answer = step >= len(branch.hops) if step >= 0 else returning
        at_end = mend.of_untold(places, place, how) or mend.of_end(
            places, place, end, ended_by, {} if remains else repairs, answer=answer
        )
    yield Fault(
        at=place,
        called=places.called(place),
        reason=how if missing is None else missing.reason,
        mend=at_end.mend if missing is None or goes else planned or missing.commands,
        look=at_end.look if missing is None else (),
        way=number,
        step=step,
        by=by,
        planned=bool(planned),
        remains=remains,
        goes=goes,
    )
    if not remains:
        yield from nearby.unlike_planned(places, branch, place, number, repairs)


def _stopped(last: Hop | None) -> Hop | None:
    return last if last is not None and isinstance(last.event, Stopped) else None


def of_service(places: Places, asked: Asked, branches: Walk, repairs: Repairs) -> Iterator[Fault]:
    """Tasks that serve and to which no way leads, and a service that has none."""
    if asked.service is None:
        return
    tasks = [task for task in places.cluster.names.tasks if task.service == asked.service.name]
    serving = [task for task in tasks if task.serving]
    if asked.host_mode:
        yield from _of_host_mode(places, asked, serving)
        return
    entry = Place(asked.target.node, HOST)
    if not serving:
        tool = "docker" if any(node.kind == "swarm" for node in places.cluster.nodes.values()) else "routemesh"
        yield Fault(
            called=f"service {asked.service.name}",
            reason=_no_task(asked.service.name, tasks),
            mend=(f"{tool} service ps {asked.service.name}",),
        )
        return
    if not asked.service.answers_on(entry.node):
        yield Fault(at=entry, called=places.called(entry), reason=causes.KeptAway(asked.service.name))
        return
    sandbox = Place(entry.node, names.SANDBOX)
    if entry.node in repairs and not mend.planned(repairs, sandbox):
        return  # by hash, weight or distance others were chosen
    aimed_at = {hop.after.destination.address for branch in branches for hop in branch.hops}
    met = [task for task in serving if not aimed_at.isdisjoint(task.addresses.values())]
    for task in sorted(serving, key=lambda task: task.name):
        if met and task not in met:
            ways = (command for address in task.addresses.values() for command in mend.to_task(places, asked, sandbox, address))
            commands = mend.planned(repairs, sandbox)
            yield Fault(
                at=sandbox,
                called=places.called(sandbox),
                reason=causes.NotServed(task.name),
                mend=commands or tuple(ways),
                planned=bool(commands),
            )


def host_task(places: Places, asked: Asked) -> NamedTask | None:
    """The task of the entry node to which a port in host mode leads."""
    tasks = places.cluster.names.tasks
    mine = (task for task in tasks if asked.service is not None and task.service == asked.service.name and task.serving)
    return next((task for task in mine if task.node == asked.target.node), None)


def _of_host_mode(places: Places, asked: Asked, serving: Sequence[NamedTask]) -> Iterator[Fault]:
    if asked.service is not None and host_task(places, asked) is None:
        entry = Place(asked.target.node, HOST)
        nodes = tuple(sorted({task.node for task in serving}))
        yield Fault(at=entry, called=places.called(entry), reason=causes.NoTaskHere(asked.service.name, nodes))


def _by_others(failure: causes.Failure, last: Hop | None, by: str) -> causes.Failure | causes.ByOthers:
    """In which table of others, by which rule, made by which tool."""
    if last is None or not by or not isinstance(last.item, Chain | XtChain):
        return failure
    table = theirs.table_of(last.item)
    return causes.ByOthers(failure, "" if by == table else by, table, rule_text(last.item, last.rule))


# --- where and why -----------------------------------------------------------------------------------------------


def takes_it(places: Places, asked: Asked, place: Place) -> bool:
    """Whether a process there is meant: a task of the service that publishes the port, or anybody where that is not known."""
    if asked.host_mode:  # docker-proxy, or the container itself: its namespace is not the mesh's
        return place.node == asked.target.node and host_task(places, asked) is not None
    task = places.task(place)
    known = asked.service is not None and bool(places.cluster.names.tasks)
    return not known or (task is not None and asked.service is not None and task.service == asked.service.name)


def _wrong_place(places: Places, asked: Asked, branch: Branch, number: int, blame: Blame) -> Iterator[Fault]:
    """Somebody takes the connection who is not the service's: as dockerd does, which only keeps the port."""
    place, outcome = branch.outcome.place, branch.outcome
    if takes_it(places, asked, place) or asked.service is None or asked.host_mode:
        return
    if (hop := untracked.met(places, branch, place, None)) is not None:
        yield untracked.fault(places, branch, hop, number, blame)
        return
    process = outcome.process if isinstance(outcome, Delivered) else ""
    taken = causes.WrongTaker(process, asked.service.name)
    missing = _missing(places, asked, place, taken, branch.hops[-1] if branch.hops else None)
    planned = mend.planned(blame.repairs, place)
    yield Fault(
        at=place,
        called=places.called(place),
        reason=taken if missing is None else missing.reason,
        mend=planned or (missing.commands if missing is not None else ()),
        planned=bool(planned),
        way=number,
        step=len(branch.hops) - 1,
    )


class _Known(NamedTuple):
    """What is missing, and what mends it."""

    reason: causes.Reason
    commands: tuple[str, ...] = ()


def _missing(places: Places, asked: Asked, place: Place, then: causes.OfWays, last: Hop | None) -> _Known | None:
    """What is missing where a packet got no further, though nothing there is wrong by itself; None where that is not so."""
    if last is None:
        return None
    port, protocol = asked.target.port, asked.target.protocol
    unserved = isinstance(then, causes.WrongTaker) or isinstance(causes.end_of(then), NobodyListens)
    at = last.after.destination
    if place.netns == HOST and at == asked.destination and unserved:
        return _Known(causes.NotLed(port, protocol, then), mend.to_sandbox(places, asked))
    if place.netns == names.SANDBOX and unserved:
        if not last.after.mark:
            commands = mend.to_balancer(places, asked, place)
            return _Known(causes.NoMark(port, protocol, then), commands)
        return _Known(causes.NotBalanced(last.after.mark, then))
    target = _target_port(asked)
    if target is not None and place != asked.start and places.task(place) is not None and at.port == port != target:
        commands = mend.to_target(places, asked, place, at.address, target)
        return _Known(causes.NotRedirected(port, protocol, target, then), commands)
    return None


def _in_range(places: Places, asked: Asked, then: causes.OfWays) -> _Known | None:
    """That a client from outside can't be answered, since nodes look for its address inside of the mesh."""
    client = asked.source.address
    if asked.start == OUTSIDE:
        for network in places.cluster.names.networks:
            if network.subnet is not None and client in network.subnet:
                return _Known(causes.ClientInRange(client, network.name, network.subnet, then))
    return None


def _target_port(asked: Asked) -> int | None:
    ports = () if asked.service is None else asked.service.ports
    same = (port.target for port in ports if (port.protocol, port.published) == (asked.target.protocol, asked.target.port))
    return next(same, None)


def _no_task(service: str, tasks: Sequence[NamedTask]) -> causes.Reason:
    if not tasks:
        return causes.NoTasks(service)
    return causes.NoneServes(tuple(f"{task.name} on {task.node or 'no node'}: {task.note or task.state}" for task in tasks))
