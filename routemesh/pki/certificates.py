"""Making and reading the cluster's certificates: roots, nodes' certificates, a root signed by another. Keys are ECDSA P-256.

A node's certificate serves for both ends of a connection: etcd's gateway dials itself with its server's. Texts are PEM, times
seconds since the epoch. It takes a while to load; command lines that need no certificate must not import it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from routemesh.errors import UserError
from routemesh.model import Role
from routemesh.pki.subject import Subject, role_name

_DAY_S = 24 * 60 * 60.0
NODE_VALID_S = 90 * _DAY_S
ROOT_VALID_S = 20 * 365 * _DAY_S
BACKDATED_S = 60 * 60.0
"""A certificate begins so long before it is made: clocks of nodes differ."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs: a root certificate and its key."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """What a node's certificate says. `signed_by`: the name of the root that has signed it."""

    subject: Subject
    not_before: float
    not_after: float
    signed_by: str

    def renew_at(self) -> float:
        """Half of its time is over then."""
        return (self.not_before + BACKDATED_S + self.not_after) / 2


def new_key() -> str:
    """A key of its own."""
    return _written(ec.generate_private_key(ec.SECP256R1()))


def make_root(cluster: str, now: float) -> Authority:
    """A new root of a cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _root_name(cluster, x509.SubjectKeyIdentifier.from_public_key(key.public_key()))
    return Authority(_text(_root(name, key.public_key(), name, key, now)), _written(key))


def cross_signed(root: str, by: Authority, now: float) -> str:
    """A root's certificate as another one signs it: who knows only the other believes the root, too."""
    own, (signer, key) = _read(root), _loaded(by)
    public = own.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return _text(_root(own.subject, public, signer.subject, key, now))


def request(key: str) -> str:
    """A signing request, which says nothing but which key it is for, and proves that the asker has it."""
    name = x509.Name([])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(_key(key), hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def issue(
    authority: Authority,
    asked: str,
    subject: Subject,
    now: float,
    *,
    addresses: Collection[IPv4Address] = (),
    chain: str = "",
    valid_s: float = NODE_VALID_S,
) -> str:
    """A node's certificate for the key of a request, followed by `chain`. All it says is the issuer's to decide.

    Its names are the node's id and its role, since whoever connects asks for one of these, and the node's addresses, which etcd's
    clients look at. Raises UserError for what is no request.
    """
    public = _requested(asked)
    root, key = _loaded(authority)
    names: list[x509.GeneralName] = [x509.DNSName(subject.node), x509.DNSName(role_name(subject.role))]
    names += [x509.IPAddress(address) for address in addresses]
    builder = (
        _builder(_subject_name(subject), public, root.subject, key.public_key(), now, now + valid_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return _text(builder.sign(key, hashes.SHA256())) + chain


def read(pem: str) -> NodeCertificate:
    """What the first certificate of a text says. Raises UserError for one that is not a node's."""
    certificate = _read(pem)
    try:
        (node,), (role,), (cluster,) = (
            certificate.subject.get_attributes_for_oid(oid)
            for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME)
        )
        subject = Subject(str(node.value), Role(str(role.value)), str(cluster.value))
    except ValueError:
        raise UserError("the certificate is not a node's: it names no node, role and cluster") from None
    return NodeCertificate(
        subject=subject,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        signed_by=_common_name(certificate.issuer),
    )


def root_name(root: str) -> str:
    """By what certificates name the root that has signed them."""
    return _common_name(_read(root).subject)


def signed(pem: str, roots: Sequence[str]) -> bool:
    """Whether the first certificate of a text bears the signature of one of these roots."""
    certificate = _read(pem)
    for root in map(_read, roots):
        try:
            certificate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _root(
    name: x509.Name, public: ec.EllipticCurvePublicKey, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float
) -> x509.Certificate:
    builder = (
        _builder(name, public, issuer, key.public_key(), now, now + ROOT_VALID_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def _builder(
    name: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuing: ec.EllipticCurvePublicKey,
    now: float,
    end: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - BACKDATED_S, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _root_name(cluster: str, identifier: x509.SubjectKeyIdentifier) -> x509.Name:
    """Two roots of a cluster differ in their names, so that nobody mixes them up."""
    parts = ((NameOID.COMMON_NAME, f"routemesh-ca-{identifier.digest.hex()[:16]}"), (NameOID.ORGANIZATION_NAME, cluster))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _subject_name(subject: Subject) -> x509.Name:
    parts = (
        (NameOID.COMMON_NAME, subject.node),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, subject.role.value),
        (NameOID.ORGANIZATION_NAME, subject.cluster),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _common_name(name: x509.Name) -> str:
    return next((str(each.value) for each in name.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def _requested(asked: str) -> ec.EllipticCurvePublicKey:
    try:
        found = x509.load_pem_x509_csr(asked.encode())
        public = found.public_key()
        fits = isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256r1" and found.is_signature_valid
    except ValueError:
        fits = False
    if not fits:
        raise UserError("the certificate request is not one in PEM, for a key on P-256, signed with that key")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return public


def _loaded(authority: Authority) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    return _read(authority.certificate), _key(authority.key)


def _read(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem[pem.find("-----BEGIN CERTIFICATE") :].encode())
    except ValueError:
        raise UserError("the text holds no certificate in PEM") from None


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _written(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
