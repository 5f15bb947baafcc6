"""What a client asks of the gateway. PURE."""

from dataclasses import dataclass
from ipaddress import IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. `cookie` is what the gateway's cookie holds, "" if the client has none, with its NAME= or without; `headers`
    are names and values; `source` is the client's address, None where it is not known.
    """

    host: str
    path: str = "/"
    tls: bool = False
    cookie: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    source: IPv4Address | None = None

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}{'' if self.path == '/' else self.path}"

    def header(self, name: str) -> str:
        """The value of a header, "" where it is not sent."""
        return next((value for sent, value in self.headers if sent.lower() == name.lower()), "")
