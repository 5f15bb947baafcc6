"""Which request goes where: the table that both proxies' configurations are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.model import Http, NodeState, ServiceId, ServiceSpec, TaskState
from routemesh.proxy.routes import Backend, Route, RouteTable, candidates, effective, route_of, table
from routemesh.values import replace
from tests.simulation import Simulation

HOSTS = ("a.x", "b.x", "*.x", "*.b.x", "*")
PATHS = ("/", "/api", "/api/v2", "/apix")


def routing(*routes: tuple[str, str]) -> RouteTable:
    http = Http(hosts=("*",), port=80)
    names = [f"{host}{path}" for host, path in routes]
    return RouteTable(
        tuple(sorted((Route(host, path, f"{host}{path}") for host, path in routes), key=lambda r: (r.host, -len(r.path)))),
        tuple(Backend(name, ServiceId(name), http, ()) for name in names),
    )


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("a.x", "/", "a.x/"),
        ("A.X:8080", "/", "a.x/"),
        ("a.x", "/api", "a.x/api"),
        ("a.x", "/api/", "a.x/api"),
        ("a.x", "/api/v3", "a.x/api"),
        ("a.x", "/apix", "a.x/"),
        ("a.x", "/wild/y", "a.x/"),
        ("c.x", "/wild/y", "*.x/wild"),
        ("c.x", "/every", "*/every"),
        ("c.c.x", "/wild", None),
        ("c.x", "/", None),
        ("", "/every", "*/every"),
    ],
)
def test_the_most_specific_host_with_a_fitting_path_and_its_longest(host: str, path: str, expected: str | None) -> None:
    found = route_of(routing(("a.x", "/"), ("a.x", "/api"), ("*.x", "/wild"), ("*", "/every")), host, path)
    assert (found.backend if found else None) == expected


@given(
    st.sets(st.tuples(st.sampled_from(HOSTS), st.sampled_from(PATHS))),
    st.sampled_from(["a.x", "b.x", "c.x", "q.b.x", "x", "other"]),
    st.sampled_from(["/", "/api", "/api/", "/api/v2/z", "/apix", "/apixx", "/else"]),
)
def test_what_counts_for_a_host_alone_agrees_with_the_whole_table(routes: set[tuple[str, str]], host: str, path: str) -> None:
    made = routing(*routes)
    known = next((name for name in candidates(host) if any(route.host == name for route in made.routes)), "*")
    first = next((route for route in effective(made, known) if route.covers(path)), None)
    assert first == route_of(made, host, path)


def test_only_tasks_that_serve_on_nodes_that_live_are_servers() -> None:
    simulation = Simulation()
    labels = {"routemesh.http.host": "a.example", "routemesh.http.port": "8000"}
    simulation.create(ServiceSpec(name="web", command=("true",), labels=labels, replicas=3))
    simulation.settle()
    (backend,) = table(simulation.state).backends
    assert [(server.task, server.port) for server in backend.servers] == [("web.1", 8000), ("web.2", 8000), ("web.3", 8000)]
    assert simulation.state.ingress is not None
    for server in backend.servers:
        assert simulation.state.ingress.subnet[server.number] == server.address
    first, second, third = simulation.serving("web")
    assert third.node_id is not None
    state = replace(
        simulation.state,
        tasks={**simulation.state.tasks, first.id: replace(first, desired=TaskState.SHUTDOWN)},
        nodes={**simulation.state.nodes, third.node_id: replace(simulation.state.nodes[third.node_id], state=NodeState.DOWN)},
    )
    assert [server.name for server in table(state).backends[0].servers] == [second.id[:12]]


def test_a_task_of_an_older_spec_keeps_its_port() -> None:
    simulation = Simulation()
    labels = {"routemesh.http.host": "a.example", "routemesh.http.port": "8000"}
    simulation.create(ServiceSpec(name="web", command=("true",), labels=labels, replicas=2))
    simulation.settle()
    simulation.update("web", labels={**labels, "routemesh.http.port": "9000"})
    assert 8000 in [server.port for server in table(simulation.state).backends[0].servers]
    simulation.settle()
    assert [server.port for server in table(simulation.state).backends[0].servers] == [9000, 9000]
