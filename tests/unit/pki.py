"""A certificate authority for tests, and handshakes between two ends without a network."""

import ssl
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from routemesh.credentials.files import Credentials, Place
from routemesh.model import Role
from routemesh.pki import certificates
from routemesh.pki.subject import Subject

HOUR_S = 3600.0
CLUSTER = "cluster1"
LOOPBACK = IPv4Address("127.0.0.1")


@dataclass
class Issuer:
    """One cluster's authority."""

    authority: certificates.Authority
    cluster: str = CLUSTER

    def give(
        self,
        directory: Path,
        node: str,
        role: Role = Role.WORKER,
        *,
        now: float | None = None,
        chain: str = "",
        roots: tuple[str, ...] = (),
    ) -> Place:
        """A node's credentials, made at `now`, in its directory."""
        key = certificates.new_key()
        subject = Subject(node, role, self.cluster)
        made = time.time() if now is None else now
        issued = certificates.issue(self.authority, certificates.request(key), subject, made, addresses=(LOOPBACK,), chain=chain)
        place = Place(directory)
        place.save(Credentials(key, issued, roots or (self.authority.certificate,)))
        return place


def issuer(cluster: str = CLUSTER) -> Issuer:
    """A new one."""
    return Issuer(certificates.make_root(cluster, time.time()), cluster)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after their handshake, the server's first. Raises ssl.SSLError of whichever end refuses."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name))
    waiting = [ends[1], ends[0]]
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    # With TLS 1.3 the client is done before the server has seen its certificate.
    return ends
