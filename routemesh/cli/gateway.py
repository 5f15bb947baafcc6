"""`routemesh gateway …`: the proxies in front of services, by host name and path."""

import sys
from ipaddress import IPv4Address, IPv4Network

import click

from routemesh import wire
from routemesh.api.client import Client
from routemesh.cli.groups import Group
from routemesh.cli.host import Host
from routemesh.cli.output import format_flag, print_json, print_table, say, say_text, short
from routemesh.cli.progress import Waiting, wait_flags
from routemesh.cli.values import ADDRESS, GATEWAY_PORTS, HEADER, SUBNET, URL, OneOf
from routemesh.model import Gateway, GatewayDriver, ServiceSpec


@click.group("gateway", cls=Group)
def gateway() -> None:
    """HAProxy or nginx in front of services; they join by labels routemesh.http.…"""


@gateway.command("enable")
@click.option("--driver", type=OneOf(GatewayDriver), default=GatewayDriver.HAPROXY, help="haproxy (default) or nginx.")
@click.option("--publish", "ports", type=GATEWAY_PORTS, default="80,443", help="HTTP, or HTTP,HTTPS (default 80,443).")
@click.option("--constraint", "constraints", multiple=True, help="Where proxies may run (default: on every node).")
@click.option("--accept-proxy", type=SUBNET, multiple=True, help="Load balancers that speak the PROXY protocol to the gateway.")
@wait_flags
@click.pass_obj
def enable(
    host: Host,
    /,
    driver: GatewayDriver,
    ports: tuple[int, int],
    constraints: tuple[str, ...],
    accept_proxy: tuple[IPv4Network, ...],
    waiting: Waiting,
) -> None:
    """Run a proxy on every node, or change how they run; without a break, one after the other."""
    from routemesh.proxy import service

    client = host.client()
    http_port, https_port = ports
    made = Gateway(driver=driver, http_port=http_port, https_port=https_port, accept_proxy=accept_proxy)
    if https_port:
        _ensure_certificate(client)
    enabled = _enabled(client, service.spec(made, constraints))
    say(enabled.id)
    waiting.wait(client, enabled)


def _ensure_certificate(client: Client) -> None:
    """Clients that ask for a name without a certificate get one of our own."""
    from routemesh.gateway import selfsigned
    from routemesh.pem import DEFAULT_CERTIFICATE

    if not any(secret.name == DEFAULT_CERTIFICATE for secret in client.secrets()):
        client.create_secret(DEFAULT_CERTIFICATE, selfsigned.make(("routemesh.invalid",)))


def _enabled(client: Client, spec: ServiceSpec) -> wire.ServiceInfo:
    present = next((info for info in client.services() if info.spec.gateway is not None), None)
    if present is None:
        return client.create_service(spec)
    return client.update_service(present.id, wire.ServiceUpdate(version=present.version, spec=spec))


@gateway.command("disable")
@click.pass_obj
def disable(host: Host) -> None:
    """Remove the proxies; services behind them go on."""
    client = host.client()
    found = client.gateway()
    client.remove_service(found.service)
    say(found.service)


@gateway.command("ls")
@format_flag
@click.pass_obj
def ls(host: Host, format_: str) -> None:
    """List routes in the order in which they count: of a host's, the longest path first."""
    found = host.client().gateway()
    if format_ == "json":
        print_json(found.routes)
        return
    rows = ((route.host, route.path, route.service, route.tls, route.sticky, _tasks(route, found)) for route in found.routes)
    print_table(("HOST", "PATH", "SERVICE", "TLS", "STICKY", "TASKS"), rows)


def _tasks(route: wire.RouteInfo, found: wire.GatewayInfo) -> str:
    if route.service in found.refused:
        return "left out: answers 503, see routemesh gateway status"
    return ", ".join(route.servers) or "none: answers 503"


@gateway.command("status")
@format_flag
@click.pass_obj
def status(host: Host, format_: str) -> None:
    """Show the proxies, and what is wrong with them or with certificates."""
    found = host.client().gateway(keys=True)
    if format_ == "json":
        print_json(found)
        return
    tls = f", {found.https_port} (HTTPS)" if found.https_port else ""
    say(f"driver {found.driver}, ports {found.http_port} (HTTP){tls}, {len(found.routes)} routes")
    rows = (
        (
            proxy.node,
            short(proxy.task),
            proxy.state.capitalize(),
            proxy.address or "",
            "yes" if proxy.serving else "no",
            proxy.error,
        )
        for proxy in found.proxies
    )
    print_table(("NODE", "TASK", "STATE", "ADDRESS", "SERVES", "ERROR"), rows)
    for service, said in found.refused.items():
        say(f"service {service}: {said}")
    for warning in found.warnings:
        say(f"warning: {warning.text}")
    for node, kind in found.keys_on_disk.items():
        say(f"note: {node} has the keys of certificates on {kind}; with a tmpfs as its run directory they never touch a disk")


@gateway.command("config")
@click.option(
    "--for", "program", type=click.Choice(["haproxy", "nginx", "envoy"]), required=True, help="Which program it is for."
)
@click.option("--to", type=click.Choice(["nodes", "tasks"]), default="nodes", help="All nodes, or those with tasks, by number.")
@click.pass_obj
def config(host: Host, program: str, to: str) -> None:
    """Print a configuration for a load balancer outside of the cluster: every published port, over the nodes."""
    say_text(host.client().gateway_config(program, to))


@gateway.command("explain")
@click.option("--cookie", default="", help="The client's cookie of the gateway: NAME=VALUE, or VALUE.")
@click.option("--header", "headers", type=HEADER, multiple=True, metavar="NAME:VALUE", help="A header of the request.")
@click.option("--source", type=ADDRESS, help="The client's address.")
@format_flag
@click.argument("url", type=URL)
@click.pass_obj
def explain(
    host: Host,
    url: tuple[bool, str, str],
    cookie: str,
    headers: tuple[tuple[str, str], ...],
    source: IPv4Address | None,
    format_: str,
) -> None:
    """Tell where a request for URL would go, as the cluster wants it. `routemesh explain --http` asks the proxies."""
    from routemesh.proxy.request import Request

    tls, name, path = url
    request = Request(host=name, path=path, tls=tls, cookie=cookie, headers=headers, source=source)
    found = host.client().gateway_explain(request)
    if format_ == "json":
        print_json(found)
        return
    print_table(("AT", "DECISION", "WHY"), ((step.at, step.decision, step.why) for step in found.steps))


@gateway.command("proxy", hidden=True)
@click.argument("driver", type=click.Choice([driver.value for driver in GatewayDriver]))
def proxy(driver: str) -> None:
    """What the gateway's tasks run: keep one proxy running."""
    from routemesh.gateway.supervise import main

    sys.exit(main(driver))
