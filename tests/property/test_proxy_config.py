"""Whatever labels say, a proxy's configuration holds what it should and nothing else; and the proxies take it."""

import re
import string
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routemesh.decide import admit
from routemesh.errors import UserError
from routemesh.gateway import selfsigned
from routemesh.labels.http import LABELS, http
from routemesh.model import Gateway, GatewayDriver, ServiceSpec, State
from routemesh.proxy import haproxy, nginx
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import Table, table
from tests.simulation import Simulation
from tests.support import require
from tests.unit.test_labels_http import GATEWAY

CERTIFICATE = selfsigned.make(("a.example", "*.a.example"))

# Known words only: a line that begins with another was injected.
HAPROXY_WORDS = """
global description stats log user group fd-hard-limit hard-stop-after ssl-default-bind-options tune.ssl.default-dh-param
defaults mode option timeout frontend bind tcp-request http-request http-response http-error use_backend
default_backend backend balance hash-type retries compression http-check server use-server #
"""
NGINX_WORDS = """
# load_module user worker_processes pid error_log worker_shutdown_timeout events http } log_format access_log server_tokens
default_type server_names_hash_bucket_size variables_hash_max_size map_hash_bucket_size client_max_body_size proxy_http_version
proxy_buffering proxy_request_buffering proxy_connect_timeout grpc_connect_timeout ssl_protocols set_real_ip_from
real_ip_header map upstream hash least_conn random server keepalive listen ssl_certificate ssl_certificate_key server_name
location if return allow deny error_page add_header gzip gzip_proxied gzip_types proxy_set_header grpc_set_header
proxy_read_timeout proxy_send_timeout grpc_read_timeout grpc_send_timeout proxy_next_upstream_tries grpc_next_upstream_tries
proxy_next_upstream grpc_next_upstream proxy_pass grpc_pass stream default proxy_timeout proxy_protocol
"""

# --- labels ----------------------------------------------------------------------------------------------------------------

nasty = st.text(alphabet=st.sampled_from("\n\r\0\t \"'\\#{}$%;,:/*.=[]()<>|&`~!@?+-_aA1é\u2028\u200b\u212a\uff0f"), max_size=20)
anything = st.one_of(nasty, st.text(max_size=30))
words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
token = st.text(string.ascii_letters + string.digits + "-_.~", min_size=1, max_size=10)
hosts = st.one_of(
    st.just("*"), st.builds("{}.example".format, words), st.builds("*.{}.example".format, words), st.just("a.example,*.a.example")
)
paths = st.lists(token.filter(lambda part: part not in (".", "..")), max_size=3).map(lambda parts: "/" + "/".join(parts))
headers = st.builds(
    "{}X-{}={}".format,
    st.sampled_from(["", "request:", "response:"]),
    words,
    st.text(string.ascii_letters + "._~:/?=&,+@*()<>|!- ", min_size=1, max_size=20).map(lambda text: f"v{text}v"),
)
VALUES = {
    "host": hosts,
    "path": paths,
    "port": st.integers(1, 65535).map(str),
    "protocol": st.sampled_from(["http", "grpc"]),
    "sticky": st.one_of(st.sampled_from(["cookie", "source"]), st.builds("header:{}".format, words)),
    "tls": st.sampled_from(["redirect", "passthrough", "cert", "cert,redirect"]),
    "balance": st.sampled_from(["roundrobin", "leastconn", "random"]),
    "health": paths,
    "timeout": st.builds("{}{}".format, st.integers(1, 59), st.sampled_from(["s", "m", "ms"])),
    "maxconn": st.integers(1, 1000).map(str),
    "retry": st.integers(0, 10).map(str),
    "compress": st.sampled_from(["on", "off"]),
    "allow": st.sampled_from(["10.0.0.0/8", "192.0.2.0/24,203.0.113.7"]),
    "proxy-protocol": st.sampled_from(["v1", "v2"]),
    "header-add": st.lists(headers, min_size=1, max_size=3).map(";".join),
}
good_labels = st.fixed_dictionaries(
    {"host": VALUES["host"], "port": VALUES["port"]},
    optional={name: VALUES[name] for name in VALUES if name not in ("host", "port")},
)
bad_labels = st.dictionaries(st.sampled_from(sorted(VALUES)), anything, max_size=2)


def made(labels: dict[str, str]) -> dict[str, str]:
    return {f"routemesh.http.{name}": value for name, value in labels.items()}


@st.composite
def states(draw: st.DrawFn, driver: GatewayDriver, *, spoilt: bool) -> State:
    """A cluster with those of some services that are admitted."""
    simulation = Simulation(nodes=2)
    simulation.commit(admit.create_secret(simulation.state, "cert", CERTIFICATE, 0.0))
    simulation.create(replace(GATEWAY, gateway=Gateway(driver=driver)))
    for number, good in enumerate(draw(st.lists(good_labels, min_size=1, max_size=6))):
        labels = good | (draw(bad_labels) if spoilt else {})
        if driver is GatewayDriver.NGINX:  # which has no such things; that it says so is tested elsewhere
            labels = {
                name: value for name, value in labels.items() if name not in ("health", "maxconn", "proxy-protocol", "balance")
            }
        replicas = draw(st.integers(0, 2))
        spec = ServiceSpec(name=f"s{number}", command=("true",), labels=made(labels), replicas=replicas)
        try:
            simulation.commit(admit.create_service(simulation.state, spec, simulation.now))
        except UserError as refused:
            assert "\n" not in str(refused)
    simulation.settle()
    return simulation.state


def rendered(state: State, driver: GatewayDriver, directory: str = "/run/x") -> tuple[Table, Rendered]:
    routes, gateway, pem = table(state), Gateway(driver=driver), CERTIFICATE.decode()
    render = {GatewayDriver.HAPROXY: haproxy.render, GatewayDriver.NGINX: nginx.render}[driver]
    return routes, render(routes, gateway, directory, {"cert": pem}, pem)


# --- laws ------------------------------------------------------------------------------------------------------------------


@given(anything, st.sampled_from(LABELS))
@settings(max_examples=3000)
def test_a_value_is_understood_or_refused_in_one_line(value: str, label: str) -> None:
    base = made({"host": "a.example", "port": "80"})
    try:
        http(base | {label: value}, ())
    except UserError as refused:
        assert len(str(refused).splitlines()) == 1


def lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.split("\n") if line.strip())


@given(states(GatewayDriver.HAPROXY, spoilt=True))
@settings(max_examples=150)
def test_haproxys_configuration_has_a_line_for_each_thing_and_no_other(state: State) -> None:
    routes, config = rendered(state, GatewayDriver.HAPROXY)
    found = list(lines(config.files[config.main]))
    assert {line.split()[0] for line in found} <= set(HAPROXY_WORDS.split())
    assert [line.split()[1] for line in found if line.startswith("backend ") and "routemesh:" not in line] == [
        backend.name for backend in routes.backends
    ]
    servers = [line for line in found if line.startswith("server ") and "inner" not in line]
    assert len(servers) == sum(len(backend.servers) for backend in routes.backends)
    assert all(re.fullmatch(r"[\x20-\x7e]+", line) for line in found)
    entries = next(text for name, text in config.files.items() if name.startswith("routes-"))
    assert len(entries.splitlines()) == len(routes.routes)


@given(states(GatewayDriver.NGINX, spoilt=True))
@settings(max_examples=150)
def test_nginxs_configuration_has_a_line_for_each_thing_and_no_other(state: State) -> None:
    _, config = rendered(state, GatewayDriver.NGINX)
    found = [
        line for line in lines(config.files[config.main]) if not re.match(r'[*"~a-z0-9.^\[\]+\\$-]+ 127\.0\.0\.1:\d+;$', line)
    ]
    assert {line.split()[0].rstrip(";") for line in found} <= set(NGINX_WORDS.split())
    text = config.files[config.main]
    assert text.count("{") == text.count("}")
    assert all(re.fullmatch(r"[\x20-\x7e]+", line) for line in found)


@given(states(GatewayDriver.HAPROXY, spoilt=False))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_haproxy_takes_every_configuration(tmp_path: Path, state: State) -> None:
    require("haproxy", "root")
    config = written(rendered(state, GatewayDriver.HAPROXY, str(tmp_path))[1], tmp_path)
    checked(["haproxy", "-c", "-q", "-f", str(config)])


@given(states(GatewayDriver.NGINX, spoilt=False))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nginx_takes_every_configuration(tmp_path: Path, state: State) -> None:
    require("nginx", "root", "netns")
    for socket in tmp_path.glob("*.sock"):
        socket.unlink()
    config = written(rendered(state, GatewayDriver.NGINX, str(tmp_path))[1], tmp_path)
    checked(["unshare", "--net", "nginx", "-e", "stderr", "-t", "-q", "-c", str(config)])


def written(config: Rendered, directory: Path) -> Path:
    for name, text in config.files.items():
        (directory / name).write_text(text)
    return directory / config.main


def checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[WARNING]" not in done.stderr and "[warn]" not in done.stderr, done.stderr


def test_a_directive_that_slipped_through_would_be_noticed() -> None:
    simulation = Simulation()
    simulation.create(ServiceSpec(name="web", command=("true",), labels=made({"host": "a.example", "port": "80"})))
    web = simulation.service("web")
    assert web.spec.http is not None
    spoilt = replace(web, spec=replace(web.spec, http=replace(web.spec.http, health="/x\n  evil directive")))
    _, config = rendered(replace(simulation.state, services={web.id: spoilt}), GatewayDriver.HAPROXY)
    assert "evil" in {line.split()[0] for line in lines(config.files[config.main])} - set(HAPROXY_WORDS.split())
