"""What tasks and nodes answered that were asked, in words; what is wrong with those that did not. PURE."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from routemesh.doctor import Finding, Severity, listed
from routemesh.reasons.words import unchecked
from routemesh.sightings import PortAnswer
from routemesh.snapshot import ANY_ADDRESS, Bound, ClusterSnapshot

if TYPE_CHECKING:  # a command that waits for answers needs only their words
    from routemesh.doctor.facts import Facts


def trouble(node: str, answer: PortAnswer) -> str:
    """What is wrong with an answer, "" where nothing is."""
    if answer.well:
        return ""
    return _of_task(answer) if answer.asked.task else _of_node(node, answer)


def is_elsewhere(answer: PortAnswer) -> bool:
    """Whether a process waits, but not where the task is asked: that will hardly change by itself."""
    return not answer.well and bool(answer.instead)


def _of_node(node: str, answer: PortAnswer) -> str:
    asked = answer.asked
    port = f"{asked.port}/{asked.protocol}"
    why = {"refused": "the connection is refused", "silence": answer.what or "nothing comes"}.get(answer.outcome, answer.what)
    return f"{node} does not answer on {port}: {why}; see routemesh explain {node} {node}:{port}"


def _of_task(answer: PortAnswer) -> str:
    asked, task, outcome = answer.asked, answer.asked.task, answer.outcome
    there = f"{asked.address}:{asked.target}"
    process = answer.process or "its process"
    if outcome == "unasked":
        return f"{task} could not be asked: {answer.what}"
    if outcome == "stopped":
        return f"{task} does not answer on {there}: {process} is stopped"
    if outcome == "waits":
        return f"{task} does not answer on {there}: {process} takes no connections"
    if answer.process:
        return f"{task} does not answer on {there}, though {process} listens: {answer.what or outcome}"
    verb = "listens on" if asked.protocol == "tcp" else "is bound to"
    same = [each for each in answer.instead if each.port == asked.target]
    if same:
        return f"{task} {verb} {listed(map(str, same))}, not on {there}{_by(same)}"
    if answer.instead:
        return f"no process of {task} {verb} {asked.target}; it {verb} {listed(map(_place, answer.instead))}{_by(answer.instead)}"
    return f"no process of {task} {verb} {asked.target}/{asked.protocol}, or any other port"


def _place(bound: Bound) -> str:
    return str(bound.port) if bound.address == str(ANY_ADDRESS) else str(bound)


def _by(bound: "tuple[Bound, ...] | list[Bound]") -> str:
    names = sorted({each.process for each in bound if each.process})
    return f" ({listed(names)})" if names else ""


def findings(cluster: ClusterSnapshot, facts: "Facts", told: Mapping[tuple[str, str], object]) -> Iterator[Finding]:
    """Of tasks of the cluster's services. `told`: the nodes and namespaces of which something is wrong anyway."""
    checked = {service.name: service.checked for service in cluster.names.services}
    of = {task.name: task.service for task in cluster.names.tasks if task.service in checked}
    every = [(name, each) for name, node in facts.nodes.items() for each in node.answers if each.asked.task in of]
    for node, answer in every:
        asked = answer.asked
        if not answer.well and (node, asked.netns) not in told:
            service = of[asked.task]
            hint = f"; {unchecked(service)}" if checked.get(service) is False else ""
            yield Finding(
                what="task",
                where=f"{node}: task {asked.task}",
                state=Severity.UNKNOWN if answer.outcome == "unasked" else Severity.WRONG,
                found=trouble(node, answer),
                effect=f"connections that are led to it fail: {service} {asked.port}/{asked.protocol}{hint}",
                fix=f"routemesh service logs {service}",
            )
    tcp = [answer for _, answer in every if answer.asked.protocol == "tcp"]
    good = sum(answer.well for answer in tcp)
    if good:
        yield Finding(
            what="answers",
            where=listed((name for name, node in facts.nodes.items() if node.answers), 8),
            state=Severity.OK,
            found=f"{'all' if good == len(tcp) else f'{good} of'} {len(tcp)} tasks' ports took a connection"
            " from the sandbox of their node",
        )
    for name, said in facts.nodes.items():
        if facts.asking and not said.asked:
            yield Finding(
                what="answers",
                where=name,
                state=Severity.UNKNOWN,
                found="its tasks were not asked: its daemon is of a version that asks none",
                effect="what is said of its tasks' answers is predicted",
            )
