"""A proxy's configuration as files. PURE."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HAPROXY_MAIN, NGINX_MAIN = "haproxy.cfg", "nginx.conf"
HAPROXY_MASTER_SOCKET = "master.sock"

Keep = Callable[[str, str, str], str]
"""Have a text beside the main file, under a stem and an ending; returns its path."""

DIGEST_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Rendered:
    """Files by their names in the proxy's directory. `main` is the one that the proxy reads, under `files` too.

    `generation` names all that only a reload brings into a running proxy: two configurations of one generation differ in servers
    at most, if the driver can change those at run time. Files other than `main` have a digest of their
    content in their name: those of a running configuration stay as they are while the next one is written.
    """

    main: str
    generation: str
    files: Mapping[str, str] = field(repr=False)


def digest(*texts: str) -> str:
    """A short name for a content."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:DIGEST_LENGTH]
