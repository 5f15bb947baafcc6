"""Certificates: what a secret's PEM holds, for which names and how long, and which are about to expire. PURE.

A certificate's secret is a PEM text: the certificate, those that it is signed by, and its key without a password.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from routemesh.errors import UserError
from routemesh.model import Amiss

DEFAULT_CERTIFICATE = "gateway-default"
"""The secret of the certificate that is shown where no service's names fit; made when the gateway is enabled."""

WARN_BEFORE_S = 21 * 24 * 60 * 60
_DAY_S = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Certificate:
    """What clients see of it. Times are seconds since the epoch."""

    names: tuple[str, ...]
    not_before: float
    not_after: float


def read(pem: bytes) -> Certificate:
    """The first certificate of a PEM text. Raises UserError unless a key that fits it is there, too."""
    try:
        certificate = x509.load_pem_x509_certificates(pem)[0]
        key = load_pem_private_key(_key_of(pem), None)
    except (ValueError, TypeError, IndexError) as exc:
        reason = str(exc).partition("\n")[0].partition(".")[0]
        raise UserError(f"it is not a certificate in PEM with its key beside it and no password ({reason})") from None
    if _public(certificate) != _public(key):
        raise UserError("its key does not belong to its first certificate; put the server's own certificate first")
    return Certificate(
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def covers(certificate: Certificate, host: str) -> bool:
    """Whether clients take the certificate for a host's; a wildcard host needs a wildcard name."""
    domain = host[host.find(".") :] if "." in host else ""
    return host in certificate.names or (bool(domain) and f"*{domain}" in certificate.names)


def expiry(certificate: Certificate, now: float) -> tuple[Amiss, str] | None:
    """What is amiss with a certificate's dates, and in words; None where nothing is."""
    if now < certificate.not_before:
        return "early", f"is not valid before {_date(certificate.not_before)}"
    if now >= certificate.not_after:
        ended = _date(certificate.not_after)
        return "expired", f"has expired on {ended}; make a secret of the new one, and name it in the label"
    if certificate.not_after - now < WARN_BEFORE_S:
        return "soon", f"expires on {_date(certificate.not_after)}, in {int((certificate.not_after - now) // _DAY_S)} days"
    return None


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _key_of(pem: bytes) -> bytes:
    """The part with the key: cryptography looks at the first block only."""
    start = next((at for kind in (b"PRIVATE", b"EC PRIVATE", b"RSA PRIVATE") if (at := pem.find(b"-----BEGIN " + kind)) >= 0), 0)
    return pem[start:]


def _public(holder: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public: bytes = holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(extension, x509.SubjectAlternativeName)
        return tuple(name.lower() for name in extension.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        return tuple(str(name.value).lower() for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
