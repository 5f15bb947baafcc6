"""`routemesh trace [CLIENT] NODE:PORT[/udp]`: a real packet's way, beside the one that `explain` predicts.

Daemons watch; a client outside is the lab's, whose probe is sent from here. Nodes of a lab whose daemons are silent are watched
from here too.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from routemesh.cli.host import Host, endpoints, task_names
from routemesh.cli.output import OWN_ESCAPE, is_coloured, print_json, print_table, say, say_text, terminal_width, to_json
from routemesh.cli.waits import waits
from routemesh.errors import Unavailable, UserError

if TYPE_CHECKING:
    from routemesh.api.client import Conversation
    from routemesh.lab.find import Lab
    from routemesh.trace.nouns import Trace, Traced
    from routemesh.trace.talk import Ready

_MOST_WORDS = 2


@click.command("trace")
@click.option("--http", metavar="HOST[/PATH]", default="", help="Ask for a page of HOST; /PATH alone asks the node.")
@click.option("--live", is_flag=True, help="Send nothing: wait for somebody's connection.")
@click.option("--all", "every", is_flag=True, help="Send one connection after another until each way was taken, and tell of all.")
@click.option("--task", metavar="TASK", default="", shell_complete=task_names,
              help="Send one connection after another until one is led to this task (web.2), and tell of that.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="How long to wait for the answer (2), or with --live for a connection (60).")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@click.argument("question", nargs=-1, required=True, metavar="[CLIENT] NODE:PORT[/udp]", shell_complete=endpoints)
@click.pass_obj
def trace(
    host: Host, question: tuple[str, ...], http: str, live: bool, every: bool, task: str, timeout: float | None, format_: str
) -> None:
    """Send a real connection or datagram, watch it in every namespace on its way, and hold that against what is predicted.

    CLIENT is given as for explain. Everything that is added to watch is gone afterwards, also after an interrupt. Which of
    several ways a connection takes is the mesh's choice: --all and --task ask again until it has chosen them.

    \b
    Exit status: 0 it arrives as predicted, 3 it does not arrive, or not as predicted, 4 it can't be told.
    """
    if len(question) > _MOST_WORDS:
        raise click.UsageError(f"got {len(question)} words, but a question is [CLIENT] NODE:PORT[/udp]")
    if http and live:
        raise click.UsageError("--live sends nothing, so there is no --http")
    if (live and (every or task)) or (every and task):
        raise click.UsageError("--all, --task and --live exclude one another")
    wanted, client = question[-1], question[0] if len(question) == _MOST_WORDS else ""
    name, _, path = http.partition("/")
    query = {"client": client, "http": f"/{path}" if http else "", "host": name, "live": str(int(live))}
    query = query if timeout is None else {**query, "timeout": str(timeout)}
    status = _many(host, wanted, query, task, format_) if every or task else _one(_traced(host, wanted, query), format_)
    if status:
        raise click.exceptions.Exit(status)


def _one(found: "Trace", format_: str) -> int:
    """Print one trace; its exit status."""
    say_text(_printed(found, format_))
    if format_ != "json" and (ways := len(found.prediction.ways)) > 1 and found.way >= 0:
        say(f"This is one of {ways} ways: --all follows each, --task TASK one that is chosen.")
    return found.status


def _many(host: Host, wanted: str, query: Mapping[str, str], task: str, format_: str) -> int:
    """Trace until each way, or that to the `task`, was taken; print that; its exit status."""
    from routemesh.trace.every import HEADINGS, amiss, patience, rows, sought, taken, together

    found = [_traced(host, wanted, query)]
    ways = sought(found[0].prediction, task)
    while not ways <= taken(found) and len(found) < patience(len(found[0].prediction.ways)):
        found.append(_traced(host, wanted, query))
    every = together(found, ways)
    if task and every.traces:
        say_text(_printed(every.traces[0], format_))
    elif format_ == "json":
        print_json(every)
    else:
        print_table(HEADINGS, rows(every))
        for line in (every.verdict, *amiss(every)):
            say(line)
    return every.status


def _traced(host: Host, wanted: str, query: Mapping[str, str]) -> "Trace":
    """One connection; while it is waited for or watched, a terminal says so."""
    live = query["live"] == "1"
    with waits(f"waiting for a connection to {wanted}; Ctrl-C ends it" if live else f"watching a connection to {wanted}"):
        return _watched(host, wanted, query)


def _watched(host: Host, wanted: str, query: Mapping[str, str]) -> "Trace":
    """By the daemons; in a lab without them, if one is silent."""
    from routemesh.trace.compare import compare
    from routemesh.trace.talk import Ready

    lab = host.lab()
    outside = "" if lab is None else str(lab.client)
    try:
        with host.client().trace(wanted, outside=outside, **query) as talk:
            ready = talk.hear(Ready)
            if lab is None or not ready.unwatched:
                unwatched = [f"{name} ({why})" for name, why in ready.unwatched.items()]
                return compare(_by_daemons(talk, lab, ready), unwatched)
    except Unavailable:
        if lab is None or not _has_silent_nodes(host):
            raise
    return _in_lab(host, lab, wanted, query)


def _by_daemons(talk: "Conversation", lab: "Lab | None", ready: "Ready") -> "Traced":
    """Send the probe if it comes from outside, which is the lab's client; or let it be sent."""
    from routemesh.lab import topology
    from routemesh.trace.talk import Go, Result

    sent = None
    if ready.probe is not None and not ready.probe.node and lab is not None:
        from routemesh.sight.sender import send

        sent = send(ready.probe, lab.netns(topology.CLIENT))
    talk.say(Go(sent=sent))
    result = talk.hear(Result)
    if result.traced is None:
        raise UserError(result.error or "the daemon told nothing")
    return result.traced


def _has_silent_nodes(host: Host) -> bool:
    return any(node.absent for node in host.client().snapshot().names.nodes)


def _in_lab(host: Host, lab: "Lab", wanted: str, query: Mapping[str, str]) -> "Trace":
    from routemesh.explain.ask import target
    from routemesh.lab import direct, tracing
    from routemesh.trace.compare import compare
    from routemesh.trace.wanted import LIVE_TIMEOUT_S, TIMEOUT_S, Asking

    live, asked = query["live"] == "1", target(wanted)
    asking = Asking(
        target=asked,
        client=query["client"],
        outside=str(lab.client),
        http=query["http"],
        host=query["host"],
        live=live,
        timeout_s=float(query.get("timeout", LIVE_TIMEOUT_S if live else TIMEOUT_S)),
    )
    cluster = direct.with_silent_nodes(host.client().snapshot([(asked.protocol, asked.port)]), lab)
    found = tracing.trace(cluster, lab, asking)
    dark = [f"{node.name} ({node.absent})" for node in cluster.names.nodes if node.absent]
    return compare(found, dark)


def _printed(found: "Trace", format_: str) -> str:
    if format_ == "json":
        return to_json(found, indent=2)
    from routemesh.explain.text import Screen
    from routemesh.trace.text import text

    return text(found, Screen(colour=is_coloured(), width=terminal_width(), escape=OWN_ESCAPE))
