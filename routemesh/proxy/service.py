"""The gateway's own service: a proxy on every node, or on those that constraints leave. PURE."""

from routemesh.model import (
    Gateway,
    HealthCheck,
    HealthKind,
    Mode,
    Publish,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
)

NAME = "gateway"
_LOCALITY = {"routemesh.locality": "prefer-local"}
"""A node's clients meet the node's own proxy, and another node's while that is away."""


def spec(gateway: Gateway, constraints: tuple[str, ...]) -> ServiceSpec:
    """What `gateway enable` creates. A proxy gets connections once it listens; one that dies whole has a successor at once."""
    ports = [port for port in (gateway.http_port, gateway.https_port) if port]
    return ServiceSpec(
        name=NAME,
        command=("routemesh", "gateway", "proxy", gateway.driver.value),
        mode=Mode.GLOBAL,
        labels=_LOCALITY,
        publish=tuple(Publish(published=port, target=port) for port in ports),
        constraints=constraints,
        health=HealthCheck(kind=HealthKind.TCP, port=gateway.http_port, interval_s=2.0, timeout_s=2.0),
        restart=RestartPolicy(delay_s=0.0),
        update=UpdateConfig(order=UpdateOrder.START_FIRST),
        stop_grace_s=30.0,
        gateway=gateway,
    )
