"""A table of routes as HAProxy's configuration. PURE.

Written for HAProxy 2.6 (Debian 12) and newer. Whatever comes from labels has passed labels.http, whose grammars have no room for
what is more than a word here. Servers are the only part that changes without a reload (proxy.servers): each server line is
complete by itself, because a server that is added at run time takes nothing from `default-server`.

Source: HAProxy's configuration.txt (2.6) and management.txt (`add server`).
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network

from routemesh.model import Gateway, Http, HttpBalance, HttpProtocol, Sticky
from routemesh.proxy.rendered import HAPROXY_MAIN, Keep, Rendered, digest
from routemesh.proxy.routes import (
    DOTS,
    Backend,
    Route,
    RouteTable,
    Server,
    client_timeout_s,
    left_out,
    max_header_bytes,
    too_large,
)

ADMIN_SOCKET = "admin.sock"
GENERATION = "routemesh-"
"""`show info` answers with it as the description: which generation a process runs."""
INTERNAL = "routemesh:"
"""How names begin that are not a service's; a service's name has no colon."""
COOKIE = "ROUTEMESH"

_NOBODY = f"{INTERNAL}nobody"
_TO_TLS = f"{INTERNAL}https"
_TERMINATE = f"{INTERNAL}tls"
_INNER = "abns@routemesh-tls"
_DESCRIPTORS = 50_000
"""Two per connection, fewer where the machine allows fewer. Without a bound HAProxy makes room for as many as it allows."""
_OWN_FIELDS_BYTES = 2048
_MOST_FIELDS = 1024
_TUNNEL_TIMEOUT = "1h"
_CHECK = "check inter 2s fall 3 rise 1"


def render(
    table: RouteTable, gateway: Gateway, directory: str, certificates: Mapping[str, str], default_certificate: str
) -> Rendered:
    """The configuration of one proxy whose files are in `directory`. `certificates`: PEM (chain and key) by secret's name."""
    files: dict[str, str] = {}

    def keep(stem: str, ending: str, text: str) -> str:
        name = f"{stem}-{digest(text)}.{ending}"
        files[name] = text
        return f"{directory}/{name}"

    tls = gateway.https_port if default_certificate else 0
    bind = ""
    if tls:
        own = {name: keep(f"cert-{name}", "pem", certificates[name]) for name in sorted(_named(table)) if name in certificates}
        default = keep("cert-default", "pem", default_certificate)
        bind = f"ssl crt-list {keep('certificates', 'list', _certificate_list(table, default, own))} alpn h2,http/1.1"
    passed = _passed(table)
    entries = ((route, _TO_TLS if route in passed else route.backend) for route in table.routes)
    routes = keep("routes", "map", "".join(f"{route.host}{_prefix(route.path)} {to}\n" for route, to in entries))
    names = keep("passthrough", "map", "".join(f"{route.host} {route.backend}\n" for route in passed)) if passed else ""
    proxied = tuple(_proxied(gateway, keep))
    skeleton = [
        *_defaults(table, directory),
        *_frontend("http", f":{gateway.http_port}", gateway, routes, "http", proxied),
        *(_tls_frontends(gateway, routes, bind, names, proxied) if tls else ()),
        *_internal(tls),
    ]
    backends = {backend.name: tuple(_backend(backend, table, gateway, keep)) for backend in table.backends}
    generation = digest(*skeleton, *(line for lines in backends.values() for line in (*lines, "")))
    lines = [line.replace(f"{GENERATION}?", GENERATION + generation) for line in skeleton]
    for backend in table.backends:
        lines += backends[backend.name]
        lines += (f"  server {server.name} {server_options(backend.http, server)}" for server in backend.servers)
    files[HAPROXY_MAIN] = "\n".join(lines) + "\n"
    return Rendered(HAPROXY_MAIN, generation, files)


def server_options(http: Http, server: Server) -> str:
    """What follows a server's name, in the file and in `add server`."""
    words = [f"{server.address}:{server.port}", "id", str(server.number)]
    if http.health:
        words.append(_CHECK)
    if http.maxconn:
        words += ("maxconn", str(http.maxconn))
    if http.protocol is HttpProtocol.GRPC:
        words += ("proto", "h2")
    if http.proxy_protocol:
        words.append("send-proxy-v2" if http.proxy_protocol == 2 else "send-proxy")
    return " ".join(words)


# --- the parts of the file -----------------------------------------------------------------------------------------------


def _defaults(table: RouteTable, directory: str) -> Iterator[str]:
    yield "# Written by routemesh; it writes it anew with the next change."
    yield "global"
    yield f"  description {GENERATION}?"
    yield f"  stats socket {directory}/{ADMIN_SOCKET} mode 600 level admin expose-fd listeners"
    yield "  log stdout format raw daemon"
    yield "  user haproxy"
    yield "  group haproxy"
    yield f"  fd-hard-limit {_DESCRIPTORS}"
    yield "  hard-stop-after 12h"
    yield "  ssl-default-bind-options ssl-min-ver TLSv1.2"
    yield "  tune.ssl.default-dh-param 2048"
    yield f"  tune.maxrewrite {_rewrite_bytes(table)}"
    yield f"  tune.bufsize {max_header_bytes(table) + _rewrite_bytes(table)}"
    yield f"  tune.http.maxhdr {_MOST_FIELDS}"
    yield "defaults"
    yield "  mode http"
    yield "  log global"
    yield "  option httplog"
    yield "  option dontlognull"
    yield "  option redispatch 1"
    yield "  timeout connect 3s"
    yield "  timeout http-request 10s"
    yield "  timeout http-keep-alive 10s"
    yield "  timeout queue 30s"
    yield f"  timeout client {_ms(client_timeout_s(table))}"
    yield "  timeout server 60s"
    yield f"  timeout tunnel {_TUNNEL_TIMEOUT}"


def _rewrite_bytes(table: RouteTable) -> int:
    """The room that what we add to a head may take: a rule that finds none answers 500."""
    added = (sum(len(header.name) + len(header.value) + 4 for header in backend.http.headers) for backend in table.backends)
    return _OWN_FIELDS_BYTES + max(added, default=0)


def _frontend(name: str, bind: str, gateway: Gateway, routes: str, scheme: str, proxied: Iterable[str]) -> Iterator[str]:
    yield f"frontend {name}"
    yield f"  bind {bind}"
    yield from proxied
    unless = " unless { var(txn.route) -m found }"
    # After a reload the old process answers once more on a connection that a client kept, instead of closing it under a request.
    yield "  option idle-close-on-response"
    yield "  http-request capture req.hdr(host) len 64"
    # A slash in the name, or a way out of the path, would lead past the rules to what is not below a service's path.
    yield _answer("deny", 400, "the host has a slash in it") + " if { req.hdr(host) -m sub / }"
    yield _answer("deny", 400, DOTS) + " if { path,url_dec,concat(/) -m sub /../ /./ }"
    yield _answer("deny", 400, "the path has a NUL in it") + " if { path -m sub %00 }"
    yield _answer("deny", 400, "there is no host") + " unless { req.hdr(host) -m len gt 0 } || HTTP_1.0"
    # Mostly a name is there as it is written here; only where it is not, what costs more is done.
    yield f"  http-request set-var(txn.route) base,url_dec,concat(/),map_beg({routes})"
    yield f"  http-request set-var(txn.host) req.hdr(host),field(1,:),lower,rtrim(.){unless}"
    yield f"  http-request set-var(txn.path) path,url_dec{unless}"
    yield f"  http-request set-var(txn.route) var(txn.host),concat(,txn.path,/),map_beg({routes}){unless}"
    for host in ("var(txn.host),regsub(^[^.]*,*)", "str(*)"):
        yield f"  http-request set-var(txn.like) {host}{unless}"
        yield f"  http-request set-var(txn.route) var(txn.like),concat(,txn.path,/),map_beg({routes}){unless}"
    # To many programs `_` and `-` are the same in a name: nobody else writes these.
    yield "  http-request del-header ^x[-_](forwarded[-_](for|proto|host|port)|real[-_]ip)$ -m reg"
    yield "  http-request set-header X-Forwarded-For %[src]"
    yield "  http-request set-header X-Real-IP %[src]"
    yield f"  http-request set-header X-Forwarded-Proto {scheme}"
    yield "  http-request set-header X-Forwarded-Host %[req.hdr(host)]"
    yield f"  http-request set-header X-Forwarded-Port {gateway.https_port if scheme == 'https' else gateway.http_port}"
    yield "  use_backend %[var(txn.route)] if { var(txn.route) -m found }"
    yield f"  default_backend {_NOBODY}"


def _proxied(gateway: Gateway, keep: Keep) -> Iterator[str]:
    if gateway.accept_proxy:
        yield f"  tcp-request connection expect-proxy layer4 if {{ {_from(gateway.accept_proxy, 'accept-proxy', keep)} }}"


def _tls_frontends(gateway: Gateway, routes: str, bind: str, names: str, proxied: Iterable[str]) -> Iterator[str]:
    """TLS ends here, or, as soon as any service wants it unopened, behind a frontend that looks only at the name."""
    if not names:
        yield from _frontend("https", f":{gateway.https_port} {bind}", gateway, routes, "https", proxied)
        return
    yield "frontend tls"
    yield "  mode tcp"
    yield "  option tcplog"
    yield f"  bind :{gateway.https_port}"
    yield from proxied
    yield "  tcp-request inspect-delay 5s"
    yield "  tcp-request content accept if { req.ssl_hello_type 1 }"
    for name in ("req.ssl_sni,lower", "req.ssl_sni,lower,regsub(^[^.]*,*)"):
        yield f"  use_backend %[{name},map_str({names})] if {{ {name},map_str({names}) -m found }}"
    yield f"  default_backend {_TERMINATE}"
    yield f"backend {_TERMINATE}"
    yield "  mode tcp"
    yield f"  server inner {_INNER} send-proxy-v2"
    yield from _frontend("https", f"{_INNER} accept-proxy {bind}", gateway, routes, "https", ())


def _internal(https_port: int) -> Iterator[str]:
    yield f"backend {_NOBODY}"
    yield _answer("return", 404, "no service behind the gateway has host %[var(txn.host)] and path %[path]")
    if https_port:
        yield f"backend {_TO_TLS}"
        yield f"  {_redirect(https_port)}"


def _backend(backend: Backend, table: RouteTable, gateway: Gateway, keep: Keep) -> Iterator[str]:
    http = backend.http
    yield f"backend {backend.name}"
    if backend.refused:
        yield _answer("return", 503, left_out(backend))
        return
    if http.passthrough:
        yield "  mode tcp"
    yield from _balance(http)
    yield f"  timeout server {_ms(http.timeout_s)}"
    yield f"  retries {http.retries}"
    if not http.passthrough:
        yield from _http_rules(backend, table, gateway, keep)
    elif http.allow:
        yield f"  tcp-request content reject unless {{ {_from(http.allow, f'allow-{backend.name}', keep)} }}"


def _balance(http: Http) -> Iterator[str]:
    match http.sticky:
        case Sticky.SOURCE:
            yield "  balance source"
        case Sticky.HEADER:
            yield f"  balance hdr({http.sticky_header})"
        case _:
            yield f"  balance {http.balance.value if http.balance is not HttpBalance.RANDOM else 'random(2)'}"
            return
    yield "  hash-type consistent sdbm avalanche"


def _http_rules(backend: Backend, table: RouteTable, gateway: Gateway, keep: Keep) -> Iterator[str]:
    http, name = backend.http, backend.name
    if http.allow:
        why = f"service {name} does not answer %[src]"
        yield f"{_answer('deny', 403, why)} unless {{ {_from(http.allow, f'allow-{name}', keep)} }}"
    if http.redirect and gateway.https_port:
        yield f"  {_redirect(gateway.https_port)} unless {{ ssl_fc }}"
    yield from _headers(http)
    if http.max_header_bytes < max_header_bytes(table):
        yield f"{_answer('return', 502, too_large(backend), 'response')} if {{ res.hdrs,length gt {http.max_header_bytes} }}"
    if http.sticky is Sticky.COOKIE:
        yield from _cookie(name, "; Secure" if http.redirect and gateway.https_port else "")
    if http.compress:
        yield "  compression algo gzip"
        yield "  compression type text/html text/plain text/css text/xml application/json application/javascript image/svg+xml"
    if http.health:
        yield "  option httpchk"
        yield f"  http-check send meth GET uri {http.health} ver HTTP/1.1 hdr Host {_host_for_check(http)}"
        yield "  http-check expect status 200-399"
    yield _page(502, f"the task of service {name} that was asked gave no proper answer")
    yield _page(503, f"no task of service {name} can answer (%[nbsrv({name})] are up)")
    yield _page(504, f"the task of service {name} that was asked did not answer within {http.timeout_s:g} s")


def _cookie(name: str, secure: str) -> Iterator[str]:
    """As `cookie … insert indirect nocache` would, which HAProxy 2.6 has not for servers that are added at run time.

    The cookie holds a server's name. One that names none, or one that is in maintenance, counts for nothing.
    """
    cookie = f"{COOKIE}-{name}"
    sent, other = "{ var(txn.sticky) -m found }", "{ var(txn.sticky),strcmp(txn.server) eq 0 }"
    yield f"  http-request set-var(txn.sticky) req.cook({cookie})"
    yield rf"  http-request replace-header Cookie ^(.*?)(?:;\s*)?{cookie}=[^;]*(.*)$ \1\2 if {sent}"
    yield rf"  http-request replace-header Cookie ^;\s*(.*)$ \1 if {sent}"
    yield "  http-request del-header Cookie if { req.hdr(Cookie) -m len 0 }"
    yield f"  use-server %[var(txn.sticky)] if {sent}"
    yield "  http-response set-var(txn.server) srv_name"
    held = f"{cookie}=%[var(txn.server)]; Path=/; HttpOnly; SameSite=Lax{secure}"
    yield f'  http-response add-header Set-Cookie "{held}" unless {other}'
    yield f"  http-response set-header Cache-Control private unless {other}"


# --- small pieces ----------------------------------------------------------------------------------------------------------


def _headers(http: Http) -> Iterator[str]:
    """What is added to requests takes the place of what a client sent under that name."""
    for name in dict.fromkeys(header.name for header in http.headers if not header.to_response):
        yield f"  http-request del-header {name}"
    for header in http.headers:
        yield f'  http-{"response" if header.to_response else "request"} add-header {header.name} "{header.value}"'


def _redirect(port: int) -> str:
    where = "https://%[req.hdr(host),field(1,:),lower]" + ("" if port == 443 else f":{port}")
    return f"http-request redirect prefix {where} code 308"


def _answer(action: str, status: int, text: str, side: str = "request") -> str:
    option = "deny_status" if action == "deny" else "status"
    return f'  http-{side} {action} {option} {status} content-type text/plain lf-string "{status}: {text}\\n"'


def _page(status: int, text: str) -> str:
    return f'  http-error status {status} content-type text/plain lf-string "{status}: {text}\\n"'


def _prefix(path: str) -> str:
    return path if path.endswith("/") else f"{path}/"


def _passed(table: RouteTable) -> tuple[Route, ...]:
    """The routes whose TLS is left to the tasks."""
    names = {backend.name for backend in table.backends if backend.http.passthrough}
    return tuple(route for route in table.routes if route.backend in names)


def _named(table: RouteTable) -> set[str]:
    return {backend.http.certificate for backend in table.backends if backend.http.certificate}


def _certificate_list(table: RouteTable, default: str, own: Mapping[str, str]) -> str:
    """The default first; then for each service its certificate and names: a line has a limit, and a service has one of names."""
    lines = [default]
    for backend in table.backends:
        if path := own.get(backend.http.certificate):
            lines.append(" ".join((path, *(host for host in backend.http.hosts if host != "*"))))
    return "\n".join(lines) + "\n"


def _host_for_check(http: Http) -> str:
    return next((host for host in http.hosts if "*" not in host), "localhost")


def _from(networks: Iterable[IPv4Network], stem: str, keep: Keep) -> str:
    """A condition on the client. The networks are in a file: HAProxy takes 64 words a line."""
    return f"src -f {keep(stem, 'list', ''.join(f'{network}{chr(10)}' for network in networks))}"


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
