"""Secrets that people create and remove. PURE. They never change: a new one gets a new name, and what uses it is told so."""

from routemesh.errors import Conflict, NotFound, UserError
from routemesh.labels.http import RESERVED_SECRETS, SECRET_NAME
from routemesh.model import Secret, SecretId, State
from routemesh.names import derive_id
from routemesh.pem import DEFAULT_CERTIFICATE, check_strength
from routemesh.values import replace

MAX_BYTES = 500 * 1024
"""As Docker's."""


def create_secret(state: State, name: str, data: bytes, now: float) -> State:
    """Keep a secret under a name that is free."""
    if not SECRET_NAME.fullmatch(name) or name in RESERVED_SECRETS:
        raise UserError(
            f"secret name {name!r} is not possible; use at most 63 small letters, digits and . _ -, with a letter or digit "
            f"first and last, and neither {' nor '.join(sorted(RESERVED_SECRETS))}"
        )
    if not data or len(data) > MAX_BYTES:
        raise UserError(f"secret {name} has {len(data)} bytes; a secret has 1 to {MAX_BYTES}")
    if any(secret.name == name for secret in state.secrets.values()):
        raise Conflict(f"a secret named {name} exists; secrets never change: use another name, or remove it first")
    if name == DEFAULT_CERTIFICATE:
        _check_default(data)
    secret = Secret(id=SecretId(derive_id("secret", name, state.revision, now)), name=name, created_at=now, data=data)
    return replace(state, secrets={**state.secrets, secret.id: secret})


def _check_default(data: bytes) -> None:
    """All of the gateway's TLS depends on this one."""
    try:
        check_strength(data)
    except UserError as exc:
        raise UserError(
            f"secret {DEFAULT_CERTIFICATE} is what the gateway shows where no service has a certificate: {exc}"
        ) from None


def remove_secret(state: State, name: str) -> State:
    """Forget a secret that no service uses. Raises NotFound and Conflict."""
    secret = find_secret(state, name)
    if users := users_of(state, name):
        raise Conflict(f"secret {name} is in use by service {', '.join(users)}; give the service another one first")
    return replace(state, secrets={key: other for key, other in state.secrets.items() if key != secret.id})


def find_secret(state: State, name: str) -> Secret:
    """Raises NotFound, which names the secrets that there are."""
    for secret in state.secrets.values():
        if secret.name == name:
            return secret
    known = ", ".join(sorted(secret.name for secret in state.secrets.values()))
    raise NotFound(
        f"there is no secret {name}; {'secrets are: ' + known if known else 'there are none: routemesh secret create'}"
    )


def users_of(state: State, name: str) -> tuple[str, ...]:
    """The services whose certificate it is."""
    using = (service.spec for service in state.services.values() if service.spec.http is not None)
    return tuple(sorted(spec.name for spec in using if spec.http is not None and spec.http.certificate == name))
