"""A table of routes as nginx's configuration. PURE.

Written for nginx 1.22 (Debian 12) and newer. A task that comes or goes is a new configuration and a reload: old workers end what
they have begun. Whatever comes from labels has passed labels.http, whose grammars have no room for what is more than a word here.

Source: nginx.org/en/docs: ngx_http_core_module (locations, server names), ngx_http_upstream_module, ngx_stream_ssl_preread.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import product

from routemesh.model import Gateway, Http, HttpBalance, HttpProtocol, Sticky
from routemesh.proxy.rendered import NGINX_MAIN, Rendered, digest
from routemesh.proxy.routes import (
    DOTS,
    Backend,
    Route,
    RouteTable,
    Server,
    client_timeout_s,
    effective,
    left_out,
    max_header_bytes,
)

STATUS_SOCKET = "status.sock"
COOKIE = "ROUTEMESH_"
"""With a digest of the service's name: nginx knows cookies as variables, whose names have no dashes."""

_FRESH = ".fresh"
"""Ends the name of an upstream whose connections serve one request; services' names have no dot."""
_IDLE = "4s"
"""How long a connection to a task is kept idle: many servers close theirs after 5 s."""
_MOST_REQUESTS = 1_000_000
_CONNECTING_S = 3.0
_ONCE_MORE = '"~^(GET|HEAD|OPTIONS)::$"'
_DOTS = '"~*^[^?]*(/|%2f)([.]|%2e)([.]|%2e)?(/|%2f|[?]|$)"'
_FOR_NGINX = (
    "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset",
    "Expires", "Cache-Control", "Set-Cookie", "Vary",
)  # fmt: skip
_KEPT_BACK = ("Date", "Server", "X-Pad", *_FOR_NGINX[:5])
_GENERATION = "GENERATION"
_STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
_FIRST_INNER_PORT = 20443
"""On 127.0.0.1 of the task: where TLS ends when a name is looked at first; those after it lead to tasks."""
_FORWARDED = {
    "Host": "$asked_host",
    "X-Forwarded-For": "$remote_addr",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$asked_host",
    "X-Forwarded-Port": "$forwarded_port",
}
_NAME_BYTES = 512
"""A host has up to 253 letters, and a hash some bytes for each beside them."""
_LOG = '$remote_addr:$remote_port [$time_local] $host $upstream_addr $status $bytes_sent $request_time "$request"'


@dataclass(frozen=True, slots=True)
class _Tls:
    """How TLS ends: what follows `listen`, and the certificate's file of a backend (by secret), "" is the default's."""

    listen: str
    certificates: Mapping[str, str]


def render(
    table: RouteTable, gateway: Gateway, directory: str, certificates: Mapping[str, str], default_certificate: str
) -> Rendered:
    """The configuration of one proxy whose files are in `directory`. `certificates`: PEM (chain and key) by secret's name."""
    files: dict[str, str] = {}
    passed = {backend.name: backend for backend in table.backends if backend.http.passthrough}
    tls = None
    if gateway.https_port and default_certificate:
        used = {backend.http.certificate for backend in table.backends} & certificates.keys()
        texts = {"": default_certificate, **{name: certificates[name] for name in sorted(used)}}
        paths = {}
        for name, text in texts.items():
            files[file := f"cert-{name or 'default'}-{digest(text)}.pem"] = text
            paths[name] = f"{directory}/{file}"
        inner = f"127.0.0.1:{_FIRST_INNER_PORT}" if passed else str(gateway.https_port)
        tls = _Tls(f"{inner} ssl http2{' proxy_protocol' if passed else ''}", paths)
    text = "\n".join(_lines(table, gateway, directory, tls, passed)) + "\n"
    generation = digest(text)
    files[NGINX_MAIN] = text.replace(_GENERATION, generation)
    return Rendered(NGINX_MAIN, generation, files)


def _lines(table: RouteTable, gateway: Gateway, directory: str, tls: _Tls | None, passed: Mapping[str, Backend]) -> Iterator[str]:
    yield "# Written by routemesh; it writes it anew with the next change."
    if passed and tls:
        yield f"load_module {_STREAM_MODULE};"
    yield "user www-data;"
    yield "worker_processes auto;"
    yield f"pid {directory}/nginx.pid;"
    yield "error_log stderr warn;"
    yield "worker_shutdown_timeout 12h;"
    yield "worker_rlimit_nofile 50000;"
    yield "events { worker_connections 16384; }"
    yield "http {"
    yield from _indented(_http(table, gateway, directory, tls, bool(passed)))
    yield "}"
    if passed and tls:
        yield "stream {"
        yield from _indented(_stream(table, gateway, passed))
        yield "}"


# --- http ------------------------------------------------------------------------------------------------------------------


def _http(table: RouteTable, gateway: Gateway, directory: str, tls: _Tls | None, behind: bool) -> Iterator[str]:
    yield f"log_format gateway '{_LOG}';"
    yield "access_log /dev/stdout gateway;"
    yield "server_tokens off;"
    yield "default_type text/plain;"
    yield f"server_names_hash_max_size {max(1024, 4 * len(table.routes))};"
    yield f"server_names_hash_bucket_size {_NAME_BYTES};"
    yield "variables_hash_max_size 8192;"
    yield f"map_hash_max_size {max(2048, 4 * len(table.routes))};"
    yield f"map_hash_bucket_size {_NAME_BYTES};"
    yield "proxy_headers_hash_max_size 1024;"
    yield "proxy_headers_hash_bucket_size 256;"
    yield from _clients(table)
    yield "proxy_http_version 1.1;"
    yield "proxy_buffering off;"
    yield "proxy_request_buffering off;"
    yield "proxy_connect_timeout 3s;"
    yield "grpc_connect_timeout 3s;"
    yield "proxy_redirect off;"
    # Of an answer nothing is for nginx itself, and nothing is kept back.
    yield f"proxy_ignore_headers {' '.join(_FOR_NGINX)};"
    yield from (f"{kind}_pass_header {name};" for kind in ("proxy", "grpc") for name in _KEPT_BACK)
    yield f"grpc_ignore_headers {' '.join(_FOR_NGINX[:5])};"
    yield "ssl_protocols TLSv1.2 TLSv1.3;"
    if behind:
        yield "set_real_ip_from 127.0.0.1;"
        yield "real_ip_header proxy_protocol;"
    yield f"map $scheme $forwarded_port {{ default {gateway.http_port}; https {gateway.https_port}; }}"
    yield "map $http_host $asked_host { default $http_host; '' localhost; }"
    yield "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"
    # nginx sends a request again whose connection the task has just closed, but never a POST, nor a body.
    yield f'map "$request_method:$http_content_length:$http_transfer_encoding" $pool {{ default {_FRESH}; {_ONCE_MORE} ""; }}'
    yield f"map $request_uri $dots {{ default 0; {_DOTS} 1; }}"
    for backend in table.backends:
        if not backend.http.passthrough and not backend.refused:
            yield from _upstream(backend, gateway)
    yield f"server {{ listen unix:{directory}/{STATUS_SOCKET}; access_log off; location / {{ return 200 {_GENERATION}; }} }}"
    backends = {backend.name: backend for backend in table.backends}
    hosts = dict.fromkeys((*(route.host for route in table.routes), "*"))
    for host in hosts:
        yield from _server(host, effective(table, host), backends, gateway, tls)


def _upstream(backend: Backend, gateway: Gateway) -> Iterator[str]:
    http, key = backend.http, digest(backend.name)
    sent = _sticky_value(http, key)
    if http.allow:
        yield from _allowed(http, key)
    if sent:
        yield f"map {sent} $key_{key} {{ default {sent}; '' $request_id; }}"
    if http.sticky is Sticky.COOKIE:
        cookie = f"{COOKIE}{key}=$request_id; Path=/; HttpOnly; SameSite=Lax"
        secure = "; Secure" if http.redirect and gateway.https_port else ""
        wanted, without = (f'"$scheme {sent}"', '"https "') if secure else (sent, "''")
        yield f"map {wanted} $cookie_to_set_{key} {{ default ''; {without} '{cookie}{secure}'; }}"
        yield f"map {sent} $privacy_{key} {{ default ''; '' private; }}"
    if not backend.servers:
        return
    for pool in ("", _FRESH):
        yield f"upstream {backend.name}{pool} {{"
        if sent:
            yield f"  hash $key_{key} consistent;"
        elif http.balance is not HttpBalance.ROUNDROBIN:
            yield "  least_conn;" if http.balance is HttpBalance.LEASTCONN else "  random two;"
        yield from (_upstream_server(server) for server in backend.servers)
        if not pool:
            yield f"  keepalive 32; keepalive_timeout {_IDLE}; keepalive_requests {_MOST_REQUESTS};"
        yield "}"


def _upstream_server(server: Server) -> str:
    """Whether a task gets requests is said by its health, not by what became of other clients' requests."""
    return f"  server {server.address}:{server.port} max_fails=0;"


def _clients(table: RouteTable) -> Iterator[str]:
    """What is expected of clients, and how long."""
    head = max_header_bytes(table)
    patience = f"{round(client_timeout_s(table) * 1000)}ms"
    yield "client_max_body_size 0;"
    yield f"large_client_header_buffers 4 {head};"
    yield "ignore_invalid_headers off;"
    yield "underscores_in_headers on;"
    yield "merge_slashes off;"
    yield "client_header_timeout 10s;"
    yield "keepalive_timeout 10s;"
    yield f"keepalive_requests {_MOST_REQUESTS};"
    yield f"client_body_timeout {patience};"
    yield f"send_timeout {patience};"


def _allowed(http: Http, key: str) -> Iterator[str]:
    """A variable that is 1 for clients whose requests are answered."""
    yield f"geo $allowed_{key} {{"
    yield f"  default {int(IPv4Network('0.0.0.0/0') in http.allow)};"
    yield from (f"  {network} 1;" for network in http.allow if network.prefixlen)
    yield "}"


def _sticky_value(http: Http, key: str) -> str:
    match http.sticky:
        case Sticky.COOKIE:
            return f"$cookie_{COOKIE}{key}"
        case Sticky.HEADER:
            return f"$http_{http.sticky_header.lower().replace('-', '_')}"
        case Sticky.SOURCE:
            return "$remote_addr"
        case None:
            return ""


def _server(
    host: str, routes: tuple[Route, ...], backends: Mapping[str, Backend], gateway: Gateway, tls: _Tls | None
) -> Iterator[str]:
    default = " default_server" if host == "*" else ""
    yield "server {"
    yield f"  listen {gateway.http_port}{default};"
    if tls is not None:
        own = next(
            (route for route in routes if route.host == host and backends[route.backend].http.certificate in tls.certificates),
            None,
        )
        path = tls.certificates[backends[own.backend].http.certificate if own else ""]
        yield f"  listen {tls.listen}{default};"
        yield f"  ssl_certificate {path};"
        yield f"  ssl_certificate_key {path};"
    yield f"  server_name {_server_name(host)};"
    yield f'  if ($dots) {{ return 400 "400: {DOTS}\\n"; }}'
    for number, route in enumerate(routes):
        body = list(_location(backends[route.backend], gateway, number))
        for match in ("/",) if route.path == "/" else (f"= {route.path}", f"^~ {route.path}/"):
            yield f"  location {match} {{"
            yield from (f"    {line}" for line in body)
            yield "  }"
        yield from (f"  {line}" for line in _errors(backends[route.backend], number))
    if not any(route.path == "/" for route in routes):
        yield "  location / {"
        yield '    return 404 "404: no service behind the gateway has host $host and path $request_uri\\n";'
        yield "  }"
    yield "}"


def _server_name(host: str) -> str:
    """A wildcard stands for one label, as in a certificate; nginx's own would match several."""
    if host == "*":
        return "_"
    return host if not host.startswith("*.") else f'"~^[^.]+{host[1:].replace(".", chr(92) + ".")}$"'


def _location(backend: Backend, gateway: Gateway, number: int) -> Iterator[str]:
    http = backend.http
    if backend.refused:
        yield f'return 503 "503: {left_out(backend)}\\n";'
        return
    if http.allow and not http.passthrough:
        yield f"error_page 403 @forbidden{number};"
        yield f"if ($allowed_{digest(backend.name)} = 0) {{ return 403; }}"
    if (http.redirect or http.passthrough) and gateway.https_port:
        port = "" if gateway.https_port == 443 else f":{gateway.https_port}"
        yield f"if ($scheme = http) {{ return 308 https://$host{port}$request_uri; }}"
    if http.passthrough:
        yield f'return 421 "421: TLS of service {backend.name} does not end at the gateway\\n";'
        return
    if not backend.servers:
        yield f"error_page 503 @empty{number};"
        yield "return 503;"
        return
    yield f"error_page 502 @bad{number};"
    yield f"error_page 504 @slow{number};"
    yield from _added(http, digest(backend.name))
    if http.compress:
        yield "gzip on;"
        yield "gzip_proxied any;"
        yield "gzip_types text/plain text/css text/xml application/json application/javascript image/svg+xml;"
    yield from _passed_on(backend)


def _added(http: Http, key: str) -> Iterator[str]:
    if http.sticky is Sticky.COOKIE:
        yield f"add_header Set-Cookie $cookie_to_set_{key} always;"
        yield f"add_header Cache-Control $privacy_{key} always;"
    yield from (f'add_header {header.name} "{header.value}" always;' for header in http.headers if header.to_response)


def _passed_on(backend: Backend) -> Iterator[str]:
    http = backend.http
    kind = "grpc" if http.protocol is HttpProtocol.GRPC else "proxy"
    for name, value in _FORWARDED.items():
        yield f"{kind}_set_header {name} {value};"
        yield from (f'{kind}_set_header {same} "";' for same in _same(name))
    if kind == "proxy":
        yield "proxy_set_header Upgrade $http_upgrade;"
        yield "proxy_set_header Connection $connection_upgrade;"
    yield from (f'{kind}_set_header {header.name} "{header.value}";' for header in http.headers if not header.to_response)
    timeout = f"{round(http.timeout_s * 1000)}ms"
    yield f"{kind}_read_timeout {timeout};"
    yield f"{kind}_send_timeout {timeout};"
    if http.retries:
        yield f"{kind}_next_upstream_tries {http.retries + 1};"
        # A connection is tried again, not a request that a task is late with.
        yield f"{kind}_next_upstream_timeout {round(min(_CONNECTING_S * (http.retries + 1), 0.9 * http.timeout_s) * 1000)}ms;"
    else:
        yield f"{kind}_next_upstream off;"
    yield f"{kind}_buffer_size {http.max_header_bytes};"
    if kind == "proxy":
        yield "proxy_ignore_client_abort on;"  # who only ends its half still waits for the answer
        yield f"proxy_buffers 8 {http.max_header_bytes};"
    yield f"grpc_pass grpc://{backend.name}{_FRESH};" if kind == "grpc" else f"proxy_pass http://{backend.name}$pool;"


def _same(name: str) -> Iterator[str]:
    """Names that many programs take for the same: with `_` for some of its `-`."""
    parts = name.split("-")
    for joints in product("-_", repeat=len(parts) - 1):
        if "_" in joints:
            yield "".join(part + joint for part, joint in zip(parts, (*joints, ""), strict=True))


def _errors(backend: Backend, number: int) -> Iterator[str]:
    http, name = backend.http, backend.name
    if http.passthrough or backend.refused:
        return
    if http.allow:
        yield f'location @forbidden{number} {{ return 403 "403: service {name} does not answer $remote_addr\\n"; }}'
    if not backend.servers:
        yield f'location @empty{number} {{ return 503 "503: no task of service {name} can answer (0 are up)\\n"; }}'
        return
    bad = f"502: no task of service {name} gave a proper answer"
    slow = f"504: the task of service {name} that was asked did not answer within {http.timeout_s:g} s"
    yield f'location @bad{number} {{ return 502 "{bad}\\n"; }}'
    yield f'location @slow{number} {{ return 504 "{slow}\\n"; }}'


# --- TLS that does not end here ----------------------------------------------------------------------------------------------


def _stream(table: RouteTable, gateway: Gateway, passed: Mapping[str, Backend]) -> Iterator[str]:
    """The name in the handshake decides; the client goes along by the PROXY protocol, which tasks get only if they want it."""
    ports = {name: _FIRST_INNER_PORT + number for number, name in enumerate(passed, start=1)}
    yield f"map_hash_max_size {max(2048, 4 * len(table.routes))};"
    yield f"map_hash_bucket_size {_NAME_BYTES};"
    yield "log_format gateway '$remote_addr:$remote_port [$time_local] $ssl_preread_server_name $upstream_addr $status';"
    yield "map $ssl_preread_server_name $to {"
    yield f"  default 127.0.0.1:{_FIRST_INNER_PORT};"
    for route in table.routes:
        if route.backend in passed:
            host = _server_name(route.host)
            yield f"  {host} 127.0.0.1:{ports[route.backend]};"
    yield "}"
    yield f"server {{ listen {gateway.https_port}; ssl_preread on; proxy_pass $to; proxy_protocol on; proxy_timeout 1h; }}"
    for name, backend in passed.items():
        yield from _raw(name, backend, ports[name])


def _raw(name: str, backend: Backend, port: int) -> Iterator[str]:
    http = backend.http
    if backend.servers:
        yield f"upstream {name} {{"
        if http.sticky is Sticky.SOURCE:
            yield "  hash $remote_addr consistent;"
        elif http.balance is not HttpBalance.ROUNDROBIN:
            yield "  least_conn;" if http.balance is HttpBalance.LEASTCONN else "  random two;"
        yield from (_upstream_server(server) for server in backend.servers)
        yield "}"
    yield "server {"
    yield f"  listen 127.0.0.1:{port} proxy_protocol;"
    yield "  set_real_ip_from 127.0.0.1;"
    yield "  access_log /dev/stdout gateway;"
    if http.allow:
        yield from (f"  allow {network};" for network in http.allow)
        yield "  deny all;"
    yield "  proxy_connect_timeout 3s;"
    yield f"  proxy_timeout {round(http.timeout_s * 1000)}ms;"
    if http.proxy_protocol:
        yield "  proxy_protocol on;"
    yield f"  proxy_pass {name};" if backend.servers else "  return '';"
    yield "}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
