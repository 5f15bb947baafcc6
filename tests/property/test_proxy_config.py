"""Whatever labels say, a proxy's configuration holds what it should and nothing else; and the proxies take it."""

import re
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routemesh.decide import admit
from routemesh.errors import UserError
from routemesh.gateway import selfsigned
from routemesh.labels.http import HOP_BY_HOP, MAX_HOSTS, MAX_NETWORKS, TABLE, http
from routemesh.model import Gateway, GatewayDriver, ServiceSpec, State
from routemesh.proxy import haproxy, nginx
from routemesh.proxy.certificates import certificates
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import RouteTable, table
from routemesh.values import replace
from tests.simulation import Simulation
from tests.support import require
from tests.unit.test_labels_http import GATEWAY

CERTIFICATE = selfsigned.make(("a.example", "*.a.example"))

# Known words only: a line that begins with another was injected.
HAPROXY_WORDS = """
global tune.maxrewrite tune.bufsize tune.http.maxhdr description stats log user group fd-hard-limit hard-stop-after
ssl-default-bind-options tune.ssl.default-dh-param defaults mode option timeout frontend bind tcp-request http-request
http-response http-error use_backend default_backend backend balance hash-type retries compression http-check server use-server
#
"""
NGINX_WORDS = """
# load_module worker_rlimit_nofile ignore_invalid_headers underscores_in_headers merge_slashes large_client_header_buffers
client_header_timeout client_body_timeout send_timeout keepalive_timeout keepalive_requests proxy_redirect proxy_ignore_headers
grpc_ignore_headers proxy_pass_header grpc_pass_header proxy_buffer_size proxy_buffers grpc_buffer_size
proxy_ignore_client_abort proxy_next_upstream_timeout grpc_next_upstream_timeout user worker_processes pid error_log
worker_shutdown_timeout events http } log_format access_log server_tokens default_type server_names_hash_bucket_size
variables_hash_max_size map_hash_bucket_size client_max_body_size proxy_http_version geo proxy_headers_hash_max_size
proxy_headers_hash_bucket_size server_names_hash_max_size map_hash_max_size proxy_buffering proxy_request_buffering
proxy_connect_timeout grpc_connect_timeout ssl_protocols set_real_ip_from real_ip_header map upstream hash least_conn random
server keepalive listen ssl_certificate ssl_certificate_key server_name location if return allow deny error_page add_header gzip
gzip_proxied gzip_types proxy_set_header grpc_set_header proxy_read_timeout proxy_send_timeout grpc_read_timeout
grpc_send_timeout proxy_next_upstream_tries grpc_next_upstream_tries proxy_next_upstream grpc_next_upstream proxy_pass grpc_pass
stream default proxy_timeout proxy_protocol
"""

# --- labels ----------------------------------------------------------------------------------------------------------------

nasty = st.text(alphabet=st.sampled_from("\n\r\0\t \"'\\#{}$%;,:/*.=[]()<>|&`~!@?+-_aA1é\u2028\u200b\u212a\uff0f"), max_size=20)
anything = st.one_of(nasty, st.text(max_size=30))
words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
hosts = st.one_of(
    st.just("*"), st.builds("{}.example".format, words), st.builds("*.{}.example".format, words),
    st.just("a.example,*.a.example"), st.just(".".join(["a" * 61] * 4)),
    st.lists(words, min_size=1, max_size=64, unique=True).map(",".join),
)  # fmt: skip
alphanumeric = string.ascii_letters + string.digits
part = st.text(alphanumeric + "._~!&()*+,=:@-", min_size=1, max_size=60).filter(lambda text: text not in (".", ".."))
paths = st.lists(part, max_size=3).map(lambda parts: "/" + "/".join(parts))
named = st.builds("{}{}".format, st.sampled_from(alphanumeric), st.text(alphanumeric + "-_", max_size=63))
known = st.sampled_from(
    [
        "Server",
        "Date",
        "Via",
        "Content-Type",
        "Accept-Encoding",
        "Location",
        "ETag",
        "X-Accel-Redirect",
        "Expect",
        "Authorization",
    ]
)
headers = st.builds(
    "{}{}={}".format,
    st.sampled_from(["", "request:", "response:"]),
    st.one_of(named, known).filter(lambda name: name.lower() not in HOP_BY_HOP),
    st.text(alphanumeric + "._~:/?=&,+@*()<>|!- ", min_size=1, max_size=256).filter(lambda text: text == text.strip()),
)
networks = st.one_of(
    st.sampled_from(["0.0.0.0/0", "0.0.0.0/32", "255.255.255.254/31", "255.255.255.254", "255.0.0.0/8", "127.0.0.0/8"]),
    st.builds(
        lambda number, length: str(IPv4Network((number, length), strict=False)), st.integers(0, 2**32 - 1), st.integers(0, 32)
    ),
)
VALUES = {
    "host": hosts,
    "path": paths,
    "port": st.integers(1, 65535).map(str),
    "protocol": st.sampled_from(["http", "grpc"]),
    "sticky": st.one_of(st.sampled_from(["cookie", "source"]), st.builds("header:{}".format, named)),
    "tls": st.sampled_from(["redirect", "passthrough", "cert", "cert,redirect"]),
    "balance": st.sampled_from(["roundrobin", "leastconn", "random"]),
    "health": paths,
    "timeout": st.builds("{}{}".format, st.integers(1, 59), st.sampled_from(["s", "m", "ms"])),
    "maxconn": st.integers(1, 1000).map(str),
    "retry": st.integers(0, 10).map(str),
    "compress": st.sampled_from(["on", "off"]),
    "max-header": st.builds("{}k".format, st.integers(1, 64)),
    "allow": st.lists(networks, min_size=1, max_size=100).map(",".join),
    "proxy-protocol": st.sampled_from(["v1", "v2"]),
    "header-add": st.lists(headers, min_size=1, max_size=9).map(";".join),
}
good_labels = st.fixed_dictionaries(
    {"host": VALUES["host"], "port": VALUES["port"]},
    optional={name: VALUES[name] for name in VALUES if name not in ("host", "port")},
)
bad_labels = st.dictionaries(st.sampled_from(sorted(VALUES)), anything, max_size=2)


def made(labels: dict[str, str]) -> dict[str, str]:
    return {f"routemesh.http.{name}": value for name, value in labels.items()}


def service_names(number: int) -> st.SearchStrategy[str]:
    """Also what means something to a proxy, and what differs from another in capitals alone."""
    return st.sampled_from([f"s{number}", f"S{max(number - 1, 0)}", str(number), "http", "https", "tls", "x" * 63, "default"])


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
        spec = ServiceSpec(name=draw(service_names(number)), command=("true",), labels=made(labels), replicas=replicas)
        try:
            simulation.commit(admit.create_service(simulation.state, spec, simulation.now))
        except UserError as refused:
            assert "\n" not in str(refused)
    simulation.settle()
    return simulation.state


def rendered(
    state: State, driver: GatewayDriver, directory: str = "/run/x", accept_proxy: tuple[IPv4Network, ...] = ()
) -> tuple[RouteTable, Rendered]:
    routes, gateway, pem = table(state), Gateway(driver=driver, accept_proxy=accept_proxy), CERTIFICATE.decode()
    render = {GatewayDriver.HAPROXY: haproxy.render, GatewayDriver.NGINX: nginx.render}[driver]
    return routes, render(routes, gateway, directory, {"cert": pem}, pem)


# --- laws ------------------------------------------------------------------------------------------------------------------


@given(anything, st.sampled_from(sorted(TABLE)))
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
        line
        for line in lines(config.files[config.main])
        if not re.match(r'[*"~a-z0-9.^\[\]+\\$-]+ 127\.0\.0\.1:\d+;$|[0-9./]+ 1;$', line)
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
    checked(["haproxy", "-c", "-f", str(config)])


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


# --- limits ----------------------------------------------------------------------------------------------------------------

LONG_HOSTS = [".".join(["a" * 61, "b" * 62, "c" * 62, f"d{number:061}"]) for number in range(MAX_HOSTS)]
FULL = {
    "host": ",".join(LONG_HOSTS),
    "port": "65535",
    "allow": ",".join(f"10.{number >> 8}.{number & 255}.0/24" for number in range(MAX_NETWORKS)),
    "timeout": "24h",
    "retry": "10",
    "tls": "cert,redirect",
}
FULL_HTTP = FULL | {
    "path": "/" + "p" * 199,
    "sticky": "cookie",
    "header-add": ";".join(f"{side}X{number:063}={'v' * 256}" for number in range(32) for side in ("request:", "response:")),
}


def crowded(driver: GatewayDriver) -> State:
    """Services whose labels go to the limits, two that share all of their hosts, and one whose TLS passes."""
    simulation = Simulation(nodes=2)
    simulation.commit(admit.create_secret(simulation.state, "cert", CERTIFICATE, 0.0))
    simulation.create(replace(GATEWAY, gateway=Gateway(driver=driver)))
    own = {"maxconn": "1000000", "health": "/" + "h" * 199} if driver is GatewayDriver.HAPROXY else {}
    short = ";".join(f"X{number:045}={'v' * 256}" for number in range(64))
    grpc = FULL | {"protocol": "grpc", "path": "/g", "header-add": short}
    passed = FULL | {"tls": "passthrough", "host": FULL["host"].replace("d", "e")}
    for name, labels in {"x" * 63: FULL_HTTP | own, "w" * 63: FULL, "y": passed, "z": grpc}.items():
        simulation.create(ServiceSpec(name=name, command=("true",), labels=made(labels), replicas=2))
    simulation.settle()
    return simulation.state


@pytest.mark.parametrize("driver", GatewayDriver)
def test_proxies_take_labels_that_go_to_their_limits(tmp_path: Path, driver: GatewayDriver) -> None:
    require(driver.value, "root", "netns")
    sources = tuple(IPv4Network((number << 8, 24)) for number in range(5000)) if driver is GatewayDriver.HAPROXY else ()
    taken(rendered(crowded(driver), driver, str(tmp_path), sources)[1], driver, tmp_path)


def taken(config: Rendered, driver: GatewayDriver, directory: Path) -> None:
    """Assert that the program itself has nothing against a configuration."""
    path = str(written(config, directory))
    if driver is GatewayDriver.HAPROXY:
        checked(["haproxy", "-c", "-f", path])
    else:
        checked(["unshare", "--net", "nginx", "-e", "stderr", "-t", "-q", "-c", path])


KEYS: dict[str, Callable[[], PrivateKeyTypes]] = {
    "RSA of 2048 bits": lambda: rsa.generate_private_key(65537, 2048),
    "RSA of 1024 bits": lambda: rsa.generate_private_key(65537, 1024),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "P-192": lambda: ec.generate_private_key(ec.SECP192R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(2048),
}
BAD_KEYS = {"RSA of 1024 bits": "1024 bits", "P-192": "secp192r1", "DSA": "of a kind"}


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", KEYS)
def test_a_certificate_is_refused_where_it_is_named_or_proxies_take_it(tmp_path: Path, kind: str, form: PrivateFormat) -> None:
    require("haproxy", "nginx", "root", "netns")
    if kind == "Ed25519" and form is PrivateFormat.TraditionalOpenSSL:
        return  # there is no such form
    key = KEYS[kind]()
    own, intermediate = signed(key, "a.example", "a.example", key), signed(KEYS["P-256"](), "ca", "root", KEYS["P-256"]())
    private = key.private_bytes(Encoding.PEM, form, NoEncryption())
    texts = {  # by what is special
        "nothing": own + private,
        "key first": private + own,
        "with a chain": own + intermediate + private,
        "with text between": b"Bag Attributes\n  friendlyName: \xc3\xa9\n" + own + b"\r\n# comment\n" + private + b"trailing",
        "with carriage returns": (own + private).replace(b"\n", b"\r\n"),
        "with parameters": b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + private + own,
    }
    for pem in texts.values():
        simulation = Simulation()
        simulation.create(GATEWAY)
        simulation.commit(admit.create_secret(simulation.state, "cert", pem, 0.0))
        service = ServiceSpec(name="web", command=("true",), labels=made({"host": "a.example", "port": "80", "tls": "cert"}))
        if kind in BAD_KEYS:
            with pytest.raises(UserError, match=BAD_KEYS[kind]):
                simulation.create(service)
            with pytest.raises(UserError, match=BAD_KEYS[kind]):
                admit.create_secret(simulation.state, "gateway-default", pem, 0.0)
            continue
        simulation.create(service)
        simulation.settle()
        routes, text = table(simulation.state), certificates(simulation.state)["cert"]
        for driver, render in {GatewayDriver.HAPROXY: haproxy.render, GatewayDriver.NGINX: nginx.render}.items():
            place = Path(tempfile.mkdtemp(dir=tmp_path))
            taken(render(routes, Gateway(driver=driver), str(place), {"cert": text}, CERTIFICATE.decode()), driver, place)


def signed(key: PrivateKeyTypes, subject: str, issuer: str, by: PrivateKeyTypes) -> bytes:
    """A certificate in PEM."""
    now = datetime.now(UTC)
    name = {who: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in (subject, issuer)}
    hashed = None if isinstance(by, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateBuilder().subject_name(name[subject]).issuer_name(name[issuer]).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=9)).public_key(key.public_key())  # type: ignore[arg-type]
    return builder.sign(by, hashed).public_bytes(Encoding.PEM)  # type: ignore[arg-type]
