"""Which certificates of services are, or soon will be, not what clients take. PURE."""

from collections.abc import Iterator

from routemesh.model import State
from routemesh.pem import covers, expiry, read


def warnings(state: State, now: float) -> Iterator[str]:
    """What is wrong, or soon will be, with the certificates that services use, a line each."""
    secrets = {secret.name: secret for secret in state.secrets.values()}
    for service in sorted(state.services.values(), key=lambda service: service.spec.name):
        http = service.spec.http
        if http is None or http.certificate not in secrets:
            continue
        found = read(secrets[http.certificate].data)
        subject = f"service {service.spec.name}: certificate {http.certificate}"
        if said := expiry(found, now):
            yield f"{subject} {said}"
        for host in http.hosts:
            if not covers(found, host):
                yield f"{subject} is not for {host}; it is for {', '.join(found.names) or 'no name'}"
