"""Why a request goes where it goes."""

from ipaddress import IPv4Address

from routemesh.model import Gateway, GatewayDriver
from routemesh.proxy.explain import explain
from routemesh.proxy.request import Request
from routemesh.values import replace
from tests.addresses import on_ingress
from tests.simulation import Simulation
from tests.unit.test_labels_http import GATEWAY, spec


def cluster(driver: GatewayDriver = GatewayDriver.HAPROXY) -> Simulation:
    simulation = Simulation()
    simulation.create(replace(GATEWAY, gateway=Gateway(driver=driver)))
    simulation.create(replace(spec("web", host="a.example", sticky="cookie"), replicas=3))
    simulation.create(replace(spec("api", host="a.example", path="/api", sticky="source"), replicas=2))
    simulation.create(replace(spec("one", host="*.example", tls="redirect")))
    simulation.create(replace(spec("none", host="none.example"), replicas=0))
    simulation.settle()
    return simulation


def told(simulation: Simulation, **request: str | bool | IPv4Address) -> tuple[list[str], int, int]:
    found = explain(simulation.state, Request(**request))  # type: ignore[arg-type]
    return [f"{step.at}: {step.decision} ({step.why})" for step in found.steps], len(found.servers), found.status


def test_a_cookie_names_its_task() -> None:
    simulation = cluster()
    second = simulation.serving("web")[1]
    steps, servers, status = told(simulation, host="a.example", cookie=second.id[:12])
    assert (servers, status) == (1, 0)
    assert steps == [
        "frontend: http on port 80 (haproxy of the entry node)",
        "rule: a.example (the most specific host with a fitting path: just this name)",
        "backend: web (the service that has label routemesh.http.host=a.example)",
        f"server: web.2 ({second.id[:12]}) at {on_ingress(second)}:80 (cookie ROUTEMESH-web={second.id[:12]} names it)",
    ]
    assert told(simulation, host="a.example", cookie="gone")[1] == 3
    assert "names no task that serves: roundrobin" in told(simulation, host="a.example", cookie="gone")[0][-1]
    by_hash = cluster(GatewayDriver.NGINX)
    assert "a consistent hash of the gateway's cookie" in told(by_hash, host="a.example")[0][-1]
    assert "hash of the gateway's cookie, x, leads to it" in told(by_hash, host="a.example", cookie="ROUTEMESH_ab=x")[0][-1]


def test_the_longest_path_and_a_hash() -> None:
    steps, servers, _ = told(cluster(), host="a.example", path="/api/x")
    assert servers == 2
    assert (
        "rule: a.example/api (the most specific host with a fitting path: just this name, the longest path of 2 that fit)"
        in steps
    )
    assert "a consistent hash of the client's address, the same on every node" in steps[-1]
    assert told(cluster(), host="a.example", path="/api/x", source=IPv4Address("192.0.2.7"))[1] == 1


def test_what_the_gateway_answers_itself() -> None:
    simulation = cluster()
    assert told(simulation, host="b.example")[2] == 308
    assert told(simulation, host="b.example", tls=True)[1:] == (1, 0)
    assert told(simulation, host="none.example")[2] == 503
    assert told(simulation, host="elsewhere.test")[2] == 404
    assert told(simulation, host="a.example", path="/api/%2E./x")[2] == 400
    assert told(Simulation(), host="a.example")[0] == ["gateway: none (it is not enabled)"]
