"""`routemesh plan NODE` and `routemesh diff NODE`: what a node's kernel should have, and what the node would change now."""

import click

from routemesh import wire
from routemesh.cli.host import Host, node_names
from routemesh.cli.output import format_flag, print_json, say, say_text

DRIFT = 3
"""The exit status of a difference."""


@click.command("plan")
@format_flag
@click.argument("node", shell_complete=node_names)
@click.pass_obj
def plan(host: Host, node: str, format_: str) -> None:
    """Print everything that routemesh wants in a node's kernel, namespace by namespace, as commands and rulesets."""
    found = host.client().plan(node)
    if format_ == "json":
        print_json(found)
    else:
        say_text("\n".join(_section(found.node, namespace) for namespace in found.namespaces))


def _section(node: str, namespace: wire.NamespaceInfo) -> str:
    title = f"namespace {namespace.name}" if namespace.name else f"the namespace of {node} itself"
    lines = [f"# {title}", *namespace.commands]
    if namespace.ruleset:
        lines += [f"# nft list ruleset, in {title}", namespace.ruleset.rstrip("\n")]
    if namespace.iptables:
        lines += [f"# iptables-save, in {title}", namespace.iptables.rstrip("\n")]
    return "".join(f"{line}\n" for line in lines)


@click.command("diff")
@format_flag
@click.argument("node", shell_complete=node_names)
@click.pass_obj
def diff(host: Host, node: str, format_: str) -> None:
    """Print what a node would change in its kernel now, as commands. The exit status is 3 if there is anything."""
    found = host.client().diff(node)
    if format_ == "json":
        print_json(found)
    elif not found.ops:
        say("no difference")
    else:
        say_text("".join(f"{op.command}\n" for op in found.ops))
    if found.ops:
        raise click.exceptions.Exit(DRIFT)
