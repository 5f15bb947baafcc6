"""Why a way does not end as it should, and what mends it. PURE.

A walk tells where a packet ended. What a person needs is what is missing there, in the words of the mesh; and of what is ours,
the command that a node's own plan has for it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from routemesh import names
from routemesh.explain import mend, nearby
from routemesh.explain.ask import Asked
from routemesh.explain.mend import Repairs
from routemesh.explain.nouns import Cause
from routemesh.explain.shown import rule_text
from routemesh.explain.way import Places
from routemesh.nodeplan import HOST, Chain, XtChain
from routemesh.snapshot import NamedTask
from routemesh.walk import Branch, Delivered, Dropped, Hop, Place, Refused, ReplyArrives, ReplyLost, Unclear, Walk

_KEPT_AWAY = "{0} has no task that this node may lead to (labels routemesh.locality, routemesh.weight)"
_NOBODY_LISTENS = "nothing listens"
_ENDING = ("dropped", "refused")
"""How a hop is told that ended the packet."""


def of_branch(places: Places, asked: Asked, branch: Branch, number: int, repairs: Repairs, *, arrived: bool) -> Iterator[Cause]:
    """What is wrong on one way; nothing where it ends well. What is switched off comes first, for all else may follow from it."""
    failure = _failure(branch)
    if failure is None:
        yield from _wrong_place(places, asked, branch, number, repairs)
        return
    place, why = failure
    hops = (*branch.hops, *branch.reply_hops)
    returning = isinstance(branch.outcome, Delivered)
    # The steps are those of small packets, which get through where large ones do not.
    step = -1 if arrived else len(hops) - 1 if returning else len(branch.hops) - 1
    last = hops[step] if 0 <= step < len(hops) else None
    yield from nearby.links_down(places, branch, number, repairs)
    yield from nearby.doubled(places, branch, number, repairs)
    missing = None if returning else _missing(places, asked, place, why, last)
    ended_by = last if last is not None and last.what.startswith(_ENDING) else None
    by = mend.foreign(places, ended_by)
    why = f"{why}{_whose(ended_by, by)}"
    planned = mend.planned(repairs, place)
    untold = isinstance(branch.outcome.reply if isinstance(branch.outcome, Delivered) else branch.outcome, Unclear)
    at_end = planned if untold else mend.of_end(places, place, why, ended_by, repairs)
    yield Cause(
        node=place.node,
        namespace=place.netns,
        place=places.called(place),
        why=why if missing is None else missing.why,
        mend=at_end if missing is None else planned or missing.commands,
        way=number,
        step=step,
        by=by,
    )
    yield from nearby.unlike_planned(places, branch, place, number, repairs)


def of_service(places: Places, asked: Asked, branches: Walk, repairs: Repairs) -> Iterator[Cause]:
    """Tasks that serve and to which no way leads, and a service that has none."""
    if asked.service is None:
        return
    tasks = [task for task in places.cluster.names.tasks if task.service == asked.service.name]
    serving = [task for task in tasks if task.serving]
    entry = Place(asked.target.node, HOST)
    if not serving:
        tool = "docker" if any(node.kind == "swarm" for node in places.cluster.nodes.values()) else "routemesh"
        yield Cause(
            node="",
            namespace="",
            place=f"service {asked.service.name}",
            why=_no_task(asked.service.name, tasks),
            mend=(f"{tool} service ps {asked.service.name}",),
        )
        return
    if not asked.service.answers_on(entry.node):
        yield Cause(node=entry.node, namespace=HOST, place=places.called(entry), why=_KEPT_AWAY.format(asked.service.name))
        return
    sandbox = Place(entry.node, names.SANDBOX)
    if entry.node in repairs and not mend.planned(repairs, sandbox):
        return  # by hash, weight or distance others were chosen
    aimed_at = {hop.after.destination.address for branch in branches for hop in branch.hops}
    met = [task for task in serving if not aimed_at.isdisjoint(task.addresses.values())]
    for task in sorted(serving, key=lambda task: task.name):
        if met and task not in met:
            why = f"{task.name} serves, but no connection is led to it"
            ways = (command for address in task.addresses.values() for command in mend.to_task(places, asked, sandbox, address))
            commands = mend.planned(repairs, sandbox) or tuple(ways)
            yield Cause(node=entry.node, namespace=names.SANDBOX, place=places.called(sandbox), why=why, mend=commands)


def _whose(last: Hop | None, by: str) -> str:
    """In which table of others, by which rule, made by which tool."""
    if last is None or not isinstance(last.item, Chain | XtChain) or getattr(last.item, "table", "") == names.TABLE:
        return ""
    rule, where = rule_text(last.item, last.rule), mend.table_of(last.item)
    tool = f"{by}, " if by not in ("", where) else ""
    return f" ({tool}{where}{': ' * bool(rule)}{rule})"


# --- where and why -----------------------------------------------------------------------------------------------


def _failure(branch: Branch) -> tuple[Place, str] | None:
    match branch.outcome:
        case Delivered(reply=ReplyArrives(), full_size=ReplyLost(place, why)):
            return place, f"large packets are lost: {why}"
        case Delivered(reply=ReplyArrives(), full_size=Unclear(place, what)):
            return place, f"what becomes of large packets can't be told: {what}"
        case Delivered(reply=ReplyArrives()):
            return None
        case Delivered(reply=ReplyLost(place, why)):
            return place, f"the answer is lost: {why}"
        case Delivered(reply=Unclear(place, what)):
            return place, f"what becomes of the answer can't be told: {what}"
        case Unclear(place, what):
            return place, f"what happens can't be told: {what}"
        case Refused(place, why) | Dropped(place, why):
            return place, why
    raise AssertionError(branch.outcome)


def takes_it(places: Places, asked: Asked, place: Place) -> bool:
    """Whether a process there is meant: a task of the service that publishes the port, or anybody where that is not known."""
    task = places.task(place)
    known = asked.service is not None and bool(places.cluster.names.tasks)
    return not known or (task is not None and asked.service is not None and task.service == asked.service.name)


def _wrong_place(places: Places, asked: Asked, branch: Branch, number: int, repairs: Repairs) -> Iterator[Cause]:
    """Somebody takes the connection who is none of the service's: as dockerd does, which only keeps the port."""
    place, outcome = branch.outcome.place, branch.outcome
    if takes_it(places, asked, place) or asked.service is None:
        return
    process = outcome.process if isinstance(outcome, Delivered) else ""
    why = f"{process or 'a process'}, no task of {asked.service.name}, takes the connection"
    missing = _missing(places, asked, place, f"{_NOBODY_LISTENS} for it but {why}", branch.hops[-1] if branch.hops else None)
    if missing is not None:
        why = f"{missing.why.partition(':')[0]}: {why}"
    yield Cause(
        node=place.node,
        namespace=place.netns,
        place=places.called(place),
        why=why,
        mend=mend.planned(repairs, place) or (missing.commands if missing is not None else ()),
        way=number,
        step=len(branch.hops) - 1,
    )


class _Known(NamedTuple):
    """What is missing, and what mends it."""

    why: str
    commands: tuple[str, ...] = ()


def _missing(places: Places, asked: Asked, place: Place, why: str, last: Hop | None) -> _Known | None:
    """What is missing where a packet got no further, though nothing there is wrong by itself; None where that is not so."""
    if last is None:
        return None
    port = f"{asked.target.port}/{asked.target.protocol}"
    at = last.after.destination
    if place.netns == HOST and at == asked.destination and _NOBODY_LISTENS in why:
        return _Known(f"port {port} is not led to the sandbox: nothing translates it, and {why}", mend.to_sandbox(places, asked))
    if place.netns == names.SANDBOX and _NOBODY_LISTENS in why:
        if not last.after.mark:
            commands = mend.to_balancer(places, asked, place)
            return _Known(f"port {port} gets no firewall mark, so nothing balances it, and {why}", commands)
        return _Known(f"nothing balances what has mark {last.after.mark:#x}, and {why}")
    target = _target_port(asked)
    if target is not None and places.task(place) is not None and at.port == asked.target.port != target:
        commands = mend.to_target(places, asked, place, at.address, target)
        return _Known(f"published port {port} is not redirected to {target}, and {why}", commands)
    return None


def _target_port(asked: Asked) -> int | None:
    ports = () if asked.service is None else asked.service.ports
    same = (port.target for port in ports if (port.protocol, port.published) == (asked.target.protocol, asked.target.port))
    return next(same, None)


def _no_task(service: str, tasks: Sequence[NamedTask]) -> str:
    if not tasks:
        return f"{service} has no task"
    each = [f"{task.name} on {task.node or 'no node'}: {task.note or task.state}" for task in tasks]
    return f"none of its tasks takes connections ({'; '.join(each)})"
