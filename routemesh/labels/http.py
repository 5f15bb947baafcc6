"""Labels by which a service joins the gateway. PURE.

routemesh.http.host=NAME[,NAME…]            app.example.com, *.example.com, or * for every name; required
routemesh.http.path=/api                    it and all below it (default /)
routemesh.http.port=8080                    on which a task answers (default: its first published TCP target port)
routemesh.http.protocol=http|grpc           grpc: HTTP/2 without TLS between gateway and task
routemesh.http.sticky=cookie|source|header:NAME
routemesh.http.tls=SECRET[,redirect]|redirect|passthrough
routemesh.http.balance=roundrobin|leastconn|random
routemesh.http.health=/healthz              checked by every proxy; a task that fails gets no requests
routemesh.http.timeout=60s                  how long a task may be silent while it answers
routemesh.http.maxconn=100                  requests at a time per task; others queue
routemesh.http.retry=3                      how often a connection to a task is tried anew
routemesh.http.max-header=32k               how large the head of an answer may be, and, the largest of all services, of a request
routemesh.http.compress=on|off
routemesh.http.allow=CIDR[,CIDR…]           whose requests are answered; 403 for others
routemesh.http.proxy-protocol=v1|v2         sent to tasks
routemesh.http.header-add=[request:|response:]NAME=VALUE[;…]

Each value has a grammar of its own that has no room for what a proxy's configuration gives a meaning: no quotes, backslashes,
control characters, $, %, # or braces; only ASCII. So nothing that is admitted can be anything but a word of a configuration.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from typing import Any

from routemesh.errors import UserError
from routemesh.model import Header, Http, HttpBalance, HttpProtocol, Protocol, Publish, Sticky

PREFIX = "routemesh.http."
HOST = f"{PREFIX}host"
PATH = f"{PREFIX}path"
PORT = f"{PREFIX}port"
TLS = f"{PREFIX}tls"
PROXY_PROTOCOL = f"{PREFIX}proxy-protocol"
PROTOCOL, STICKY, BALANCE, COMPRESS = f"{PREFIX}protocol", f"{PREFIX}sticky", f"{PREFIX}balance", f"{PREFIX}compress"

EVERY_HOST = "*"
SECRET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
RESERVED_SECRETS = frozenset({"redirect", "passthrough"})

MAX_TIMEOUT_S = 24 * 60 * 60
MAX_HOSTS, MAX_HEADERS, MAX_NETWORKS = 64, 64, 1000
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:\*\.)?{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_MAX_HOST_LENGTH = 253
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!&()*+,=:@-]+(?:/[A-Za-z0-9._~!&()*+,=:@-]+)*)?")
_MAX_PATH_LENGTH = 200
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEADER_VALUE = re.compile(r"[A-Za-z0-9 ._~:/?=&,+@*()<>|!-]{1,256}")
HOP_BY_HOP = frozenset({
    "connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    "cookie", "set-cookie", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip",
})  # fmt: skip
"""Headers that make up the message, or that the gateway itself writes."""
_NUMBER = re.compile(r"[0-9]{1,7}")
_DURATION = re.compile(r"([0-9]{1,6})(ms|s|m|h)")
_MAX_HEADER_KIB = 64
_BROADCAST = IPv4Network("255.255.255.255/32")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LAST_PORT, _MAX_CONNECTIONS, _MAX_RETRIES = 65535, 1_000_000, 10


def http(labels: Mapping[str, str], publish: tuple[Publish, ...]) -> Http | None:
    """What a service's labels say, None for one that does not join. Raises UserError, which says what is allowed."""
    ours = {key: value for key, value in labels.items() if key.startswith(PREFIX)}
    if not ours:
        return None
    fields: dict[str, Any] = {"port": _default_port(publish)}
    for label, value in sorted(ours.items()):
        fields |= _READERS[label](label, value)
    if HOST not in ours:
        raise UserError(
            f"label {min(ours)} needs {HOST}, the name by which the gateway knows the service; add it ('*' for every name)"
        )
    if fields["port"] == 0:
        raise UserError(f"nothing is published, so label {PORT} must say on which port a task answers the gateway; add it")
    made = Http(**fields)
    _check_together(made, publish)
    return made


def _default_port(publish: tuple[Publish, ...]) -> int:
    return next((port.target for port in publish if port.protocol is Protocol.TCP), 0)


def _check_together(http: Http, publish: tuple[Publish, ...]) -> None:
    for port in publish:
        if port.protocol is Protocol.TCP and port.published == http.port != port.target:
            raise UserError(
                f"label {PORT}={http.port}: the service publishes {port.published}, which leads to {port.target} in a task and "
                f"hides its port {http.port}; use {PORT}={port.target}, or publish another port"
            )
    if not http.passthrough:
        return
    if http.path != "/":
        raise UserError(f"label {PATH}={http.path}: with {TLS}=passthrough the gateway sees no path; leave it out")
    if EVERY_HOST in http.hosts:
        raise UserError(f"label {HOST}=*: with {TLS}=passthrough the gateway chooses by the name in the handshake; give names")
    http_only = {"sticky": http.sticky, "health": http.health, "compress": http.compress, "header-add": http.headers}
    if wrong := [f"{PREFIX}{name}" for name, value in http_only.items() if value and value is not Sticky.SOURCE]:
        raise UserError(f"label {wrong[0]}: with {TLS}=passthrough the gateway sees no HTTP; leave it out")
    if http.protocol is not HttpProtocol.HTTP:
        raise UserError(f"label {PREFIX}protocol={http.protocol}: with {TLS}=passthrough the gateway sees no HTTP; leave it out")


# --- one label each ----------------------------------------------------------------------------------------------------

Reader = Callable[[str, str], dict[str, Any]]


def _hosts(label: str, text: str) -> dict[str, Any]:
    hosts = [host.strip(" ").lower() if host.isascii() else host for host in text.split(",")]
    for host in hosts:
        if host != EVERY_HOST and (not _HOST.fullmatch(host) or len(host) > _MAX_HOST_LENGTH):
            raise UserError(
                f"label {label}: {host!r} is not a host name; use names such as app.example.com or *.example.com (letters, "
                "digits, - and dots; others in their xn-- form), separated by commas, or * for every name"
            )
    if len(hosts) > MAX_HOSTS:
        raise UserError(f"label {label} has {len(hosts)} names; use at most {MAX_HOSTS}")
    return {"hosts": tuple(dict.fromkeys(hosts))}


def _path(label: str, text: str) -> dict[str, Any]:
    path = text.rstrip("/") or "/" if text.startswith("/") and not text.endswith("//") else text
    if not _PATH.fullmatch(path) or len(path) > _MAX_PATH_LENGTH or _DOTS.search(path):
        raise UserError(
            f"label {label}={text!r} is not a path; use one such as /api (letters, digits and . _ ~ ! & ( ) * + , = : @ -, "
            f"no empty, . or .. parts, at most {_MAX_PATH_LENGTH} characters)"
        )
    return {"path": path}


def _number(field: str, first: int, last: int) -> Reader:
    def read(label: str, text: str) -> dict[str, Any]:
        if not _NUMBER.fullmatch(text) or not first <= int(text) <= last:
            raise UserError(f"label {label}={text!r} is not a number that fits; use {first}-{last}")
        return {field: int(text)}

    return read


def _word(field: str, words: Mapping[str, Any]) -> Reader:
    def read(label: str, text: str) -> dict[str, Any]:
        if text not in words:
            raise UserError(f"label {label}={text!r} has an unknown value; use {' or '.join(words)}")
        return {field: words[text]}

    return read


def _sticky(label: str, text: str) -> dict[str, Any]:
    kind, colon, name = text.partition(":")
    if kind == Sticky.HEADER and _TOKEN.fullmatch(name):
        return {"sticky": Sticky.HEADER, "sticky_header": name}
    if colon or kind not in (Sticky.COOKIE, Sticky.SOURCE):
        raise UserError(
            f"label {label}={text!r} has an unknown value; use cookie, source or header:NAME (letters, digits, - and _)"
        )
    return {"sticky": Sticky(kind)}


def _tls(label: str, text: str) -> dict[str, Any]:
    if text == "passthrough":
        return {"passthrough": True}
    if text == "redirect":
        return {"redirect": True}
    name, comma, option = text.partition(",")
    if not SECRET_NAME.fullmatch(name) or name in RESERVED_SECRETS or (comma and option != "redirect"):
        raise UserError(
            f"label {label}={text!r} has an unknown value; use the name of a secret (a certificate with its key), that and "
            "',redirect', redirect alone (with the gateway's own certificate) or passthrough"
        )
    return {"certificate": name, "redirect": bool(option)}


def _health(label: str, text: str) -> dict[str, Any]:
    return {"health": _path(label, text)["path"]}


def _size(label: str, text: str) -> dict[str, Any]:
    if not text.endswith("k") or not _NUMBER.fullmatch(text[:-1]) or not 1 <= int(text[:-1]) <= _MAX_HEADER_KIB:
        raise UserError(f"label {label}={text!r} is not a size that fits; use 1k-{_MAX_HEADER_KIB}k (KiB)")
    return {"max_header_bytes": int(text[:-1]) * 1024}


def _timeout(label: str, text: str) -> dict[str, Any]:
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not 0.001 <= seconds <= MAX_TIMEOUT_S:
        raise UserError(f"label {label}={text!r} is not a duration; use one such as 500ms, 60s, 5m or 1h, at most 24h")
    return {"timeout_s": seconds}


def _allow(label: str, text: str) -> dict[str, Any]:
    networks = []
    for part in text.split(","):
        try:
            if not part.isascii():
                raise ValueError
            networks.append(network := IPv4Network(part.strip(" ")))
            if network == _BROADCAST:  # no client has it, and nginx refuses it
                raise ValueError
        except ValueError:
            raise UserError(
                f"label {label}: {part!r} is not an IPv4 network; use CIDRs such as 192.0.2.0/24, separated by commas"
            ) from None
    if len(networks) > MAX_NETWORKS:
        raise UserError(f"label {label} has {len(networks)} networks; use at most {MAX_NETWORKS}")
    return {"allow": tuple(dict.fromkeys(networks))}


def _headers(label: str, text: str) -> dict[str, Any]:
    parts = text.split(";")
    if len(parts) > MAX_HEADERS:
        raise UserError(f"label {label} has {len(parts)} headers; use at most {MAX_HEADERS}")
    return {"headers": tuple(_header(label, part) for part in parts)}


def _header(label: str, text: str) -> Header:
    side, colon, rest = text.partition(":")
    if not colon or side not in ("request", "response"):
        side, rest = "request", text
    name, equals, value = rest.partition("=")
    if not equals or not _TOKEN.fullmatch(name) or not _HEADER_VALUE.fullmatch(value) or value != value.strip():
        raise UserError(
            f"label {label}: {text!r} is not of the form [request:|response:]NAME=VALUE, several separated by ';' (NAME of "
            "letters, digits, - and _; VALUE of letters, digits, spaces and . _ ~ : / ? = & , + @ * ( ) < > | ! -)"
        )
    if name.lower() in HOP_BY_HOP:
        raise UserError(f"label {label}: header {name} is the gateway's own to write; use another")
    return Header(name=name, value=value, to_response=side == "response")


_READERS: Mapping[str, Reader] = {
    HOST: _hosts,
    PATH: _path,
    PORT: _number("port", 1, _LAST_PORT),
    PROTOCOL: _word("protocol", {kind.value: kind for kind in HttpProtocol}),
    STICKY: _sticky,
    TLS: _tls,
    BALANCE: _word("balance", {kind.value: kind for kind in HttpBalance}),
    f"{PREFIX}health": _health,
    f"{PREFIX}timeout": _timeout,
    f"{PREFIX}maxconn": _number("maxconn", 1, _MAX_CONNECTIONS),
    f"{PREFIX}retry": _number("retries", 0, _MAX_RETRIES),
    f"{PREFIX}max-header": _size,
    COMPRESS: _word("compress", {"on": True, "off": False}),
    f"{PREFIX}allow": _allow,
    PROXY_PROTOCOL: _word("proxy_protocol", {"v1": 1, "v2": 2}),
    f"{PREFIX}header-add": _headers,
}
TABLE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_READERS, ()),
    HOST: ("*",),
    PROTOCOL: tuple(HttpProtocol),
    STICKY: (Sticky.COOKIE, Sticky.SOURCE, f"{Sticky.HEADER}:NAME"),
    TLS: ("SECRET", "SECRET,redirect", "redirect", "passthrough"),
    BALANCE: tuple(HttpBalance),
    COMPRESS: ("on", "off"),
    PROXY_PROTOCOL: ("v1", "v2"),
}
