"""Labels that are settings: what they mean, what they refuse, and that taking one away takes its effect away."""

import pytest

from routemesh.errors import UserError
from routemesh.labels import interpret, without
from routemesh.model import ClientIp, HealthCheck, HealthKind, Protocol, Publish, ServiceSpec
from routemesh.values import replace

WEB = ServiceSpec(
    name="web", publish=(Publish(published=53, target=5353, protocol=Protocol.UDP), Publish(published=80, target=8080))
)
CMD = HealthCheck(kind=HealthKind.CMD_SHELL, command=("true",))


def labelled(spec: ServiceSpec = WEB, **labels: str) -> ServiceSpec:
    return replace(spec, labels={f"routemesh.{key.replace('_', '.')}": value for key, value in labels.items()})


@pytest.mark.parametrize(
    ("spec", "kind", "path", "port"),
    [
        (labelled(health_http="/"), HealthKind.HTTP, "/", 5353),
        (labelled(health_http="/health/live:9000"), HealthKind.HTTP, "/health/live", 9000),
        (labelled(health_tcp=""), HealthKind.TCP, "/", 5353),
        (labelled(health_tcp="65535"), HealthKind.TCP, "/", 65535),
    ],
)
def test_health_labels_are_a_health_check(spec: ServiceSpec, kind: HealthKind, path: str, port: int) -> None:
    found = interpret(spec).health
    assert found == HealthCheck(kind=kind, path=path, port=port)
    assert interpret(interpret(spec)) == interpret(spec)


def test_timings_of_a_health_check_stay() -> None:
    timed = replace(WEB, health=HealthCheck(kind=HealthKind.TCP, interval_s=1, retries=7))
    found = interpret(labelled(timed, health_http="/x")).health
    assert found == HealthCheck(kind=HealthKind.HTTP, path="/x", port=5353, interval_s=1, retries=7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (labelled(health_http="health"), "routemesh.health.http=health is not of the form /path or /path:port"),
        (labelled(health_http="/:0"), "routemesh.health.http: '0' is not a port"),
        (labelled(health_tcp="65536"), "routemesh.health.tcp: '65536' is not a port"),
        (labelled(health_tcp="x"), "routemesh.health.tcp: 'x' is not a port"),
        (labelled(ServiceSpec(name="a"), health_tcp=""), "routemesh.health.tcp names no port, and nothing is published"),
        (labelled(health_tcp="", health_http="/"), "one health check: give routemesh.health.http or routemesh.health.tcp"),
        (labelled(replace(WEB, health=CMD), health_tcp=""), "one health check: give routemesh.health.tcp or a health command"),
        (replace(WEB, labels={"routemesh.client-ip": "Keep"}), "routemesh.client-ip=Keep has an unknown value; use keep or snat"),
    ],
)
def test_wrong_labels_are_refused(spec: ServiceSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        interpret(spec)


def test_other_labels_and_settings_are_left_alone() -> None:
    spec = replace(WEB, labels={"team": "a"}, health=CMD, client_ip=ClientIp.SNAT)
    assert interpret(spec) == spec


def test_a_label_goes_with_what_it_has_set() -> None:
    plain = replace(WEB, labels={"team": "a"})
    spec = interpret(replace(plain, labels={"team": "a", "routemesh.client-ip": "snat", "routemesh.health.http": "/"}))
    assert spec.client_ip is ClientIp.SNAT
    assert without(spec, ["routemesh.client-ip", "routemesh.health.http", "nix"]) == plain
    assert without(replace(plain, health=CMD), ["routemesh.health.http"]).health == CMD
