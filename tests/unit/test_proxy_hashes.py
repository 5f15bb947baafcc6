"""Hashes as HAProxy 2.6.12 and nginx 1.22.1 had them; tests/lab/test_gateway.py asks the installed ones."""

from ipaddress import IPv4Address

from routemesh.proxy.hashes import haproxy, nginx

NUMBERS = (5, 77, 1234, 9)
PORTS = {5: 9001, 77: 9002, 1234: 9003, 9: 9004}
HEADERS = [9, 9, 1234, 77, 5, 5, 5, 9]
SOURCES = [5, 5, 77, 1234, 9, 77, 9, 5]
KEYS = [77, 5, 9, 5, 77, 5, 1234, 5]
"""Which server, by its `id`, each of eight clients met."""


def test_a_headers_value_leads_where_haproxy_sent_it() -> None:
    assert [haproxy(NUMBERS, f"user{number}".encode()) for number in range(8)] == HEADERS


def test_a_client_is_led_where_haproxy_led_it() -> None:
    assert [haproxy(NUMBERS, IPv4Address(f"127.3.{number}.9")) for number in range(8)] == SOURCES


def test_a_key_leads_where_nginx_sent_it() -> None:
    servers = [(IPv4Address("127.0.0.1"), PORTS[number]) for number in NUMBERS]
    assert [NUMBERS[nginx(servers, f"user{number}")] for number in range(8)] == KEYS
