"""Labels by which a service joins the gateway: what each may say, and what two services may not both have."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from routemesh.decide import admit
from routemesh.errors import Conflict, UserError
from routemesh.labels.http import TABLE, http
from routemesh.model import (
    Gateway,
    GatewayDriver,
    Header,
    Http,
    HttpBalance,
    HttpProtocol,
    Mode,
    Protocol,
    Publish,
    ServiceSpec,
    Sticky,
)
from routemesh.values import replace
from tests.addresses import on_ingress
from tests.simulation import WEB, Simulation

HOST = {"routemesh.http.host": "app.example.com"}
WEB_PORT = WEB.publish
GATEWAY = ServiceSpec(
    name="gateway",
    command=("routemesh", "gateway", "proxy"),
    mode=Mode.GLOBAL,
    publish=(Publish(published=80, target=80), Publish(published=443, target=443)),
    gateway=Gateway(),
)


def read(**labels: str) -> Http:
    """The labels routemesh.http.NAME, with `_` for `-`; a host if none is given."""
    ours = {f"routemesh.http.{name.replace('_', '-')}": value for name, value in labels.items()}
    found = http(HOST | ours, WEB_PORT)
    assert found is not None
    return found


def spec(name: str, **labels: str) -> ServiceSpec:
    ours = {f"routemesh.http.{key.replace('_', '-')}": value for key, value in labels.items()}
    return ServiceSpec(name=name, command=("true",), labels={"routemesh.http.port": "80"} | ours)


def refusal(simulation: Simulation, spec: ServiceSpec, kind: type[UserError] = UserError) -> str:
    with pytest.raises(kind) as caught:
        simulation.create(spec)
    return str(caught.value)


def test_without_labels_a_service_does_not_join() -> None:
    assert http({"other": "label"}, WEB_PORT) is None


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, {}),
        ({"host": "App.Example.com, *.example.org"}, {"hosts": ("app.example.com", "*.example.org")}),
        ({"host": "*"}, {"hosts": ("*",)}),
        ({"path": "/api/"}, {"path": "/api"}),
        ({"path": "/"}, {"path": "/"}),
        ({"port": "8081"}, {"port": 8081}),
        ({"protocol": "grpc"}, {"protocol": HttpProtocol.GRPC}),
        ({"sticky": "cookie"}, {"sticky": Sticky.COOKIE}),
        ({"sticky": "header:X-User"}, {"sticky": Sticky.HEADER, "sticky_header": "X-User"}),
        ({"tls": "redirect"}, {"redirect": True}),
        ({"tls": "web-cert"}, {"certificate": "web-cert"}),
        ({"tls": "web-cert,redirect"}, {"certificate": "web-cert", "redirect": True}),
        ({"tls": "passthrough"}, {"passthrough": True}),
        ({"balance": "leastconn"}, {"balance": HttpBalance.LEASTCONN}),
        ({"health": "/healthz"}, {"health": "/healthz"}),
        ({"timeout": "500ms"}, {"timeout_s": 0.5}),
        ({"timeout": "2h"}, {"timeout_s": 7200.0}),
        ({"maxconn": "10"}, {"maxconn": 10}),
        ({"retry": "0"}, {"retries": 0}),
        ({"compress": "on"}, {"compress": True}),
        ({"allow": "192.0.2.0/24,10.1.2.3"}, {"allow": (IPv4Network("192.0.2.0/24"), IPv4Network("10.1.2.3/32"))}),
        ({"proxy_protocol": "v2"}, {"proxy_protocol": 2}),
        (
            {"header_add": "X-Env=prod;response:X-Frame-Options=DENY"},
            {"headers": (Header(name="X-Env", value="prod"), Header(name="X-Frame-Options", value="DENY", to_response=True))},
        ),
    ],
)
def test_each_label_means_something(labels: dict[str, str], expected: dict[str, Any]) -> None:
    assert read(**labels) == replace(Http(hosts=("app.example.com",), port=80), **expected)


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        ({"host": ""}, "'' is not a host name; use names such as app.example.com or \\*.example.com"),
        ({"host": "a..b"}, "not a host name"),
        ({"host": "a.b:80"}, "not a host name"),
        ({"host": "-a.b"}, "not a host name"),
        ({"host": "a*.b"}, "not a host name"),
        ({"host": "*.*.b"}, "not a host name"),
        ({"host": "a b"}, "not a host name"),
        ({"host": "a.b\n server x"}, "not a host name"),
        ({"host": 'a"b'}, "not a host name"),
        ({"host": "bücher.example"}, "not a host name.*xn-- form"),
        ({"host": "\u212aelvin.example"}, "not a host name"),  # KELVIN SIGN, which lower() makes a k
        ({"host": "a" * 64}, "not a host name"),
        ({"host": ",".join(f"h{number}.example" for number in range(65))}, "use at most 64"),
        ({"path": "api"}, "not a path; use one such as /api"),
        ({"path": "/a b"}, "not a path"),
        ({"path": "/a//b"}, "not a path"),
        ({"path": "/a/../b"}, "not a path"),
        ({"path": "/%61"}, "not a path"),
        ({"path": "/a\n"}, "not a path"),
        ({"path": "/a;b"}, "not a path"),
        ({"path": "/a{b}"}, "not a path"),
        ({"path": "/\uff41"}, "not a path"),
        ({"port": "0"}, "use 1-65535"),
        ({"port": "\uff18\uff10"}, "use 1-65535"),
        ({"port": " 80"}, "use 1-65535"),
        ({"protocol": "h2"}, "use http or grpc"),
        ({"sticky": "ip"}, "use cookie, source or header:NAME"),
        ({"sticky": "cookie:x"}, "use cookie, source or header:NAME"),
        ({"sticky": "header:"}, "use cookie, source or header:NAME"),
        ({"sticky": "header:a b"}, "use cookie, source or header:NAME"),
        ({"tls": ""}, "use the name of a secret"),
        ({"tls": "cert,x"}, "use the name of a secret"),
        ({"tls": "../key"}, "use the name of a secret"),
        ({"balance": "rr"}, "use roundrobin or leastconn or random"),
        ({"health": "healthz"}, "not a path"),
        ({"timeout": "60"}, "use one such as 500ms, 60s, 5m or 1h"),
        ({"timeout": "25h"}, "at most 24h"),
        ({"timeout": "0s"}, "not a duration"),
        ({"maxconn": "0"}, "use 1-1000000"),
        ({"retry": "11"}, "use 0-10"),
        ({"compress": "yes"}, "use on or off"),
        ({"allow": "10.0.0.1/24"}, "not an IPv4 network; use CIDRs such as 192.0.2.0/24"),
        ({"allow": ""}, "not an IPv4 network"),
        ({"allow": "255.255.255.255"}, "not an IPv4 network"),
        ({"allow": ",".join(["192.0.2.1"] * 1001)}, "1001 networks; use at most 1000"),
        ({"header_add": ";".join(["X-A=b"] * 65)}, "65 headers; use at most 64"),
        ({"max_header": "65k"}, "use 1k-64k"),
        ({"max_header": "16"}, "use 1k-64k"),
        ({"proxy_protocol": "2"}, "use v1 or v2"),
        ({"header_add": "X-Env"}, r"not of the form \[request:\|response:\]NAME=VALUE"),
        ({"header_add": 'X-Env=a"b'}, "not of the form"),
        ({"header_add": "X-Env=%[src]"}, "not of the form"),
        ({"header_add": "X-Env=$host"}, "not of the form"),
        ({"header_add": "X-Env=a\\"}, "not of the form"),
        ({"header_add": "X-Env=a\r\nX: b"}, "not of the form"),
        ({"header_add": "Host=x"}, "the gateway's own to write"),
        ({"path": "/x", "tls": "passthrough"}, "the gateway sees no path"),
        ({"host": "*", "tls": "passthrough"}, "give names"),
        ({"sticky": "cookie", "tls": "passthrough"}, "routemesh.http.sticky: .*sees no HTTP"),
        ({"protocol": "grpc", "tls": "passthrough"}, "sees no HTTP"),
    ],
)
def test_what_no_label_may_say(labels: dict[str, str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        read(**labels)


def test_an_unknown_label_is_refused_with_the_known_ones() -> None:
    message = refusal(Simulation(), replace(WEB, labels=HOST | {"routemesh.http.hosts": "x"}))
    assert message == f"service web: label 'routemesh.http.hosts' is unknown; the labels of routemesh are: {', '.join(TABLE)}"


def test_without_a_host_a_service_does_not_join_by_half() -> None:
    assert "label routemesh.http.path needs routemesh.http.host" in refusal(
        Simulation(), replace(WEB, labels={"routemesh.http.path": "/api"})
    )


def test_a_service_that_publishes_nothing_says_its_port() -> None:
    labels = HOST
    assert "label routemesh.http.port must say" in refusal(
        Simulation(), ServiceSpec(name="web", command=("true",), labels=labels)
    )


def test_the_port_is_the_first_published_tcp_target() -> None:
    publish = (Publish(published=53, target=53, protocol=Protocol.UDP), Publish(published=8080, target=9000))
    assert (found := http(HOST, publish)) is not None and found.port == 9000


def test_a_published_number_must_not_hide_the_port() -> None:
    publish = (Publish(published=9000, target=80),)
    with pytest.raises(UserError, match=r"hides its port 9000; use routemesh.http.port=80"):
        http(HOST | {"routemesh.http.port": "9000"}, publish)


def test_a_service_behind_the_gateway_has_addresses_though_it_publishes_nothing() -> None:
    simulation = Simulation()
    service = simulation.create(spec("web", host="a.example"))
    assert (on_ingress(service), service.fwmark) == (None, None)
    assert all(on_ingress(task) is not None for task in simulation.tasks("web"))


def test_joining_replaces_tasks_and_another_host_does_not() -> None:
    simulation = Simulation()
    simulation.create(replace(spec("web"), labels={}))
    simulation.settle()
    (before,) = simulation.serving("web")
    assert on_ingress(before) is None
    simulation.update("web", labels=spec("web", host="a.example").labels)
    simulation.settle()
    (joined,) = simulation.serving("web")
    assert joined.id != before.id and on_ingress(joined) is not None
    simulation.update("web", labels=spec("web", host="b.example").labels)
    simulation.settle()
    assert simulation.serving("web")[0].id == joined.id


def test_the_second_service_with_a_host_and_path_is_refused_naming_the_first() -> None:
    simulation = Simulation()
    first = simulation.create(spec("web", host="a.example,b.example", path="/api"))
    message = refusal(simulation, spec("other", host="c.example,B.example", path="/api/"), Conflict)
    assert message == (
        f"service other: host b.example with path /api is already service web's (id {first.id}); "
        "choose another host or path, or remove that service"
    )
    simulation.create(spec("other", host="b.example", path="/api/v2"))


def test_tls_of_a_name_is_the_gateways_or_a_tasks() -> None:
    simulation = Simulation()
    simulation.create(spec("web", host="a.example", path="/api"))
    assert "is either the gateway's or a task's" in refusal(
        simulation, spec("raw", host="a.example", tls="passthrough"), Conflict
    )


def test_there_is_one_gateway() -> None:
    simulation = Simulation()
    simulation.create(GATEWAY)
    again = replace(GATEWAY, name="other", publish=GATEWAY.publish)
    with pytest.raises(Conflict):
        admit.create_service(simulation.state, again, 0.0)


@pytest.mark.parametrize(
    "labels",
    [{"health": "/healthz"}, {"proxy_protocol": "v2"}, {"maxconn": "5"}, {"sticky": "cookie", "balance": "leastconn"}],
)
def test_what_nginx_lacks_is_refused_whichever_comes_first(labels: dict[str, str]) -> None:
    nginx = replace(GATEWAY, gateway=Gateway(driver=GatewayDriver.NGINX))
    joining = spec("web", host="a.example", **labels)
    simulation = Simulation()
    simulation.create(nginx)
    assert "driver nginx" in refusal(simulation, joining)
    simulation = Simulation()
    simulation.create(joining)
    assert "driver nginx" in refusal(simulation, nginx)


def test_tls_needs_a_tls_port() -> None:
    simulation = Simulation()
    simulation.create(replace(GATEWAY, publish=GATEWAY.publish[:1], gateway=Gateway(https_port=0)))
    assert "label routemesh.http.tls needs a TLS port" in refusal(simulation, spec("web", host="a.example", tls="redirect"))
