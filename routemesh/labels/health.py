"""Settings that Docker has no flag for travel as labels of the service: what they mean. PURE.

    routemesh.client-ip=keep|snat            whom a task sees as its peer
    routemesh.health.http=/path[:port]       healthy means: GET answers with a status below 400
    routemesh.health.tcp[=port]              healthy means: a connection is accepted

Without a port, the first published target port is asked.
"""

from collections.abc import Iterable, Mapping

from routemesh.errors import UserError
from routemesh.model import ClientIp, HealthCheck, HealthKind, Publish, ServiceSpec
from routemesh.values import replace

CLIENT_IP, HEALTH_HTTP, HEALTH_TCP = "routemesh.client-ip", "routemesh.health.http", "routemesh.health.tcp"
TABLE: Mapping[str, tuple[str, ...]] = {CLIENT_IP: tuple(ClientIp), HEALTH_HTTP: ("/path", "/path:port"), HEALTH_TCP: ()}

_PROBES = (HealthKind.HTTP, HealthKind.TCP)
_LAST_PORT = 65535


def client_ip(spec: ServiceSpec) -> ClientIp:
    """Whom tasks see: what the label says, else what the spec says. Raises UserError."""
    value = spec.labels.get(CLIENT_IP, spec.client_ip)
    if value not in tuple(ClientIp):
        raise UserError(f"label {CLIENT_IP}={value} has an unknown value; use {' or '.join(ClientIp)}")
    return ClientIp(value)


def is_probed(labels: Mapping[str, str]) -> bool:
    """Whether labels ask for a health check."""
    return HEALTH_HTTP in labels or HEALTH_TCP in labels


def without(spec: ServiceSpec, keys: Iterable[str]) -> ServiceSpec:
    """The spec without these labels and what they had filled in."""
    gone = spec.labels.keys() & set(keys)
    spec = replace(spec, labels={key: value for key, value in spec.labels.items() if key not in gone})
    if CLIENT_IP in gone:
        spec = replace(spec, client_ip=ClientIp.KEEP)
    if gone & {HEALTH_HTTP, HEALTH_TCP} and spec.health is not None and spec.health.kind in _PROBES:
        spec = replace(spec, health=None)
    return spec


def health(spec: ServiceSpec) -> HealthCheck | None:
    """The check that a label asks for, with the times of the spec's own; else that one. Raises UserError."""
    wanted = [label for label in (HEALTH_HTTP, HEALTH_TCP) if label in spec.labels]
    if not wanted:
        return spec.health
    if spec.health is not None and spec.health.kind not in _PROBES:
        wanted.append("a health command")
    if len(wanted) > 1:
        raise UserError(f"a service has one health check: give {' or '.join(wanted)}")
    timings = spec.health or HealthCheck(kind=HealthKind.TCP)
    text = spec.labels[wanted[0]]
    if wanted[0] == HEALTH_TCP:
        return replace(timings, kind=HealthKind.TCP, path="/", port=_port(HEALTH_TCP, text, spec.publish))
    path, _, port = text.partition(":")
    if not path.startswith("/"):
        raise UserError(f"label {HEALTH_HTTP}={text} is not of the form /path or /path:port")
    return replace(timings, kind=HealthKind.HTTP, path=path, port=_port(HEALTH_HTTP, port, spec.publish))


def _port(label: str, text: str, publish: tuple[Publish, ...]) -> int:
    if not text:
        if not publish:
            raise UserError(f"label {label} names no port, and nothing is published that it could mean; add a port")
        return publish[0].target
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= _LAST_PORT):
        raise UserError(f"label {label}: {text!r} is not a port; use 1-{_LAST_PORT}")
    return int(text)
