"""Certificates: what a secret's PEM holds, for which names and how long, and which are about to expire. PURE.

A certificate's secret is a PEM text: the certificate, those that it is signed by, and its key without a password.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from routemesh.errors import UserError
from routemesh.model import Amiss

DEFAULT_CERTIFICATE = "gateway-default"
"""The secret of the certificate that is shown where no service's names fit; made when the gateway is enabled."""

WARN_BEFORE_S = 21 * 24 * 60 * 60
_DAY_S = 24 * 60 * 60
_LEAST_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What clients see of it. Times are seconds since the epoch."""

    names: tuple[str, ...]
    not_before: float
    not_after: float


def read(pem: bytes) -> Certificate:
    """The first certificate of a PEM text. Raises UserError unless a key that fits it is there, too."""
    (certificate, *_), _ = _parsed(pem)
    return Certificate(
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def check_strength(pem: bytes) -> None:
    """Raises UserError for keys and signatures that OpenSSL's security level 2 (Debian's) refuses, or that no browser takes.

    Source: SSL_CTX_set_security_level(3).
    """
    certificates, _ = _parsed(pem)
    for number, certificate in enumerate(certificates):
        which = "its key" if number == 0 else f"the key of its certificate {number + 1}"
        match certificate.public_key():
            case rsa.RSAPublicKey() as key if key.key_size < _LEAST_RSA_BITS:
                raise UserError(f"{which} has {key.key_size} bits; a proxy takes RSA from {_LEAST_RSA_BITS} bits on")
            case ec.EllipticCurvePublicKey() as key if key.curve.name not in _CURVES:
                raise UserError(f"{which} is on curve {key.curve.name}; clients take {', '.join(_CURVES)}")
            case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                pass
            case _:
                raise UserError(f"{which} is of a kind that clients do not take; use RSA, EC or Ed25519")
        own = certificate.issuer == certificate.subject  # a root's signature is asked by nobody
        if not own and isinstance(certificate.signature_hash_algorithm, hashes.MD5 | hashes.SHA1):
            raise UserError(
                f"certificate {number + 1} of it is signed with {certificate.signature_hash_algorithm.name}; use SHA-256"
            )


@lru_cache(maxsize=256)
def canonical(pem: bytes) -> str:
    """The certificates and the key alone, written anew: proxies read fewer forms of PEM than we do. Raises UserError."""
    certificates, key = _parsed(pem)
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    return (chain + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())).decode()


def _parsed(pem: bytes) -> tuple[list[x509.Certificate], PrivateKeyTypes]:
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        key = load_pem_private_key(_key_of(pem), None)
        fits = _public(certificates[0]) == _public(key)
        for certificate in certificates:
            certificate.public_key()
            _names(certificate)
    except (ValueError, TypeError, IndexError, AttributeError, UnsupportedAlgorithm) as exc:
        reason = str(exc).partition("\n")[0].partition(".")[0]
        raise UserError(f"it is not a certificate in PEM with its key beside it and no password ({reason})") from None
    if not fits:
        raise UserError("its key does not belong to its first certificate; put the server's own certificate first")
    return certificates, key


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
