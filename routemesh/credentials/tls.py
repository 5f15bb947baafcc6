"""TLS between daemons: 1.2 or newer; who has a certificate that is not one of the cluster's does not get past the handshake."""

import ssl

from routemesh.credentials.files import Place


def listening(place: Place) -> ssl.SSLContext:
    """For the end that listens. A client may have no certificate: what it may ask then is for others to decide."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, place)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def connecting(place: Place) -> ssl.SSLContext:
    """For the end that connects, which must name whom it expects: a node's id, or subject.role_name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, place)


def believing(roots: str) -> ssl.SSLContext:
    """For one without a certificate, which believes these roots. Raises ssl.SSLError for what is no root."""
    context = _versions(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.load_verify_locations(cadata=roots)
    return context


def believing_nobody_yet() -> ssl.SSLContext:
    """For the one question for the roots themselves, whose answer is checked by the digest in a token."""
    context = _versions(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int, place: Place) -> ssl.SSLContext:
    context = _versions(ssl.SSLContext(protocol))
    context.load_cert_chain(place.node)
    context.load_verify_locations(place.roots)
    return context


def _versions(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
