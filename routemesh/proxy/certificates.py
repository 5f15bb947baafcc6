"""The certificates of services: as proxies get them, and which are, or soon will be, not what clients take. PURE."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from routemesh.errors import UserError
from routemesh.model import CertificateWarning, State
from routemesh.pem import DEFAULT_CERTIFICATE, canonical, covers, expiry, read
from routemesh.proxy.routes import RouteTable


def certificates(state: State) -> Mapping[str, str]:
    """PEM (chain and key) by secret's name, of those that the gateway may show."""
    named = {service.spec.http.certificate for service in state.services.values() if service.spec.http is not None}
    found = {}
    for secret in state.secrets.values():
        if secret.name in named | {DEFAULT_CERTIFICATE}:
            with suppress(UserError):
                found[secret.name] = canonical(secret.data)
    return found


def readable(state: State, routes: RouteTable) -> RouteTable:
    """The table without the services whose certificate is none."""
    data = {secret.name: secret.data for secret in state.secrets.values()}
    refused = {}
    for backend in routes.backends:
        if (name := backend.http.certificate) in data:
            try:
                canonical(data[name])
            except UserError as exc:
                refused[backend.name] = f"certificate {name}: {exc}"
    return routes.without(refused)


def warnings(state: State, now: float) -> Iterator[CertificateWarning]:
    """What is wrong, or soon will be, with the certificates that services use."""
    secrets = {secret.name: secret for secret in state.secrets.values()}
    for service in sorted(state.services.values(), key=lambda service: service.spec.name):
        http = service.spec.http
        if http is None or http.certificate not in secrets:
            continue
        found = read(secrets[http.certificate].data)
        subject = f"service {service.spec.name}: certificate {http.certificate}"
        if (dates := expiry(found, now)) is not None:
            yield CertificateWarning(dates[0], f"{subject} {dates[1]}")
        for host in http.hosts:
            if not covers(found, host):
                others = ", ".join(found.names) or "no name"
                yield CertificateWarning("name", f"{subject} is not for {host}; it is for {others}")
