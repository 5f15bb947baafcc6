"""Requests about services: what is taken, and what is said to what is not."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from routemesh.decide import admit
from routemesh.errors import Conflict, NotFound, UserError
from routemesh.model import (
    ClientIp,
    HealthCheck,
    HealthKind,
    Listener,
    Mode,
    NodeId,
    Protocol,
    Publish,
    RestartPolicy,
    ServiceId,
    ServiceSpec,
    UpdateConfig,
)
from routemesh.values import replace
from tests.simulation import WEB, Simulation


def publish(*ports: tuple[int, int, str]) -> tuple[Publish, ...]:
    return tuple(Publish(published=port, target=target, protocol=Protocol(protocol)) for port, target, protocol in ports)


def refused(simulation: Simulation, spec: ServiceSpec) -> UserError:
    with pytest.raises(UserError) as caught:
        admit.create_service(simulation.state, spec, simulation.now)
    assert "\n" not in str(caught.value)
    return caught.value


def health(kind: HealthKind = HealthKind.HTTP, **fields: Any) -> HealthCheck:
    return replace(HealthCheck(kind=kind, port=80), **fields)


NAME_RULE = "is not a DNS label; use at most 63 letters, digits, - and _, with a letter or digit first and last"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": ""}, f"service name '' {NAME_RULE}"),
        ({"name": "a b"}, f"service name 'a b' {NAME_RULE}"),
        ({"name": "web\n"}, f"service name 'web\\n' {NAME_RULE}"),
        ({"name": "-web"}, f"service name '-web' {NAME_RULE}"),
        ({"name": "w" * 64}, f"service name '{'w' * 64}' {NAME_RULE}"),
        ({"replicas": -1}, "service web: replicas is -1; give a whole number, 0 or more"),
        ({"replicas": True}, "service web: replicas is True; give a whole number, 0 or more"),
        ({"replicas": "two"}, "service web: replicas is 'two'; give a whole number, 0 or more"),
        ({"image": ""}, "service web: it has no image; 'host' runs a program of the node"),
        ({"workdir": "tmp"}, "service web: working directory 'tmp' is not an absolute path; start it with /"),
        ({"environment": ("A=1", "FOO")}, "service web: environment entry 'FOO' is not KEY=VALUE"),
        ({"environment": ("=x",)}, "service web: environment entry '=x' is not KEY=VALUE"),
        ({"command": ("a\0b",)}, "service web: command, environment and working directory can't contain a NUL character"),
        ({"publish": publish((0, 80, "tcp"))}, "service web: published port 0 is out of range; use 1-65535"),
        ({"publish": publish((70000, 80, "tcp"))}, "service web: published port 70000 is out of range; use 1-65535"),
        ({"publish": publish((80, 65536, "tcp"))}, "service web: target port 65536 is out of range; use 1-65535"),
        (
            {"publish": publish((80, 80, "udp"), (80, 81, "udp"))},
            "service web: port 80/udp is published twice; give each port and protocol once",
        ),
        (
            {"publish": publish((4789, 80, "udp"))},
            "service web: port 4789/udp carries the cluster's own VXLAN; choose another",
        ),
        (
            {"constraints": ("node.role",)},
            "service web: constraint 'node.role' has no operator; write KEY==VALUE or KEY!=VALUE",
        ),
        (
            {"labels": {"routemesh.client-ip": "nat"}},
            "service web: label routemesh.client-ip=nat has an unknown value; use keep or snat",
        ),
        (
            {"labels": {"routemesh.sticky": "yes"}},
            "service web: label 'routemesh.sticky' is unknown; "
            "the labels of routemesh are: routemesh.client-ip, routemesh.health.http, routemesh.health.tcp, "
            "routemesh.lb, routemesh.affinity, routemesh.weight, routemesh.locality",
        ),
        ({"health": health(port=0)}, "service web: health check's port 0 is out of range; use 1-65535"),
        ({"health": health(path="x")}, "service web: health check's path 'x' does not start with /"),
        ({"health": health(interval_s=0)}, "service web: health check's interval is 0 s; give a time of more than 0"),
        (
            {"health": health(timeout_s=float("nan"))},
            "service web: health check's timeout is nan s; give a time of more than 0",
        ),
        ({"health": health(retries=0)}, "service web: health check's retries is 0; give a whole number, 1 or more"),
        ({"health": health(start_period_s=-1)}, "service web: health check's start period is -1 s; give a time of 0 or more"),
        ({"health": health(HealthKind.CMD)}, "service web: the health check has no command; give one, or remove the check"),
        (
            {"health": health(HealthKind.CMD_SHELL, command=("",))},
            "service web: the health check has no command; give one, or remove the check",
        ),
        (
            {"stop_signal": "SIGNO"},
            "service web: stop signal 'SIGNO' is unknown; use one such as SIGTERM or SIGRTMIN+3, or its number",
        ),
        ({"stop_grace_s": -1.0}, "service web: stop grace period is -1.0 s; give a time of 0 or more"),
        ({"restart": RestartPolicy(delay_s=-1.0)}, "service web: restart delay is -1.0 s; give a time of 0 or more"),
        ({"restart": RestartPolicy(window_s=-1.0)}, "service web: restart window is -1.0 s; give a time of 0 or more"),
        ({"restart": RestartPolicy(max_attempts=-1)}, "service web: restart max-attempts is -1; give a whole number, 0 or more"),
        ({"restart": RestartPolicy(max_attempts=101)}, "service web: restart max-attempts 101 is over 100; 0 means no limit"),
        ({"update": UpdateConfig(delay_s=float("inf"))}, "service web: update delay is inf s; give a time of 0 or more"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, Any], error: str) -> None:
    assert str(refused(Simulation(), replace(WEB, **changes))) == error


@pytest.mark.parametrize("name", ["w", "9", "a-b_c", "Web1", "w" * 63])
def test_names_that_dns_knows_are_taken(name: str) -> None:
    simulation = Simulation()
    assert simulation.create(replace(WEB, name=name)).spec.name == name


@pytest.mark.parametrize("name", ["web", "WEB"])
def test_a_name_is_given_once(name: str) -> None:
    simulation = Simulation()
    service = simulation.create(WEB)
    error = refused(simulation, ServiceSpec(name=name))
    assert isinstance(error, Conflict)
    assert str(error) == f"a service named 'web' exists (id {service.id}); choose another name or remove it first"


def test_a_port_is_published_once_but_tcp_is_not_udp() -> None:
    simulation = Simulation()
    service = simulation.create(WEB)
    error = refused(simulation, ServiceSpec(name="api", publish=publish((8080, 9, "tcp"))))
    assert isinstance(error, Conflict)
    assert str(error) == (
        f"service api: port 8080/tcp is already published by service web (id {service.id}); choose another or remove that service"
    )
    simulation.create(ServiceSpec(name="api", publish=publish((8080, 9, "udp"))))
    simulation.create(ServiceSpec(name="vxlan", publish=publish((4789, 9, "tcp"))))


def test_a_port_that_a_process_has_is_not_published() -> None:
    simulation = Simulation()
    listeners = (Listener(protocol=Protocol.TCP, port=8080, process="nginx"), Listener(protocol=Protocol.UDP, port=53))
    nodes = [NodeId("id-node2"), NodeId("id-node3")]
    for node_id in nodes:
        simulation.commit(admit.node_report(simulation.state, node_id, listeners=listeners))
    assert str(refused(simulation, WEB)) == (
        "service web: port 8080/tcp is taken by process nginx on node2, process nginx on node3; "
        "choose another or stop the process"
    )
    simulation.live.discard(nodes[1])
    simulation.step()
    assert str(refused(simulation, replace(WEB, publish=publish((53, 53, "udp"))))) == (
        "service web: port 53/udp is taken by a process on node2; choose another or stop the process"
    )
    simulation.create(replace(WEB, publish=publish((8080, 80, "udp"), (53, 53, "tcp"))))


def test_what_a_service_publishes_already_is_not_looked_for_on_the_nodes() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    listener = Listener(protocol=Protocol.TCP, port=8080, process="routemesh")
    simulation.commit(admit.node_report(simulation.state, next(iter(simulation.state.nodes)), listeners=(listener,)))
    simulation.update(replicas=3)
    simulation.create(replace(WEB, name="other", publish=publish((8081, 80, "tcp"))))
    with pytest.raises(Conflict, match="8081/tcp is already published by service other"):
        simulation.update(publish=publish((8080, 80, "tcp"), (8081, 81, "tcp")))


def test_the_label_says_whether_the_client_is_kept() -> None:
    simulation = Simulation()
    assert simulation.create(WEB).spec.client_ip is ClientIp.KEEP
    simulation.update(labels={"routemesh.client-ip": "snat", "team": "a", "routemesh.health.http": "/"})
    assert simulation.service().spec.client_ip is ClientIp.SNAT


def test_a_health_label_counts_whichever_way_the_spec_came() -> None:
    """admission reads all labels: a front that only makes a spec loses none of them."""
    simulation = Simulation()
    made = simulation.create(replace(WEB, labels={"routemesh.health.http": "/ok", "routemesh.client-ip": "snat"})).spec
    assert made.health == HealthCheck(kind=HealthKind.HTTP, path="/ok", port=80)
    simulation.update(labels={"routemesh.health.tcp": ""})
    assert simulation.service().spec.health == HealthCheck(kind=HealthKind.TCP, port=80)
    with pytest.raises(UserError, match=r"^service web: label routemesh\.health\.http=ok is not of the form"):
        simulation.update(labels={"routemesh.health.http": "ok"})


@pytest.mark.parametrize("name", ["RTMIN+3", "SIGRTMIN+3", "37"])
def test_a_realtime_signal_is_allowed(name: str) -> None:
    assert Simulation().create(replace(WEB, stop_signal=name)).spec.stop_signal == "SIGRTMIN+3"


@pytest.mark.parametrize("name", ["SIGINT", "INT", "int", "2"])
def test_a_stop_signal_is_known_by_its_full_name(name: str) -> None:
    simulation = Simulation()
    assert simulation.create(replace(WEB, stop_signal=name)).spec.stop_signal == "SIGINT"


def test_a_pool_that_is_too_small_is_told_of_before() -> None:
    simulation = Simulation(nodes=2, ingress=IPv4Network("10.0.0.0/28"))
    rest = "use fewer replicas or remove a service"
    error = refused(simulation, replace(WEB, replicas=11))
    assert isinstance(error, Conflict)
    assert str(error) == (
        "service web: ingress address pool exhausted: it needs 12 addresses (its own and one per task), "
        f"10.0.0.0/28 (13 addresses) has 11 left; {rest}"
    )
    simulation.commit(admit.create_service(simulation.state, replace(WEB, replicas=9), simulation.now))
    # The first service has not got its addresses yet.
    assert "needs 2 addresses (its own and one per task), 10.0.0.0/28 (13 addresses) has 1 left" in str(
        refused(simulation, replace(WEB, name="api", replicas=1, publish=publish((1, 1, "tcp"))))
    )
    simulation.create(replace(WEB, name="inner", replicas=50, publish=()))
    with pytest.raises(Conflict, match=r"service web: ingress address pool exhausted: it needs 12 addresses"):
        simulation.update(replicas=11)
    simulation.update(replicas=10)
    simulation.update(replicas=1)


def test_a_global_service_needs_an_address_on_every_node() -> None:
    simulation = Simulation(nodes=3, ingress=IPv4Network("10.0.0.0/29"))
    spec = replace(WEB, mode=Mode.GLOBAL, replicas=1)
    assert "needs 4 addresses (its own and one per task), 10.0.0.0/29 (5 addresses) has 2 left" in str(refused(simulation, spec))


def test_an_update_keeps_the_last_spec_and_counts() -> None:
    simulation = Simulation()
    created = simulation.create(WEB)
    simulation.now += 1
    simulation.update(replicas=3)
    service = simulation.service()
    assert (service.id, service.version, service.created_at, service.updated_at) == (created.id, 2, 1000.0, 1001.0)
    assert service.previous_spec == created.spec


def test_an_update_that_changes_nothing_is_none() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    assert admit.update_service(simulation.state, "web", lambda spec: replace(spec, stop_signal="TERM"), 0.0) is simulation.state


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "api"}, "service web can't be renamed to 'api'; create a new service and remove this one"),
        (
            {"mode": Mode.GLOBAL},
            "service web can't change from replicated to global; create a new service and remove this one",
        ),
        ({"replicas": -2}, "service web: replicas is -2; give a whole number, 0 or more"),
    ],
)
def test_an_update_is_checked_like_a_new_service(changes: dict[str, Any], error: str) -> None:
    simulation = Simulation()
    simulation.create(WEB)
    before = simulation.state
    with pytest.raises(UserError) as caught:
        simulation.update(**changes)
    assert str(caught.value) == error
    assert simulation.state is before


def test_a_service_is_found_by_name_id_or_the_beginning_of_its_id() -> None:
    simulation = Simulation()
    web = simulation.create(WEB)
    api = simulation.create(ServiceSpec(name="api"))
    assert admit.find_service(simulation.state, "web") is web
    assert admit.find_service(simulation.state, api.id) is simulation.service("api")
    assert admit.find_service(simulation.state, web.id[:8]) is web
    with pytest.raises(NotFound) as caught:
        admit.find_service(simulation.state, "shop")
    assert str(caught.value) == "no service named 'shop'; services are: api, web"
    for missing in (admit.remove_service, lambda state, name: admit.update_service(state, name, lambda spec: spec, 0.0)):
        with pytest.raises(NotFound):
            missing(simulation.state, "shop")


def test_an_ambiguous_beginning_names_the_candidates() -> None:
    simulation = Simulation()
    web = simulation.create(WEB)
    twin = replace(web, id=ServiceId(web.id[:-1] + "?"), spec=ServiceSpec(name="twin"))
    simulation.commit(replace(simulation.state, services={**simulation.state.services, twin.id: twin}))
    with pytest.raises(UserError) as caught:
        admit.find_service(simulation.state, web.id[:5])
    both = ", ".join(sorted((web.id, twin.id)))
    assert str(caught.value) == f"service id {web.id[:5]!r} is ambiguous: {both}; give more of it, or the name"


def test_without_services_there_is_nothing_to_find() -> None:
    with pytest.raises(NotFound) as caught:
        admit.find_service(Simulation().state, "")
    assert str(caught.value) == "no service named ''; there are no services"
