"""Sending a probe from a namespace: a TCP connection, an HTTP request or a datagram, and what comes back of it.

Source: socket(7), tcp(7), udp(7) (ICMP errors are told on a connected socket), RFC 9112.
"""

import socket
import time
from contextlib import closing
from errno import EADDRINUSE, EADDRNOTAVAIL
from pathlib import Path
from typing import Literal

from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.sightings import Probe, Sent
from routemesh.snapshot import endpoint

_DATAGRAM = b"routemesh trace\n"
_MOST_BYTES = 1 << 20
Outcome = Literal["answered", "refused", "silence"]


def send(probe: Probe, path: Path) -> Sent:
    """Send it from the namespace at `path` and wait for what becomes of it. Raises Unavailable where it can't be sent."""
    with netns.entered(path):
        kind = socket.SOCK_STREAM if probe.protocol == "tcp" else socket.SOCK_DGRAM
        made = socket.socket(socket.AF_INET, kind)
    with closing(made):
        source, destination = ((str(end.address), end.port) for end in map(endpoint, (probe.source, probe.destination)))
        try:
            made.bind(source)
        except OSError as refusal:
            raise Unavailable(f"the probe can't be sent from {probe.source}: {_why(refusal)}") from refusal
        at, started = time.time(), time.monotonic()
        made.settimeout(probe.timeout_s)
        try:
            what = _ask(made, destination, probe, started)
            outcome: Outcome = "answered"
        except ConnectionRefusedError:
            outcome, what = "refused", "the connection was refused"
        except TimeoutError:
            outcome, what = "silence", f"nothing came within {probe.timeout_s:g} s"
        except OSError as refusal:
            outcome, what = "refused", str(refusal.strerror or refusal)
        shook_hands = outcome == "answered" and probe.protocol == "tcp" and not probe.http
        return Sent(outcome=outcome, what=what, at=at, took_s=time.monotonic() - started, only_accepted=shook_hands)


def _ask(made: socket.socket, destination: tuple[str, int], probe: Probe, started: float) -> str:
    made.connect(destination)
    if probe.protocol == "udp":
        made.send(_DATAGRAM)
        return f"a datagram of {len(made.recv(_MOST_BYTES))} bytes came back"
    if not probe.http:
        return "the connection was accepted"
    host = probe.host or probe.destination
    request = f"GET {probe.http} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: routemesh-trace\r\nConnection: close\r\n\r\n"
    made.sendall(request.encode())
    received = b""
    while len(received) < _MOST_BYTES:
        made.settimeout(max(probe.timeout_s - (time.monotonic() - started), 0.001))
        data = made.recv(65536)
        if not data:
            break
        received += data
    status = received.partition(b"\r\n")[0].decode("latin-1", "replace")
    return f"{status or 'nothing'}, {len(received)} bytes" if status else "the connection was closed without an answer"


def _why(refusal: OSError) -> str:
    known = {EADDRINUSE: "the port is in use; try again, or name another one", EADDRNOTAVAIL: "no link there has that address"}
    return known.get(refusal.errno or 0, str(refusal.strerror))
