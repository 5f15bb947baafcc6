"""The ways to a daemon: its unix socket, or TLS over the network. The standard library alone, since start-up time counts."""

import errno
import http.client
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from routemesh.errors import RoutemeshError, Unavailable, UserError

if TYPE_CHECKING:
    import ssl
    import subprocess

ANSWER_TIMEOUT_S = 30.0
"""The longest that a daemon may be silent; more than any wait of its own."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A daemon of another machine, and the files by which both ends know each other: roots, a certificate and its key, in PEM."""

    host: str
    port: int
    ca: Path
    certificate: Path
    key: Path

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ssh:
    """The own daemon of a machine that `ssh` reaches, `user` "" and `port` 0: as ssh has it configured."""

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"ssh://{self.user}{'@' * bool(self.user)}{self.host}{f':{self.port}' * bool(self.port)}"

    def command(self) -> tuple[str, ...]:
        """What joins standard input and output with that daemon's socket, as docker's ssh:// does."""
        user = ("-l", self.user) if self.user else ()
        port = ("-p", str(self.port)) if self.port else ()
        return ("ssh", *user, *port, "--", self.host, "routemesh", "dial-stdio")


Way = Path | Remote | Ssh
"""A unix socket, or a daemon of another machine."""


class Connection(http.client.HTTPConnection):
    """HTTP to a daemon."""

    def settimeout(self, timeout_s: float | None) -> None:
        """How long it may be silent from now on; None: for ever."""
        if self.sock is not None:
            self.sock.settimeout(timeout_s)


def connection(way: Way) -> Connection:
    """A connection, not yet open."""
    match way:
        case Path():
            return _Unix(way)
        case Remote():
            return _Tls(way)
        case Ssh():
            return _OverSsh(way)
        case _:
            assert_never(way)


class _Unix(Connection):
    def __init__(self, path: Path) -> None:
        super().__init__("routemesh", timeout=ANSWER_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Tls(Connection):
    def __init__(self, remote: Remote) -> None:
        super().__init__(remote.host, remote.port, timeout=ANSWER_TIMEOUT_S)
        self._remote = remote

    def connect(self) -> None:
        context = _context(self._remote)
        raw = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = context.wrap_socket(raw, server_hostname=self.host)


class _OverSsh(Connection):
    def __init__(self, way: Ssh) -> None:
        super().__init__("routemesh", timeout=ANSWER_TIMEOUT_S)
        self._way = way
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        """What ssh asks and complains of, it does on the terminal and on standard error."""
        import subprocess

        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(self._way.command(), stdin=theirs.fileno(), stdout=theirs.fileno())
            except OSError:
                ours.close()
                raise
        ours.settimeout(self.timeout)
        self.sock = ours

    def close(self) -> None:
        """Also ends ssh."""
        super().close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def _context(remote: Remote) -> "ssl.SSLContext":
    """Raises UserError for files that can't be used."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (remote.ca, remote.certificate, remote.key):
        try:
            path.read_bytes()
        except OSError as exc:
            raise UserError(
                f"can't read {path}: {exc.strerror}: {remote} is asked with certificates: --tlscacert, --tlscert, --tlskey"
            ) from exc
    try:
        context.load_verify_locations(remote.ca)
        context.load_cert_chain(remote.certificate, remote.key)
    except ssl.SSLError as exc:
        raise UserError(
            f"{remote.ca}, {remote.certificate} and {remote.key} are not roots, a certificate and its key in PEM ({exc.reason})"
        ) from exc
    return context


def gone(way: Way, exc: Exception) -> RoutemeshError:
    """Why a daemon did not answer, in words."""
    if isinstance(way, Remote):
        return _gone_remote(way, exc)
    if isinstance(way, Ssh):
        reason = "there is no program ssh" if isinstance(exc, FileNotFoundError) else "see what ssh says above"
        return Unavailable(f"no daemon answers at {way}: {reason}; is routemesh installed there, and are you root there?")
    where = f"no daemon answers at {way}"
    match exc:
        case FileNotFoundError():
            return Unavailable(f"{where}: there is no such socket; start one with routemesh lab up or routemesh node")
        case ConnectionRefusedError():
            return Unavailable(f"{where}: the one that made it is gone; start it again, or see routemesh lab status")
        case PermissionError():
            return Unavailable(f"{where}: its socket is root's; use sudo")
        case TimeoutError():
            return Unavailable(f"{where} within {ANSWER_TIMEOUT_S:.0f} s; its log may say why")
        case OSError(errno=errno.ECONNRESET | errno.EPIPE) | http.client.HTTPException():
            return Unavailable(f"the daemon at {way} went away while it was asked; try again")
        case _:
            return Unavailable(f"{where}: {exc}")


def _gone_remote(way: Remote, exc: Exception) -> RoutemeshError:
    import ssl

    match exc:
        case ssl.SSLCertVerificationError():
            return Unavailable(f"the certificate of {way} is not believed ({exc.verify_message}); --tlscacert has the roots")
        case ssl.SSLError() | http.client.RemoteDisconnected() | ConnectionResetError():
            return Unavailable(f"{way} does not take {way.certificate}, or went away: is it of its cluster, and has it expired?")
        case TimeoutError():
            return Unavailable(f"no daemon answers at {way} in time: is the port open to here?")
        case OSError() if exc.strerror:
            return Unavailable(f"no daemon answers at {way}: {exc.strerror}: is it running, and the port open to here?")
        case _:
            return Unavailable(f"no daemon answers at {way}: {exc}")
