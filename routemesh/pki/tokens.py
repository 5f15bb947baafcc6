"""Join tokens: RMTKN-1-DIGEST-SECRET. The digest tells whom to believe before anything is sent, the secret which role one gets.

Standard library only: the command line reads tokens. Source: Docker's SWMTKN-1, moby/swarmkit ca/config.go.
"""

import hashlib
import hmac
import re
import secrets
import string
from binascii import Error, a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from routemesh.errors import UserError
from routemesh.model import Role

_DIGITS = string.digits + string.ascii_lowercase
_DIGEST_LENGTH, _SECRET_LENGTH = 50, 25
"""So many digits of base 36 hold 256 and 128 bits."""
_SECRET_BITS = 128
_TOKEN = re.compile(rf"RMTKN-1-([0-9a-z]{{{_DIGEST_LENGTH}}})-([0-9a-z]{{{_SECRET_LENGTH}}})")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """A token's parts. `digest`: of the cluster's root certificate."""

    digest: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"RMTKN-1-{self.digest}-{self.secret}"


def parse(text: str) -> Token:
    """Read a token. Raises UserError, without the token in its message."""
    found = _TOKEN.fullmatch(text.strip())
    if found is None:
        raise UserError(
            "the token is not a join token (RMTKN-1-…-…): print one on a manager with 'routemesh cluster token worker'"
        )
    return Token(found[1], found[2])


def new_secret() -> str:
    """A secret that nobody guesses."""
    return _base36(secrets.randbits(_SECRET_BITS), _SECRET_LENGTH)


def digest(root: str) -> str:
    """By what a token names the first certificate of a PEM text. Raises UserError where there is none."""
    found = _PEM.search(root)
    try:
        der = a2b_base64(found[1]) if found else b""
    except Error:
        der = b""
    if not der:
        raise UserError("what should be the cluster's root certificate is not one in PEM")
    return _base36(int.from_bytes(hashlib.sha256(der).digest(), "big"), _DIGEST_LENGTH)


def is_of(token: Token, root: str) -> bool:
    """Whether a token names this root certificate."""
    return hmac.compare_digest(token.digest, digest(root))


def role_of(secret: str, known: Mapping[Role, str]) -> Role | None:
    """The role that a secret stands for; None for one that is wrong. Takes as long for any secret."""
    matches = [role for role, right in known.items() if hmac.compare_digest(secret.encode(), right.encode()) and right]
    return matches[0] if matches else None


def _base36(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, remainder = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[remainder])
    return "".join(digits)
