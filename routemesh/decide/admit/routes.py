"""Whether a service's routes through the gateway clash with others', and whether the gateway can do what it asks for. PURE."""

from collections.abc import Iterator

from routemesh.decide.admit.secrets import find_secret
from routemesh.errors import Conflict, UserError
from routemesh.labels.http import PREFIX, PROXY_PROTOCOL, TLS
from routemesh.model import Gateway, GatewayDriver, Header, HttpBalance, HttpProtocol, Mode, Protocol, Service, ServiceSpec, State
from routemesh.pem import check_strength, read

_GRPC_NAME = 46
"""Its hash of gRPC headers has buckets of 64 bytes (ngx_http_grpc_init_headers)."""


def check_routes(state: State, service: Service) -> None:
    """Raises Conflict for a host and path that another service has, UserError for what the gateway's driver can't do."""
    http = service.spec.http
    if http is None:
        return
    for other in sorted(state.services.values(), key=lambda other: other.created_at):
        if other.id == service.id or other.spec.http is None or other.spec.http.path != http.path:
            continue
        if common := [host for host in http.hosts if host in other.spec.http.hosts]:
            raise Conflict(
                f"service {service.spec.name}: host {common[0]} with path {http.path} is already service {other.spec.name}'s "
                f"(id {other.id}); choose another host or path, or remove that service"
            )
    _check_passthrough(state, service)
    _check_certificate(state, service)
    gateway = find_gateway(state)
    if gateway is not None and gateway.spec.gateway is not None:
        _check_driver(gateway.spec.gateway, service.spec)


def check_gateway(state: State, service: Service) -> None:
    """Raises Conflict for a second gateway, UserError for one whose driver can't do what services ask for."""
    gateway = service.spec.gateway
    if gateway is None:
        return
    present = find_gateway(state)
    if present is not None and present.id != service.id:
        raise Conflict(f"the gateway runs already, as service {present.spec.name}; routemesh gateway disable removes it")
    if service.spec.mode is not Mode.GLOBAL or service.spec.http is not None:
        raise UserError(f"service {service.spec.name}: the gateway is a global service and is not behind itself")
    wanted = {(port, port) for port in (gateway.http_port, gateway.https_port) if port}
    published = {(port.published, port.target) for port in service.spec.publish if port.protocol is Protocol.TCP}
    if published != wanted or len(service.spec.publish) != len(wanted):
        raise UserError(
            f"service {service.spec.name}: the gateway publishes just its ports, {', '.join(str(p) for p, _ in wanted)}"
        )
    if gateway.accept_proxy and gateway.driver is GatewayDriver.NGINX:
        raise UserError("driver nginx can't accept the PROXY protocol from some clients only; use --driver haproxy")
    for other in state.services.values():
        if other.spec.http is not None:
            _check_driver(gateway, other.spec)


def find_gateway(state: State) -> Service | None:
    """The gateway's own service."""
    return next((service for service in state.services.values() if service.spec.gateway is not None), None)


def _check_passthrough(state: State, service: Service) -> None:
    """One name's TLS is either the gateway's or a task's: the handshake has no path."""
    assert service.spec.http is not None
    for other in state.services.values():
        if other.id == service.id or other.spec.http is None or other.spec.http.passthrough is service.spec.http.passthrough:
            continue
        if common := [host for host in service.spec.http.hosts if host in other.spec.http.hosts]:
            raise Conflict(
                f"service {service.spec.name}: TLS of host {common[0]} is either the gateway's or a task's, and service "
                f"{other.spec.name} has it otherwise (label {TLS}=passthrough); choose another host"
            )


def _check_certificate(state: State, service: Service) -> None:
    """An expired one is taken: the old one may be all that there is. `certificates.warnings` tells."""
    assert service.spec.http is not None
    name = service.spec.http.certificate
    if not name:
        return
    try:
        data = find_secret(state, name).data
        read(data)
        check_strength(data)
    except UserError as exc:
        raise type(exc)(f"service {service.spec.name}: label {TLS}={name}: {exc}") from None


def _check_driver(gateway: Gateway, spec: ServiceSpec) -> None:
    assert spec.http is not None
    if missing := next(_missing(gateway, spec), None):
        raise UserError(f"service {spec.name}: {missing}")


def _is_long(header: Header) -> bool:
    return not header.to_response and len(header.name) > _GRPC_NAME


def _missing(gateway: Gateway, spec: ServiceSpec) -> Iterator[str]:
    """What a service asks for and this gateway lacks."""
    http = spec.http
    assert http is not None
    needs_tls = bool(http.certificate) or http.redirect or http.passthrough
    if needs_tls and not gateway.https_port:
        yield f"label {TLS} needs a TLS port, and the gateway has none; enable it with --publish HTTP,HTTPS"
    if gateway.driver is GatewayDriver.HAPROXY:
        return
    if http.proxy_protocol and not (http.passthrough and http.proxy_protocol == 1):
        yield (
            f"label {PROXY_PROTOCOL}=v{http.proxy_protocol}: driver nginx sends only v1, and that only with {TLS}=passthrough; "
            "use driver haproxy"
        )
    if http.maxconn:
        yield f"label {PREFIX}maxconn: driver nginx would refuse what is over the limit, not queue it; use driver haproxy"
    if http.protocol is HttpProtocol.GRPC and not gateway.https_port:
        yield f"label {PREFIX}protocol=grpc: driver nginx takes HTTP/2 only with TLS, and the gateway has no TLS port"
    if http.protocol is HttpProtocol.GRPC and (long := [header.name for header in http.headers if _is_long(header)]):
        yield f"label {PREFIX}header-add: with gRPC, driver nginx takes names of {_GRPC_NAME} letters at most; {long[0]} has more"
    if http.health:
        yield f"label {PREFIX}health: driver nginx has no active checks; use routemesh.health.http, or driver haproxy"
    if http.sticky is not None and http.balance is not HttpBalance.ROUNDROBIN:
        yield f"label {PREFIX}balance={http.balance}: driver nginx shares out what is sticky by hash only; use driver haproxy"
