"""The cookie by which a client is kept with its task."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from routemesh.gateway import selfsigned
from routemesh.model import GatewayDriver, Http, Sticky
from tests.gateway.cases import OK, request
from tests.gateway.message import Message, Stream, read_body, read_head
from tests.gateway.origin import Origin
from tests.gateway.proxies import free_port, running, table
from tests.support import require


@contextmanager
def connected(port: int, *, tls: bool) -> Iterator[Stream]:
    """A connection to a proxy, whose certificate is believed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        if not tls:
            yield Stream(plain)
            return
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as secure:
            yield Stream(secure)


def asked(port: int, host: str, *, tls: bool) -> Message:
    """What a new client is answered."""
    with connected(port, tls=tls) as stream:
        stream.connection.sendall(request(host=host, case="ok"))
        answer = read_head(stream)
        read_body(stream, answer, answer=True)
        return answer


@pytest.mark.parametrize("driver", GatewayDriver)
def test_the_cookie_of_a_service_that_is_reached_by_tls_alone_is_secure(driver: GatewayDriver) -> None:
    require(driver.value, "root")
    origin, https_port = Origin({"ok": OK}), free_port()
    services = {
        "both": (Http(hosts=("both.example",), port=origin.port, sticky=Sticky.COOKIE), [origin.port]),
        "only": (Http(hosts=("only.example",), port=origin.port, sticky=Sticky.COOKIE, redirect=True), [origin.port]),
    }
    pem = selfsigned.make(("both.example", "only.example")).decode()
    with running(driver, table(services), pem, https_port) as port:
        (cookie,) = asked(https_port, "only.example", tls=True).get(b"set-cookie")
        assert [word.strip() for word in cookie.split(b";")][1:] == [b"Path=/", b"HttpOnly", b"SameSite=Lax", b"Secure"]
        redirected = asked(port, "only.example", tls=False)
        assert (redirected.status, redirected.get(b"set-cookie")) == (308, [])
        for tls in (False, True):
            (cookie,) = asked(https_port if tls else port, "both.example", tls=tls).get(b"set-cookie")
            assert b"Secure" not in cookie  # it would be of no use without TLS, where the service answers too
    origin.close()
