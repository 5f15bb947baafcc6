"""Which certificates of services are, or soon will be, not what clients take. PURE."""

from collections.abc import Iterator

from routemesh.model import CertificateWarning, State
from routemesh.pem import covers, expiry, read


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
