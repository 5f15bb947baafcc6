"""`routemesh explain [CLIENT] NODE:PORT[/udp]`: which way a connection takes, and which hop is broken."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from routemesh.cli.host import Host
from routemesh.cli.output import is_terminal
from routemesh.errors import RoutemeshError, UserError
from routemesh.model import Protocol

if TYPE_CHECKING:
    from routemesh.explain import Explanation, Repairs
    from routemesh.snapshot import ClusterSnapshot

FORMATS = ("text", "json", "svg", "html", "mermaid")
_MOST_WORDS = 2


@click.command("explain")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", help="How to print it.")
@click.option("--from", "recordings", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Read recordings of nodes (routemesh record) instead of the nodes; may be given several times.")  # fmt: skip
@click.option("--swarm", is_flag=True, help="Explain this Docker Swarm node, instead of a cluster of routemesh.")
@click.argument("question", nargs=-1, required=True, metavar="[CLIENT] NODE:PORT[/udp]")
@click.pass_obj
def explain(host: Host, question: tuple[str, ...], format_: str, recordings: tuple[Path, ...], swarm: bool) -> None:
    """Walk a new connection through the kernels of all nodes, there and back, and say what decided at every step.

    CLIENT asks NODE: an address, a node's or a task's name, with a port of its own if that matters (192.0.2.7:40000); without
    it, somebody outside of the cluster.

    \b
    Exit status: 0 every way arrives, 3 something on the way is broken, 1 it can't be told.
    """
    from routemesh.explain import ask, explain, target

    if len(question) > _MOST_WORDS:
        raise click.UsageError(f"got {len(question)} words, but a question is [CLIENT] NODE:PORT[/udp]")
    wanted = target(question[-1])
    cluster, outside = _read(host, recordings, swarm, [(wanted.protocol, wanted.port)])
    asked = ask(cluster, wanted, question[0] if len(question) == _MOST_WORDS else "", outside)
    found = explain(cluster, asked)
    if found.outcome in ("partly", "broken"):
        repairs = _of_a_swarm(cluster) if recordings or swarm else _repairs(host, found)
        found = explain(cluster, asked, repairs)
    click.echo(_printed(found, format_), nl=False)
    if found.status:
        raise click.exceptions.Exit(found.status)


def _read(
    host: Host, recordings: tuple[Path, ...], swarm: bool, ports: list[tuple[Protocol, int]]
) -> "tuple[ClusterSnapshot, IPv4Address | None]":
    """What to explain, and the address of somebody outside, where that is known."""
    if recordings and swarm:
        raise UserError("--from and --swarm exclude one another: a recording is of a Swarm by itself")
    if recordings:
        from routemesh.recording.read import read

        return read(recordings), None
    if swarm:
        from routemesh.recording.swarm import live

        return live(), None
    from routemesh.lab import direct

    client = host.client()
    return direct.with_silent_nodes(client.snapshot(ports), host.socket()), direct.client_address(host.socket())


def _repairs(host: Host, found: "Explanation") -> "Repairs":
    """What the nodes on the way would change by themselves; one that does not say is left out."""
    from routemesh.explain import Repair

    client = host.client()
    repairs = {}
    nodes = {step.node for way in found.ways for step in (*way.there, *way.back)} | {cause.node for cause in found.causes}
    for name in sorted(nodes - {""}):
        try:
            repairs[name] = [Repair(op.netns, op.command) for op in client.diff(name).ops]
        except RoutemeshError:
            continue
    return repairs


def _of_a_swarm(cluster: "ClusterSnapshot") -> "Repairs":
    """What the nodes of a Swarm lack, by what their manager knows."""
    from routemesh.explain import Repair
    from routemesh.recording.expected import lacking

    return {
        node: [Repair(lack.netns, lack.command) for lack in lacks if lack.command] for node, lacks in lacking(cluster).items()
    }


def _printed(found: "Explanation", format_: str) -> str:
    if format_ == "json":
        import msgspec

        return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
    if format_ == "text":
        from routemesh.explain.text import Screen, text

        return text(found, Screen(colour=is_terminal(), width=_width()))
    from routemesh.explain.picture import html, mermaid, svg

    return {"svg": svg, "html": html, "mermaid": mermaid}[format_](found)


def _width() -> int:
    """The terminal's width; 0 where there is none."""
    import shutil

    return shutil.get_terminal_size().columns if is_terminal() else 0
