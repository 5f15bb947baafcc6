"""How a daemon proves to etcd who it is, and etcd to it: certificates and a password, from files that may be renewed any time."""

import os
import ssl
from pathlib import Path

import aiohttp

from routemesh.errors import Unavailable
from routemesh.options import EtcdCluster
from routemesh.store.etcd.faults import Missed


class Proof:
    """The files of one store, read again when they have changed."""

    def __init__(self, place: EtcdCluster) -> None:
        self._keys = place.keys
        self._read: tuple[object, ...] = ()
        self._context: ssl.SSLContext | None = None
        self.speaks_tls = bool(self._keys.ca or self._keys.certificate)

    def context(self) -> ssl.SSLContext | None:
        """What TLS is spoken with; None: no TLS is. Raises Unavailable, naming the file that can't be used."""
        if not self.speaks_tls:
            return None
        files = [path for path in (self._keys.ca, self._keys.certificate, self._keys.key) if path is not None]
        present = tuple(map(_version, files))
        if self._context is None or present != self._read:
            self._context, self._read = self._made(), present
        return self._context

    def password(self) -> str:
        """The user's password. Raises Unavailable where its file can't be read."""
        assert self._keys.password is not None, "options.place demands it beside a user"
        try:
            return self._keys.password.read_text().strip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise Unavailable(f"can't read the password for etcd in {self._keys.password}: {_said(exc)}") from exc

    def missed(self, exc: aiohttp.ClientError | OSError) -> Missed:
        """Why a member could not be spoken with."""
        if isinstance(exc, TimeoutError):
            return Missed("it does not answer in time")
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            reason = getattr(exc.certificate_error, "verify_message", "") or str(exc.certificate_error)
            return Missed(f"its certificate is not good by {self._keys.ca or 'the CAs of this machine'}: {reason}", hopeless=True)
        if isinstance(exc, aiohttp.ClientConnectorError):
            return Missed(_said(exc.os_error), hopeless=isinstance(exc, aiohttp.ClientConnectorSSLError))
        if (alert := _alert(exc)) is not None:
            shown = self._keys.certificate or "a client without a certificate; --store-cert gives one"
            return Missed(f"it does not take {shown}: {_said(alert)}", hopeless=True)
        if isinstance(exc, aiohttp.ServerDisconnectedError):
            return Missed(f"it closed the connection{self._perhaps_tls()}")
        return Missed(_said(exc))

    def not_etcd(self) -> str:
        """What it means when a member answers something else than etcd does."""
        return f"what it answers is not etcd's{self._perhaps_tls()}"

    def _perhaps_tls(self) -> str:
        return "" if self.speaks_tls else "; if it speaks TLS, give --store-ca"

    def _made(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._keys.ca)
        except (OSError, ssl.SSLError) as exc:
            raise Unavailable(f"can't read the CA of etcd's certificates in {self._keys.ca}: {_said(exc)}") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._keys.certificate is not None:
            try:
                context.load_cert_chain(self._keys.certificate, self._keys.key, password=_no_passphrase)
            except (OSError, ssl.SSLError) as exc:
                both = f"{self._keys.certificate} and {self._keys.key}"
                raise Unavailable(f"can't use the certificate for etcd in {both}: {_said(exc)}") from exc
        return context


def _version(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _no_passphrase() -> str:
    """A daemon can't ask for one; OpenSSL would, on the terminal."""
    return ""


def _alert(exc: BaseException | None) -> ssl.SSLError | None:
    """The TLS error that an exception stems from: by TLS 1.3 a server refuses a certificate after the handshake."""
    while exc is not None and not isinstance(exc, ssl.SSLError):
        exc = exc.__cause__ or exc.__context__
    return exc


def _said(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {(exc.reason or str(exc)).replace('_', ' ').lower()}"
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno)  # asyncio has words of its own, which repeat the address
    return str(exc) or type(exc).__name__
