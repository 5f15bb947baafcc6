"""`routemesh explain [CLIENT] NODE:PORT[/udp]`: which way a connection takes, and which hop is broken.

The answer is the daemon's. Only recordings, a Docker Swarm, and a lab's nodes whose daemons are silent are explained here.
"""

from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from routemesh.cli.host import Host, endpoints
from routemesh.cli.output import OWN_ESCAPE, is_coloured, say_text, terminal_width, to_json
from routemesh.cli.values import HEADER, URL
from routemesh.cli.waits import waits
from routemesh.errors import Unavailable, UserError
from routemesh.model import Protocol

if TYPE_CHECKING:
    from routemesh.explain.mend import Repairs
    from routemesh.explain.nouns import Explanation
    from routemesh.proxy.request import Request
    from routemesh.snapshot import ClusterSnapshot

FORMATS = ("text", "json", "svg", "html", "mermaid")
_MOST_WORDS = 2
_NO_PORT = (Protocol.TCP, 0)
"""Of connections none is needed: this one has none."""


@click.command("explain")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", help="How to print it.")
@click.option("--from", "recordings", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Read recordings of nodes (routemesh record) instead of the nodes; may be given several times.")  # fmt: skip
@click.option(
    "--http",
    "url",
    type=URL,
    metavar="URL",
    help="Go on through the gateway, with a request for HOST[/PATH]; on its TLS port it is asked by TLS.",
)
@click.option("--cookie", default="", help="The client's cookie of the gateway, for --http: NAME=VALUE, or VALUE.")
@click.option("--header", "headers", type=HEADER, multiple=True, metavar="NAME:VALUE", help="A header, for --http.")
@click.option("--brief", is_flag=True, help="Print how each way ends, what is wrong and what mends it; no steps.")
@click.option("--way", type=click.IntRange(min=1), metavar="N", help="Print the steps of way N; those that fail come first.")
@click.option("--swarm", is_flag=True, help="Explain this Docker Swarm node, instead of a cluster of routemesh.")
@click.argument("question", nargs=-1, metavar="[CLIENT] NODE:PORT[/udp]", shell_complete=endpoints)
@click.pass_obj
def explain(
    host: Host,
    /,
    question: tuple[str, ...],
    format_: str,
    recordings: tuple[Path, ...],
    swarm: bool,
    url: tuple[bool, str, str] | None,
    cookie: str,
    headers: tuple[tuple[str, str], ...],
    brief: bool,
    way: int | None,
) -> None:
    """Walk a new connection through the kernels of all nodes, there and back, and say what decided at every step.

    CLIENT asks NODE: an address, a node's or a task's name, with a port of its own if that matters (192.0.2.7:40000); without
    it, somebody outside of the cluster. In a network of a Docker Swarm a task may ask SERVICE:PORT, or another task.

    Without a question --format svg, html, mermaid or json shows the cluster itself: nodes, networks, tasks, published ports.

    \b
    Exit status: 0 every way arrives, 3 something on the way is broken, 4 it can't be told.
    """
    if (brief or way) and (format_ != "text" or (brief and way)):
        raise click.UsageError("--brief and --way are two ways to print text: give one of them, and no other --format")
    if not question:
        say_text(_of_the_cluster(host, recordings, format_, swarm=swarm, asks=url is not None or brief or way is not None))
        return
    if len(question) > _MOST_WORDS:
        raise click.UsageError(f"got {len(question)} words, but a question is [CLIENT] NODE:PORT[/udp]")
    if recordings and swarm:
        raise UserError("--from and --swarm exclude one another: a recording is of a Swarm by itself")
    wanted, client = question[-1], question[0] if len(question) == _MOST_WORDS else ""
    request = _request(url, cookie, headers)
    if request is not None and (recordings or swarm):
        raise UserError("--http asks the gateway's proxies, which no recording and no Swarm has")
    with waits("reading the nodes"):
        seen = _read(recordings) if recordings or swarm else None
        found = _asked(host, wanted, client, request) if seen is None else _of_recordings(seen, wanted, client)
    say_text(_printed(found, format_, way=way or 0, brief=brief))
    if found.status:
        raise click.exceptions.Exit(found.status)


def _of_the_cluster(host: Host, recordings: tuple[Path, ...], format_: str, *, swarm: bool, asks: bool) -> str:
    """What there is, without a question."""
    if format_ == "text" or asks:
        raise click.UsageError("what is asked is missing: [CLIENT] NODE:PORT[/udp]; --format svg alone draws the cluster")
    from routemesh.explain.ground import ground
    from routemesh.explain.picture import charted, drawn, of_ground, terrain

    found = ground(_read(recordings) if recordings or swarm else host.client().snapshot([_NO_PORT]))
    match format_:
        case "svg":
            return drawn(terrain(found))
        case "mermaid":
            return charted(terrain(found))
        case "html":
            return of_ground(found)
        case _:
            return to_json(found, indent=2)


def _request(url: tuple[bool, str, str] | None, cookie: str, headers: tuple[tuple[str, str], ...]) -> "Request | None":
    from routemesh.proxy.request import Request

    if url is None:
        if cookie or headers:
            raise click.UsageError("--cookie and --header belong to a request: --http HOST[/PATH]")
        return None
    tls, name, path = url
    return Request(host=name, path=path, tls=tls, cookie=cookie, headers=headers)


def _read(recordings: tuple[Path, ...]) -> "ClusterSnapshot":
    """The recordings; without any, this Swarm node."""
    if recordings:
        from routemesh.recording.read import read

        return read(recordings)
    from routemesh.recording.swarm import live

    return live()


def _of_recordings(cluster: "ClusterSnapshot", wanted: str, client: str) -> "Explanation":
    """Where something is broken, with what the nodes of a Swarm lack by what their manager knows."""
    from routemesh.doctor.mesh import recorded
    from routemesh.recording.expected import lacking

    found = _explained(cluster, wanted, client, None)
    if found.outcome not in ("partly", "broken"):
        return found
    return _explained(cluster, wanted, client, None, recorded(lacking(cluster)).repairs())


def _asked(host: Host, wanted: str, client: str, request: "Request | None") -> "Explanation":
    """What the daemon says. In a lab, nodes whose daemons are silent are on this machine all the same, but not for a request."""

    lab = host.lab()
    outside = "" if lab is None else str(lab.client)
    try:
        found = host.client().explain(wanted, client, outside, request)
    except Unavailable:
        if lab is None or request is not None:
            raise
    else:
        if lab is None or request is not None or not found.unread_nodes:
            return found
    from routemesh.explain.ask import target
    from routemesh.lab import direct

    asked = target(wanted)
    cluster = direct.with_silent_nodes(host.client().snapshot([(asked.protocol, asked.port)]), lab)
    return _explained(cluster, wanted, client, lab.client)


def _explained(
    cluster: "ClusterSnapshot", wanted: str, client: str, outside: IPv4Address | None, repairs: "Repairs | None" = None
) -> "Explanation":
    from routemesh.explain.answer import explain
    from routemesh.explain.ask import ask, target

    return explain(cluster, ask(cluster, target(wanted), client, outside), repairs)


def _printed(found: "Explanation", format_: str, *, way: int, brief: bool) -> str:
    if format_ == "json":
        return to_json(found, indent=2)
    if format_ == "text":
        from routemesh.explain.text import Screen, text

        return text(found, Screen(colour=is_coloured(), width=terminal_width(), escape=OWN_ESCAPE), way=way, brief=brief)
    from routemesh.explain.picture import html, mermaid, svg

    return {"svg": svg, "html": html, "mermaid": mermaid}[format_](found)
